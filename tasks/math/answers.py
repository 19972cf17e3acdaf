r"""Comparison, normalization and grouping of the final answers of mathematics problems.

Numbers are compared as fractions, never as floats: 0.5 is 1/2, and 0.333 is not 1/3. Structures
(tuples, sets, matrices) are compared part by part. Expressions must be the same text after
`normalize_latex`, or, if asked for, equal by math-verify and then exactly.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from .latex import LONGEST, compact_latex, normalize_latex
from .numbers import Number, TooLarge, calculate, fraction_to_text, read_number
from .replies import before_next_question, final_answer
from .structure import RELATION, UNORDERED, Answer, Expression, Structure, key_of, read_answer
from .symbolic import is_equal
from .units import are_compatible, is_unit

__all__ = [
    "are_same",
    "before_next_question",
    "final_answer",
    "group_keys",
    "normalize_answer",
    "read_number",
    "require_math_verify",
]

_MOST_ITEMS_COMPARED = 6  # items of a list that math-verify compares
_DATE = re.compile(r"[0-9]{1,4}([-/])[0-9]{1,2}\1[0-9]{1,4}")
# What math-verify does not read: doubled signs, bases, lists, units, ordinals, ratios, derivatives.
_LOST = re.compile(r"^[-+]\s*[-+]|[0-9]_|[,;:%°'\"]|[0-9](?:st|nd|rd|th)\b")


def normalize_answer(text: str) -> str:
    """Return an answer in a form that most equal answers share: `1/2`, `42 dollars`, `(1,2]`.

    A normalized answer stays the same when it is normalized again.
    """
    answer = read_answer(text)
    if isinstance(answer, Number):
        return str(answer)
    notation = normalize_latex(text)
    candidates = [compact_latex(notation), notation]
    if isinstance(answer, Expression) and not answer.unit:
        candidates.insert(0, answer.text)
    for candidate in candidates:
        if normalize_latex(candidate) == candidate and read_answer(candidate) == answer:
            return candidate
    return text.strip()


def are_same(answer: str, right: str, *, symbolic: bool = False) -> bool:
    """Return whether two answers are equal.

    Numbers are equal if their values are exactly equal, and their units too where both have one.
    Other answers are equal if their structures and texts are the same, or, with `symbolic`, if
    their parts are equal by math-verify and exactly. An answer with a relation does not equal one
    without; `x = 5` counts as 5. An answer of more than 400 characters equals none.

    Args:
        answer: the answer of a reply.
        right: the right answer.
        symbolic: whether math-verify compares expressions with different texts.
    """
    if len(answer) > LONGEST or len(right) > LONGEST:
        return False
    try:
        return _are_equal(read_answer(answer), read_answer(right), symbolic)
    except TooLarge:
        return False  # a number is too large to compare


def group_keys(answers: Sequence[str]) -> list[Hashable]:
    """Return one key for each answer; answers with equal keys are the same answer.

    Answers of equal value are the same, with any unit (`18`, `18 USD`, `$18`), unless their units
    contradict each other (`5 cm`, `5 m`). In that case each unit is a group, and so are the answers
    without a unit. The order of the answers does not matter.
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
    """Return a number for each unit, the same for units that agree; None if all units agree."""
    groups: list[list[str]] = []
    for unit in units:
        joined = [group for group in groups if any(are_compatible(unit, other) for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([unit, *(other for group in joined for other in group)])
    if len(groups) < 2:
        return None
    return {unit: min(map(units.index, group)) for group in groups for unit in group}


def require_math_verify() -> None:
    """Check that math-verify is installed.

    Raises:
        ImportError: it is not; the message says how to install it.
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
    """Compare exact values if both are sums of numbers, and otherwise ask math-verify."""
    if any(isinstance(x, Expression) and _DATE.fullmatch(x.text) for x in (a, b)):
        return False
    values = [x.value if isinstance(x, Number) else calculate(x.text) for x in (a, b)]
    if values[0] is not None and values[1] is not None:
        return values[0] == values[1]
    texts = [fraction_to_text(x.value) if isinstance(x, Number) else x.text for x in (a, b)]
    if not all(map(_is_for_symbols, texts)):
        return False
    return is_equal(*(_without_decimals(text) for text in texts))


def _is_for_symbols(text: str) -> bool:
    """Return whether math-verify reads all of a text.

    It silently drops units, bases, words and all but the last side of a relation.
    """
    words = re.findall("[a-zA-Z]{2,}", re.sub(r"\\[a-zA-Z]+", " ", text))
    is_worded = any(len(word) > 2 or is_unit(word) for word in words)
    return not (not text or is_worded or RELATION.search(text) or _LOST.search(text))


def _without_decimals(text: str) -> str:
    r"""Replace decimals, which math-verify rounds: `0.5\pi` becomes `\frac{5}{10}\pi`."""

    def fraction(match: re.Match[str]) -> str:
        figures = match[1] + match[2]
        return rf"\frac{{{int(figures)}}}{{{10 ** len(match[2])}}}"

    return re.sub(r"([0-9]*)\.([0-9]+)", fraction, text)
