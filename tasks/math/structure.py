r"""The reader of answers: a number with a unit, an expression, or a structure of these.

Structures are tuples, intervals, sets and lists, matrices, unions and relations. Two notations of
one answer give the same structure. An expression is a text in one notation; no algebra is done.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache

from .latex import LONGEST, compact_latex, normalize_latex
from .numbers import Number, TooLarge, calculate, read_number
from .units import units_of

_DEEPEST = 6  # levels of structures inside each other


@dataclass(frozen=True, slots=True)
class Expression:
    """An answer that is not a number.

    Attributes:
        text: the text, in one notation.
        unit: the unit after it; "" without one.
    """

    text: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Structure:
    r"""An answer that has parts.

    Attributes:
        kind: the brackets of a tuple or an interval, such as `(]`; `list` for a set or a list;
            `union`; `matrix 2` for a matrix of two columns (for a determinant with the name of its
            LaTeX environment, such as `vmatrix 2`); `rel =` and the like for a relation.
        items: the parts; those of a matrix are row by row.
    """

    kind: str
    items: tuple[Answer, ...]


Answer = Number | Expression | Structure
"""An answer as it was read."""
UNORDERED = ("list", "union", "rel =", "rel \\ne")
"""Kinds of structures whose parts have no order."""

_NAME = re.compile(
    r"(?:[a-zA-Z]|\([a-zA-Z](?:, ?[a-zA-Z]){1,3}\)"
    r"|\\(?!in(?![a-zA-Z]))[a-zA-Z]+ ?|[a-zA-Z]{3,}(?: [a-zA-Z]{2,}){0,3}"
    r"|\\angle ?[A-Z]{1,3}|[A-Z]{2})"
    r"(?:_(?:\w|{[^{}]*}))?'?(?:\([a-zA-Z0-9, ]{1,12}\))? ?(?:=|\\in(?![a-zA-Z])|:(?= ))\s*(?=\S)"
)
RELATION = re.compile(
    r"(\\(?:le|ge|ne|approx|in|equiv|sim|subset|subseteq|notin|to|mid)(?![a-zA-Z])|[=<>≡])"
)
"""A pattern of the sign of a relation."""

_FLIPPED = {">": "<", r"\ge": r"\le"}
_VARIABLE = re.compile(r"[a-zA-Z]|\\(?:alpha|beta|gamma|theta|lambda|phi|mu|omega|epsilon|delta)")
_MATRIX = re.compile(
    r"(?:\(|\[)?\s*\\begin{(\w*matrix|array)}(?:{[^{}]*})?(.*)\\end{\1}\s*(?:\)|\])?", re.DOTALL
)
_UNIT_BEHIND = re.compile(r"(?<=[0-9}i])(°|%)$|(?<=[0-9}i]) ([a-zA-Z]{2,}[^\\{}()=<>+*]*)$")
_OPTION = re.compile(r"^\([A-E]\) (?=[-$]?[0-9])")  # `(D) 12`
_CLOCK = re.compile("[0-9]{1,2}:[0-9]{2} [apAP][mM]")
_CHOICE = re.compile(r"\(([A-Z])\)|([A-Z])")
_WORDS = re.compile("[^\\W\\d_]{2,}(?:[ '-][^\\W\\d_]+)*")


@lru_cache(maxsize=4096)
def read_answer(text: str, depth: int = 0) -> Answer:
    """Read an answer in any notation.

    Args:
        text: the answer.
        depth: the number of structures around it; at most six are read.

    Returns:
        A number if it is one, or else a structure if it has one, or else an expression.
    """
    text = normalize_latex(text)
    text = _OPTION.sub("", text)
    number = read_number(text)
    if number is not None or len(text) > LONGEST:
        return number or Expression(text)
    name = _NAME.match(text)
    if name and not _NAME.match(text, name.end()):
        return read_answer(text[name.end() :], depth)
    if depth < _DEEPEST:
        found = (
            _matrix(text, depth)
            or _listed(text, depth)
            or _relation(text, depth)
            or _union(text, depth)
            or _bracketed(text, depth)
            or _plus_minus(text, depth)
        )
        if found is not None:
            return found
    if unit := _UNIT_BEHIND.search(text):
        body, words = text[: unit.start()], unit[1] or unit[2]
        is_measure = unit[1] or (units_of(words)[0] and read_number(f"1 {words}"))
        if is_measure and read_number(body) is None:
            return Expression(_expression(body), words)
    return Expression(_expression(text))


def key_of(answer: Answer) -> Hashable:
    """Return a key that equal answers share, whatever their units."""
    if isinstance(answer, Number):
        return answer.value
    if isinstance(answer, Expression):
        return answer.text
    items = [key_of(item) for item in answer.items]
    is_ordered = answer.kind not in UNORDERED
    return answer.kind, tuple(items) if is_ordered else frozenset(Counter(items).items())


def _expression(text: str) -> str:
    text = text.strip()
    if choice := _CHOICE.fullmatch(text):
        return choice[1] or choice[2]
    is_word = _WORDS.fullmatch(text) or _CLOCK.fullmatch(text)
    return text.lower() if is_word else compact_latex(text)


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Divide a text at separators outside brackets; the result holds the separators too."""
    parts, start, depth = [], 0, 0
    for match in re.finditer(
        rf"\\begin{{|\\end{{|\\[{{}}]|[()\[\]{{}}]|(?P<cut>{separator.pattern})", text
    ):
        if match["cut"] is None:
            depth += 1 if match[0][-1] in "([{" and not match[0].startswith(r"\end") else 0
            depth -= 1 if match[0][-1] in ")]}" else 0
            depth -= match[0].startswith(r"\end")
        elif depth == 0:
            parts += [text[start : match.start()], match["cut"]]
            start = match.end()
    return [*parts, text[start:]]


