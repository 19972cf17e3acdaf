"""The rules of Countdown and the Game of 24: positions, exact arithmetic and a solver.

Numbers are combined by + - * / into a target, each used exactly once; the Game of 24 has four
numbers and the target 24. All arithmetic is on fractions, so nothing is rounded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import combinations

GAME_OF_24 = Fraction(24)
"""The target of the Game of 24, which is the default target."""

Values = tuple[Fraction, ...]
"""The values of the numbers left."""

_TOKEN = re.compile(r"0|[1-9][0-9]*|\S")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_MAX_LENGTH = 120  # characters of an expression, which bounds its nesting and integers too


@dataclass(frozen=True, slots=True, order=True)
class Number:
    """A number left in a position; numbers are ordered by value.

    Attributes:
        value: its value.
        expression: the expression of the puzzle's numbers that made it.
    """

    value: Fraction
    expression: str = field(compare=False)

    @property
    def operand(self) -> str:
        """The expression as an operand of a larger one, in brackets where they are needed."""
        return self.expression if self.expression.isdigit() else f"({self.expression})"


@dataclass(frozen=True, slots=True)
class Position:
    """A state of a puzzle.

    Two positions are equal if they have the same values left, the same answer and the same target;
    the steps that led to them do not count.

    Attributes:
        puzzle: the puzzle's numbers.
        numbers: the numbers left, ascending by value.
        steps: the steps so far, such as `2 * 3 = 6 (left: 4 6)`.
        answer: a whole solution as the model wrote it, right or wrong.
        reflections: what to learn from failed attempts.
        target: the target.
    """

    puzzle: tuple[int, ...] = field(compare=False)
    numbers: tuple[Number, ...]
    steps: tuple[str, ...] = field(default=(), compare=False)
    answer: str | None = None
    reflections: tuple[str, ...] = field(default=(), compare=False)
    target: Fraction = GAME_OF_24

    @classmethod
    def start(cls, puzzle: tuple[int, ...], target: Fraction = GAME_OF_24) -> Position:
        """Make the position in which all of a puzzle's numbers are left."""
        numbers = tuple(Number(Fraction(n), str(n)) for n in sorted(puzzle))
        return cls(puzzle, numbers, target=target)

    def __str__(self) -> str:
        return self.answer or " ".join(str(value) for value in self.values)

    @property
    def values(self) -> Values:
        """The values of the numbers left, ascending."""
        return tuple(number.value for number in self.numbers)

    @property
    def is_final(self) -> bool:
        """Whether one number is left or a whole solution was given."""
        return self.answer is not None or len(self.numbers) == 1

    def step(self, i: int, sign: str, j: int) -> Position | None:
        """Return the position after `numbers[i] sign numbers[j]`; None for a division by zero."""
        a, b = self.numbers[i], self.numbers[j]
        value = combine(a.value, sign, b.value)
        if value is None:
            return None
        made = Number(value, f"{a.operand} {sign} {b.operand}")
        rest = (number for k, number in enumerate(self.numbers) if k not in (i, j))
        numbers = tuple(sorted((*rest, made)))
        left = " ".join(str(number.value) for number in numbers)
        text = f"{a.value} {sign} {b.value} = {value} (left: {left})"
        return replace(self, numbers=numbers, steps=(*self.steps, text))


def combine(a: Fraction | None, sign: str, b: Fraction | None) -> Fraction | None:
    """Compute `a sign b` with one of + - * /; None for a division by zero or a missing operand."""
    if a is None or b is None:
        return None
    if sign == "+":
        return a + b
    if sign == "-":
        return a - b
    if sign == "*":
        return a * b
    return a / b if b else None


