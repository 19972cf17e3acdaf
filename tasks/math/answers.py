r"""Final answers of mathematics problems: compared, put into one form, grouped.

Numbers are compared as fractions, never as floats: 0.5 is 1/2, and 0.333 is not 1/3. Structures
(tuples, sets, matrices) are compared part by part. Expressions must be the same text after LaTeX's
variants are removed, or, if asked for, equal by math-verify and exactly. Nothing here depends on
prompts or files.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from .latex import LONGEST, plain, squeezed
from .numbers import Number, TooLarge, calculate, read_number, written
from .replies import before_next_question, final_answer
from .structure import RELATION, UNORDERED, Answer, Expression, Structure, key_of, read_answer
from .symbolic import is_equal
from .units import are_compatible, is_unit

__all__ = [
    "are_same",
    "before_next_question",
    "final_answer",
    "group_keys",
    "need_math_verify",
    "normal",
    "read_number",
]

_MOST_ITEMS_COMPARED = 6  # by math-verify, of one list
_DATE = re.compile(r"[0-9]{1,4}([-/])[0-9]{1,2}\1[0-9]{1,4}")
_LOST = re.compile(  # doubled signs, bases, lists, units, ordinals, ratios, derivatives
    r"^[-+]\s*[-+]|[0-9]_|[,;:%°'\"]|[0-9](?:st|nd|rd|th)\b"
)


def normal(text: str) -> str:
    """An answer in the form in which equal ones are most often the same: `1/2`, `42 dollars`,
    `(1,2]`. Again it stays the same."""
    answer = read_answer(text)
    if isinstance(answer, Number):
        return str(answer)
    in_one = plain(text)
    candidates = [squeezed(in_one), in_one]
    if isinstance(answer, Expression) and not answer.unit:
        candidates.insert(0, answer.text)
    for candidate in candidates:
        if plain(candidate) == candidate and read_answer(candidate) == answer:
            return candidate
    return text.strip()


def are_same(answer: str, right: str, *, symbolic: bool = False) -> bool:
    """Whether two answers are equal; one of more than 400 characters is to none.

    Numbers are if their values are, exactly, and their units where both have one. Other answers
    are if their structures and texts are the same, or, with `symbolic`, if their parts are equal by
    math-verify and exactly. An answer with a relation equals none without one; `x = 5` has none.
    """
    if len(answer) > LONGEST or len(right) > LONGEST:
        return False
    try:
        return _are_equal(read_answer(answer), read_answer(right), symbolic)
    except TooLarge:
        return False  # a number beyond all bounds


def group_keys(answers: Sequence[str]) -> list[Hashable]:
    """One key for each answer; those with equal keys are the same answer.

    Answers of one value are the same, whatever their units (`18`, `18 USD`, `$18`), unless their
    units contradict each other (`5 cm`, `5 m`): then each unit is a group, and so are those
    without one. The order of the answers does not matter.
    """
    keys = [key_of(read_answer(answer)) for answer in answers]
    units: dict[Hashable, list[str]] = {}
    own = [_unit(read_answer(answer)) for answer in answers]
    for value, unit in zip(keys, own, strict=True):
        if unit and unit not in units.setdefault(value, []):
            units[value].append(unit)
    return [
        value if (known := _classes(units.get(value, []))) is None else (value, known.get(unit))
        for value, unit in zip(keys, own, strict=True)
    ]


def _classes(units: list[str]) -> dict[str, int] | None:
    """A number for each unit, the same for those that agree; None if all do."""
    groups: list[list[str]] = []
    for unit in units:
        joined = [group for group in groups if any(are_compatible(unit, other) for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([unit, *(other for group in joined for other in group)])
    if len(groups) < 2:
        return None
    return {unit: min(map(units.index, group)) for group in groups for unit in group}


def need_math_verify() -> None:
    """
    Raises:
        ImportError: the package is not installed; says how to get it.
    """
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        raise ImportError('symbolic=true needs `pip install "treeshare[math]"`') from error


def _unit(answer: Answer) -> str:
    return "" if isinstance(answer, Structure) else answer.unit


def _are_equal(a: Answer, b: Answer, symbolic: bool) -> bool:
    if isinstance(a, Structure) or isinstance(b, Structure):
        if not (isinstance(a, Structure) and isinstance(b, Structure)) or a.kind != b.kind:
            return False
        if len(a.items) != len(b.items):
            return False
        if a.kind in UNORDERED:
            return _are_equal_in_any_order(list(a.items), list(b.items), symbolic)
        return all(_are_equal(x, y, symbolic) for x, y in zip(a.items, b.items, strict=True))
    if not are_compatible(a.unit, b.unit):
        return False
    if isinstance(a, Number) and isinstance(b, Number):
        return a.value == b.value
    if isinstance(a, Expression) and isinstance(b, Expression) and a.text == b.text:
        return True
    return symbolic and _are_equal_expressions(a, b)


def _are_equal_in_any_order(a: list[Answer], b: list[Answer], symbolic: bool) -> bool:
    for by_symbols in (False, True)[: 1 + symbolic]:
        if by_symbols and len(b) > _MOST_ITEMS_COMPARED:
            return False
        for x in list(a):
            match = next((y for y in b if _are_equal(x, y, by_symbols)), None)
            if match is not None:
                a.remove(x)
                b.remove(match)
    return not a


def _are_equal_expressions(a: Number | Expression, b: Number | Expression) -> bool:
    """By their exact values, if both are sums of numbers, and else by math-verify."""
    if any(isinstance(x, Expression) and _DATE.fullmatch(x.text) for x in (a, b)):
        return False
    values = [x.value if isinstance(x, Number) else calculate(x.text) for x in (a, b)]
    if values[0] is not None and values[1] is not None:
        return values[0] == values[1]
    texts = [written(x.value) if isinstance(x, Number) else x.text for x in (a, b)]
    if not all(map(_is_for_symbols, texts)):
        return False
    return is_equal(*(_without_decimals(text) for text in texts))


def _is_for_symbols(text: str) -> bool:
    """Whether math-verify may read a text: it drops units, bases, words and all but the last
    side of a relation without saying so."""
    words = re.findall("[a-zA-Z]{2,}", re.sub(r"\\[a-zA-Z]+", " ", text))
    is_worded = any(len(word) > 2 or is_unit(word) for word in words)
    return not (not text or is_worded or RELATION.search(text) or _LOST.search(text))


def _without_decimals(text: str) -> str:
    r"""Decimals as fractions, as math-verify rounds them: `0.5\pi` is `\frac{5}{10}\pi`."""

    def fraction(match: re.Match[str]) -> str:
        figures = match[1] + match[2]
        return rf"\frac{{{int(figures)}}}{{{10 ** len(match[2])}}}"

    return re.sub(r"([0-9]*)\.([0-9]+)", fraction, text)