_COMMA = re.compile(r"[,;] ?(?:and |or )?| and | or ")
_SPACED_COMMA = re.compile(r"[,;] (?:and |or )?| and | or ")
_CUP = re.compile(r"\\cup(?![a-zA-Z])")
_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])")


def _listed(text: str, depth: int) -> Answer | None:
    """Read a list without brackets of at least two parts, such as `3, 5 and 7`."""
    parts = _split(text, _SPACED_COMMA)[::2]
    if len(parts) == 1 or not all(part.strip() for part in parts):
        parts = _split(text, _COMMA)[::2]
    if len(parts) == 1 or not all(part.strip() for part in parts):
        return None
    if any(_WORDS.fullmatch(normalize_latex(part)) for part in parts):
        return None  # a sentence
    items = [read_answer(part, depth + 1) for part in parts]
    if " or " in text and all(map(RELATION.search, parts)) and all(map(_is_interval, items)):
        return Structure("union", tuple(items))
    return Structure("list", tuple(_flat(items)))


def _is_interval(answer: Answer) -> bool:
    return isinstance(answer, Structure) and answer.kind in ("()", "(]", "[)", "[]")


def _flat(items: list[Answer]) -> list[Answer]:
    """Return the items, with the items of an inner list (of ±) in the list's place."""
    flat: list[Answer] = []
    for item in items:
        flat += item.items if isinstance(item, Structure) and item.kind == "list" else [item]
    return flat


def _relation(text: str, depth: int) -> Answer | None:
    r"""Read a relation such as `a = b` or `a < b \le c`; greater than becomes less than.

    A true equation of numbers is their number, and bounds of one variable are an interval.
    """
    parts = [part.strip() for part in _split(text, RELATION)]
    sides, signs = parts[::2], parts[1::2]
    if not signs:
        return None
    if all(sign == "=" for sign in signs) and all(sides):
        if (number := _true_equation(sides)) is not None:
            return number
        if len(sides) == 2 and _VARIABLE.fullmatch(sides[1]) and read_number(sides[0]):
            return read_answer(sides[0], depth)
    if all(sign in _FLIPPED for sign in signs):
        sides, signs = sides[::-1], [_FLIPPED[sign] for sign in reversed(signs)]
    if all(sides) and (interval := _interval(sides, signs, depth)) is not None:
        return interval
    items = tuple(read_answer(side, depth + 1) for side in sides)
    if len(set(signs)) == 1:
        return Structure(f"rel {signs[0]}", items)
    return Structure("rel " + " ".join(signs), items)