def evaluate(text: str) -> tuple[Fraction | None, list[int]]:
    """Read an expression of whole numbers, + - * / and brackets (round, square or curly).

    Returns:
        The value, which is None if it divides by zero, and the numbers in it, in their order.

    Raises:
        ValueError: the text is malformed, or longer than 120 characters.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"expression of {len(text)} characters is longer than {_MAX_LENGTH}")
    return _Reader(text).read()


class _Reader:
    """A parser by recursive descent: sums of products of factors."""

    def __init__(self, text: str) -> None:
        self.tokens = [*_TOKEN.findall(text), ""][::-1]  # in reverse order; "" is the end
        self.numbers: list[int] = []

    def read(self) -> tuple[Fraction | None, list[int]]:
        value = self.sum()
        self.expect("")
        return value, self.numbers

    def sum(self) -> Fraction | None:
        value = self.product()
        while self.tokens[-1] in ("+", "-"):
            value = combine(value, self.tokens.pop(), self.product())
        return value

    def product(self) -> Fraction | None:
        value = self.factor()
        while self.tokens[-1] in ("*", "/"):
            value = combine(value, self.tokens.pop(), self.factor())
        return value

    def factor(self) -> Fraction | None:
        token = self.tokens.pop()
        if token == "-":
            return combine(Fraction(0), "-", self.factor())
        if token in _CLOSING:
            value = self.sum()
            self.expect(_CLOSING[token])
            return value
        if not (token.isascii() and token.isdigit()):
            raise ValueError(f"{token!r} where a number should be")
        self.numbers.append(int(token))
        return Fraction(int(token))

    def expect(self, wanted: str) -> None:
        if (token := self.tokens.pop()) != wanted:
            raise ValueError(f"{token!r} where {wanted!r} should be")


def operations(count: int) -> Iterator[tuple[int, str, int]]:
    """Yield the indices of the operands and the sign of every operation on two of `count` numbers.

    Pairs with lower indices come first. The operations on a pair a, b are in the order a + b,
    b - a, a * b, b / a, a - b, a / b.
    """
    for i, j in combinations(range(count), 2):
        yield from ((i, "+", j), (j, "-", i), (i, "*", j), (j, "/", i), (i, "-", j), (i, "/", j))


def is_solution(expression: str, numbers: tuple[int, ...], target: Fraction) -> bool:
    """Return whether `expression` makes the target, using each number exactly once.

    A malformed expression does not.
    """
    try:
        value, used = evaluate(expression)
    except ValueError:
        return False
    return value == target and sorted(used) == sorted(numbers)


def can_make(values: Values, target: Fraction = GAME_OF_24) -> bool:
    """Return whether `values`, each used once, can make `target`.

    The result is exact. Up to four values are enumerated. For more values one half is enumerated,
    and the function asks whether the other half can make what is missing, so six values take a few
    tenths of a second at most.
    """
    if len(values) <= 4:
        return target in _ways(tuple(sorted(values)))
    return any(
        a == target == 0 or any(can_make(large, b) for b in _partners(a, target))
        for small, large in _halves(values)
        for a in _ways(tuple(sorted(small)))
    )


def solve(position: Position) -> Position | None:
    """Return a final position that makes the target; None if there is none.

    Each step is the first operation after which the target can still be made.
    """
    if not can_make(position.values, position.target):
        return None
    while not position.is_final:
        position = next(
            child
            for i, sign, j in operations(len(position.numbers))
            if (child := position.step(i, sign, j)) is not None
            and can_make(child.values, position.target)
        )
    return position


def count_solutions(values: Values, target: Fraction = GAME_OF_24) -> int:
    """Count the expressions that use each of `values` once and make `target`.

    An expression is a binary tree of + - * / over the values; there are 3,240 for four values. The
    order of the operands of + and * does not count. Equal values are different leaves.

    Raises:
        ValueError: `target` is 0. It would have too many: 0 times anything, and 0 over anything.
    """
    if not target:
        raise ValueError("target=0 must be another number")
    if len(values) == 1:
        return int(values[0] == target)
    count = 0
    for left, right in _halves(values):
        ways = _ways(right)
        for a, num_ways in _ways(left).items():
            count += num_ways * sum(ways.get(b, 0) for b in _partners(a, target))
    return count


def _halves(values: Values) -> Iterator[tuple[Values, Values]]:
    """Yield every division of `values` into two parts, the smaller part first."""
    places = range(len(values))
    for size in range(1, len(values) // 2 + 1):
        for chosen in combinations(places, size):
            if 2 * size == len(values) and 0 not in chosen:
                continue  # the mirror image of a division with 0 in the first half
            yield (
                tuple(values[i] for i in chosen),
                tuple(values[i] for i in places if i not in chosen),
            )


@lru_cache(maxsize=1 << 12)  # at most some 200 MB, if all have four values
def _ways(values: Values) -> Counter[Fraction]:
    """Count the expressions for each value that `values` can make."""
    if len(values) == 1:
        return Counter(values)
    ways: Counter[Fraction] = Counter()
    for left, right in _halves(values):
        for a, num_left in _ways(left).items():
            for b, num_right in _ways(right).items():
                for value in (a + b, a - b, b - a, a * b, combine(a, "/", b), combine(b, "/", a)):
                    if value is not None:
                        ways[value] += num_left * num_right
    return ways


def _partners(a: Fraction, target: Fraction) -> list[Fraction]:
    """Return each b that makes `target` with `a` by one operation, in any order of the operands.

    With an `a` and a target of 0, every b does; these are not in the list.
    """
    partners = [target - a, a - target, target + a]
    if a:
        partners += [target / a, target * a]
    if a and target:
        partners.append(a / target)
    return partners
