"""Readers of expressions, equations and steps, in typographic signs or LaTeX.

A step with wrong arithmetic is refused. An answer is read whether it is right or wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

from treeshare.tasks.replies import MINUS_SIGNS, normalize_characters
from treeshare.tasks.task import Step

from .rules import Position, combine, evaluate, is_solution

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("×✕✖⨯∗⁎⋅·∙•・﹡", "*"),
        **dict.fromkeys("÷∕⁄➗", "/"),
        **dict.fromkeys(MINUS_SIGNS, "-"),
        **dict.fromkeys("➕﹢", "+"),
        "﹦": "=",
    }
)
_LATEX = (
    (re.compile(r"\\{2,}"), r"\\"),  # escaped once more, as in JSON
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s?\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:times|cdot|ast|bullet)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|quad|qquad)(?![a-zA-Z])"), " "),
    (re.compile(r"\\([-+*/={}])"), r"\1"),  # signs and brackets that are escaped
    (re.compile(r"\\[][(),;:! ]|\$"), " "),
    (re.compile(r"\\[dt]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\frac\s?\{\s?(-?[0-9]{1,9})\s?\}\s?\{\s?([0-9]{1,9})\s?\}"), r"(\1/\2)"),
    (re.compile(r"(?<=[0-9)\]}])[ \t]*+[xX][ \t]*+(?=[-(\[{ ]*+[0-9])"), " * "),
)
_FRACTION = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_ROUND = str.maketrans("[]{}", "()()")

_NUMBER = r"-?[0-9]{1,9}(?:\.[0-9]{1,9}|/[1-9][0-9]{0,8})?"
_OPERAND = rf"(?:\( ?({_NUMBER}) ?\)|({_NUMBER}))"
_OPERATION = rf"\(? ?{_OPERAND} ?([-+*/—]) ?{_OPERAND}"
_RESULT = rf"\(? ?({_NUMBER})"
_END = r"(?![\w/]|\.[0-9]| ?[-+*/=] ?[0-9(])"  # nothing that continues the equation
_STEP = re.compile(  # for a line with single spaces, so that it is read in linear time
    r"(?:[-*] |[a-zA-Z ]*\(?[0-9]{1,2}[.):] |[a-zA-Z ]+:)?[ *`]*"  # a bullet, `1.`, `Step 1:`
    rf"(?:{_OPERATION} ?\)? ?= ?{_RESULT}|{_RESULT} ?\)? ?= ?{_OPERATION}){_END}"
)
_LABEL = re.compile(r"\banswer\W{0,9}(?:is\b|=)", re.IGNORECASE | re.ASCII)
_AROUND = " \t.*`✓✔✅"
_FORMULA = re.compile(r"[-+*/=—()\[\]{}0-9.\s]*+")
_LONGEST = 1_000  # characters of a line that may be an answer, with its LaTeX
_TRIES = 1_000  # lines that are tried as an answer, from the last, so that long replies are quick


class Side(NamedTuple):
    """One side of a chain of equalities.

    Attributes:
        expression: the text, with round brackets.
        value: its value; None if it divides by zero.
        numbers: the whole numbers in it, in their order.
    """

    expression: str
    value: Fraction | None
    numbers: list[int]


def normalize_signs(text: str) -> str:
    r"""Return the text with + - * / for every kind of sign.

    Replaced are typographic signs (× ÷ −), those of LaTeX (`\times`) and an `x` between numbers.
    LaTeX's delimiters and spacing are removed. Line ends stay.
    """
    text = normalize_characters(text).translate(_SIGNS)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


def final_expression(text: str, puzzle: tuple[int, ...]) -> str | None:
    r"""Return the expression that a reply gives as its answer; None if there is none.

    It is on the last line with `Answer:`, `answer is` or a box of LaTeX that can be read, or else
    the last line that is an expression, or else a box that holds one number. Of a chain of
    equalities it is one side (`_choose_side`).

    Args:
        text: the reply.
        puzzle: the puzzle's numbers, which decide between the sides of a chain.
    """
    for candidate in islice(_candidates(normalize_signs(text)), _TRIES):
        sides = read_sides(candidate)
        if sides:
            return _choose_side(sides, puzzle)
    return None


def is_equation(answer: str, numbers: tuple[int, ...], target: Fraction) -> bool:
    """Return whether `answer` makes the target, using each number exactly once.

    It is an expression, or a chain of equalities all of whose sides make the target and one of
    which uses the numbers. A malformed answer is wrong.
    """
    text = normalize_signs(answer).strip()
    sides = read_sides(text, around="", equals="=") if len(text) <= _LONGEST else []
    return all(side.value == target for side in sides) and any(
        is_solution(side.expression, numbers, target) for side in sides
    )


def read_sides(text: str, around: str = _AROUND, equals: str = "={1,2}") -> list[Side]:
    """Read the sides of a chain of equalities; a single expression is one side.

    Args:
        text: the chain, as `normalize_signs` returns it.
        around: characters that are removed around a side, besides blanks.
        equals: a pattern of the sign between two sides.

    Returns:
        The sides; none unless all can be read and the first is an expression of whole numbers.
    """
    for _ in range(8):  # fractions within fractions
        text, found = _FRACTION.subn(r"((\1)/(\2))", text)
        if not found:
            break
    text = _BOX.sub("", text)
    sides: list[Side] = []
    for part in re.split(equals, text):
        expression = part.strip(around + " \t").replace("—", "-")
        if boxed := re.fullmatch(r"\{([^{}]*)\}", expression):
            expression = boxed[1].strip()
        try:
            value, numbers = evaluate(expression)
        except ValueError:
            if not sides or re.fullmatch(_NUMBER, expression) is None:
                return []
            value, numbers = Fraction(expression), []
        sides.append(Side(expression.translate(_ROUND), value, numbers))
    return sides


def read_step(state: Position, line: str) -> Step | str:
    """Read the step of a line such as `2 + 8 = 10` or `10 = 2 + 8`.

    Args:
        state: the position before the step.
        line: the line, as `normalize_signs` returns it.

    Returns:
        The step; or the reason why the line is none.
    """
    match = _STEP.match(" ".join(_BOX.sub("", line).translate(_ROUND).split()))
    if match is None:
        return "not a step such as `2 + 8 = 10`"
    a1, a2, sign, b1, b2, result = match.groups()[:6]
    if sign is None:
        result, a1, a2, sign, b1, b2 = match.groups()[6:]
    a, b, sign = a1 or a2, b1 or b2, sign.replace("—", "-")
    left: list[Fraction | None] = [*state.values]
    places = []
    first, second = _exact(a), _exact(b)
    for operand in (first, second):
        if operand not in left:
            return f"{operand} is not left"
        places.append(left.index(operand))
        left[places[-1]] = None
    position = state.step(places[0], sign, places[1])
    if position is None or combine(first, sign, second) != _exact(result):
        return f"{a} {sign} {b} is not {result}"
    return Step(position.steps[-1], position)


def _exact(number: str) -> Fraction:
    return Fraction(int(number) if number.isdigit() else number)  # faster than to parse the text


def _candidates(text: str) -> Iterator[str]:
    """Yield the texts that may be the answer, the most likely first."""
    bare, numbers = [], []
    for line in filter(None, reversed(text.splitlines())):
        label, _, rest = line.rpartition(":")
        labels = list(_LABEL.finditer(rest))
        rest = rest[labels[-1].end() :] if labels else rest
        is_boxed = _BOX.search(rest) is not None
        if label and "answer" not in label.lower() and not labels and not is_boxed:
            continue
        rest = rest.strip(_AROUND)
        if not rest or len(rest) > _LONGEST:
            continue
        if is_boxed:
            shown = [rest, *_boxed(rest)]
            whole = [text for text in shown if not _is_number(text)]
            yield from whole
            numbers += [text for text in shown if _is_number(text)]
        elif label or labels:
            yield rest
        elif _FORMULA.fullmatch(rest) or "\\frac" in rest:
            bare.append(rest)
    yield from bare
    yield from numbers


def _choose_side(sides: list[Side], puzzle: tuple[int, ...]) -> str:
    """Return the side that uses the puzzle's numbers and equals the first, or else the first.

    If no side uses the numbers and the first is a single number, the next side of equal value is
    the answer: `4 * 6` of `24 = 4 * 6`.
    """
    first = sides[0]
    for side in sides:
        if side.value == first.value and sorted(side.numbers) == sorted(puzzle):
            return side.expression
    bare = len(first.numbers) < 2
    others = (side for side in sides if side.value == first.value and len(side.numbers) > 1)
    return next(others, first).expression if bare else first.expression


def _is_number(text: str) -> bool:
    return re.fullmatch(rf"[\s{{}}]*{_NUMBER}[\s{{}}]*", _BOX.sub("", text)) is not None


def _boxed(line: str) -> Iterator[str]:
    """Yield the content of the last box of a line, if its braces are balanced."""
    begin = [match.end() for match in _BOX.finditer(line)][-1]
    depth = 0
    for i in range(begin, len(line)):
        depth += {"{": 1, "}": -1}.get(line[i], 0)
        if depth == 0:
            yield line[begin + 1 : i]
            return