def _true_equation(sides: list[str]) -> Number | None:
    numbers = [read_number(side) for side in sides]
    if numbers[-1] is None:
        return None
    try:
        values = [
            calculate(side.replace("$", "")) if number is None else number.value
            for side, number in zip(sides, numbers, strict=True)
        ]
    except TooLarge:
        return None
    return numbers[-1] if all(value == numbers[-1].value for value in values) else None


def _interval(sides: list[str], signs: list[str], depth: int) -> Answer | None:
    r"""Read bounds of a variable: `x < 5` is `(-\infty,5)` and `1 \le x < 5` is `[1,5)`."""
    if any(sign not in ("<", r"\le") for sign in signs) or len(sides) not in (2, 3):
        return None
    middle = [i for i, side in enumerate(sides) if _VARIABLE.fullmatch(side)]
    if len(middle) != 1 or (len(sides) == 3 and middle != [1]):
        return None
    low: Answer = Expression(r"-\infty")
    high: Answer = Expression(r"\infty")
    opening, closing = "(", ")"
    if middle[0] > 0:
        low, opening = read_answer(sides[0], depth + 1), "(" if signs[0] == "<" else "["
    if middle[0] < len(sides) - 1:
        high, closing = read_answer(sides[-1], depth + 1), ")" if signs[-1] == "<" else "]"
    return Structure(opening + closing, (low, high))


def _union(text: str, depth: int) -> Answer | None:
    parts = _split(text, _CUP)[::2]
    if len(parts) == 1 or not all(part.strip() for part in parts):
        return None
    return Structure("union", tuple(read_answer(part, depth + 1) for part in parts))


def _bracketed(text: str, depth: int) -> Answer | None:
    r"""Read tuples and intervals in brackets, and sets such as `\{2, 1\}`.

    A set is a list of its elements, each once.
    """
    match = re.fullmatch(r"(\\{|{|\(|\[)(.*?)(\\}|}|\)|\])", text, re.DOTALL)
    if match is None or (match[1][-1] == "{") != (match[3][-1] == "}"):
        return None
    parts = [part.strip() for part in _split(match[2], re.compile("[,;]"))[::2]]
    if not _is_balanced(match[2]):
        return None
    if len(parts) == 1 and match[1][-1] != "{":
        return read_number(match[2])  # `(5)` and `[5]` are 5
    items = [read_answer(part, depth + 1) for part in parts]
    if match[1][-1] != "{":
        return Structure(match[1] + match[3], tuple(items))
    return Structure("list", tuple({key_of(item): item for item in _flat(items)}.values()))


def _is_balanced(text: str) -> bool:
    depth = 0
    for bracket in re.findall(r"[()\[\]{}]", text):
        depth += 1 if bracket in "([{" else -1
        if depth < 0:
            return False
    return depth == 0


def _plus_minus(text: str, depth: int) -> Answer | None:
    r"""Read `a \pm b`, which is the list of a + b and a - b."""
    parts = [part.strip() for part in _PLUS_MINUS.split(text)]
    if len(parts) != 2 or not parts[1]:
        return None
    both = (f"{parts[0]}+{parts[1]}" if parts[0] else parts[1], f"{parts[0]}-{parts[1]}")
    return Structure("list", tuple(_computed(one, depth) for one in both))


def _computed(text: str, depth: int) -> Answer:
    try:
        value = calculate(text)
    except TooLarge:
        value = None
    return read_answer(text, depth + 1) if value is None else Number(value, "")


def _matrix(text: str, depth: int) -> Answer | None:
    match = _MATRIX.fullmatch(text)
    if match is None or r"\begin" in match[2]:
        return None
    rows = [row.split("&") for row in re.split(r"\\\\", match[2].strip())]
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        return None
    name = match[1] if match[1] in ("vmatrix", "Vmatrix") else "matrix"
    items = tuple(read_answer(cell, depth + 1) for row in rows for cell in row)
    return Structure(f"{name} {width}", items)
