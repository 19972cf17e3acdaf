"""The rules of Countdown and of the Game of 24: positions, exact arithmetic, what can be made.

Numbers are combined by + - * / into a target, each used exactly once; the Game of 24 has four
numbers and the target 24. Knows no prompts, no replies and no lists of puzzles. All arithmetic is
on fractions, so nothing is ever rounded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import combinations

GAME_OF_24 = Fraction(24)  # the target of the Game of 24, and so the default

Values = tuple[Fraction, ...]

_TOKEN = re.compile(r"0|[1-9][0-9]*|\S")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_MAX_LENGTH = 120  # characters of an expression; bounds its nesting and its integers too


@dataclass(frozen=True, slots=True, order=True)
class Number:
    value: Fraction
    expression: str = field(compare=False)  # of the puzzle's numbers; made `value`

    @property
    def operand(self) -> str:
        """The expression as part of a larger one."""
        return self.expression if self.expression.isdigit() else f"({self.expression})"


@dataclass(frozen=True, slots=True)
class Position:
    """What is left of a puzzle. Two positions are equal if the same values (and the same answer)
    are left for the same target, however they were reached."""

    puzzle: tuple[int, ...] = field(compare=False)
    numbers: tuple[Number, ...]  # ascending by value
    steps: tuple[str, ...] = field(default=(), compare=False)  # such as `2 * 3 = 6 (left: 4 6)`
    answer: str | None = None  # a whole solution as the model wrote it, right or wrong
    reflections: tuple[str, ...] = field(default=(), compare=False)  # on failed attempts
    target: Fraction = GAME_OF_24

    @classmethod
    def start(cls, puzzle: tuple[int, ...], target: Fraction = GAME_OF_24) -> Position:
        numbers = tuple(Number(Fraction(n), str(n)) for n in sorted(puzzle))
        return cls(puzzle, numbers, target=target)

    def __str__(self) -> str:
        return self.answer or " ".join(str(value) for value in self.values)

    @property
    def values(self) -> Values:
        return tuple(number.value for number in self.numbers)

    @property
    def is_final(self) -> bool:
        return self.answer is not None or len(self.numbers) == 1

    def step(self, i: int, sign: str, j: int) -> Position | None:
        """The position after `numbers[i] sign numbers[j]`; None for a division by zero."""
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
    """`a sign b`, where `sign` is one of + - * /; None if that, `a` or `b` has no value."""
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
        Its value (None where it divides by zero), and the numbers in it as they stand.

    Raises:
        ValueError: it is malformed, or longer than 120 characters.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"expression of {len(text)} characters is longer than {_MAX_LENGTH}")
    return _Reader(text).read()


class _Reader:
    """Recursive descent: a sum is of products, a product of factors."""

    def __init__(self, text: str) -> None:
        self.tokens = [*_TOKEN.findall(text), ""][::-1]  # the next one last; "" is the end
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
    """Operand places and sign of every operation on two of `count` numbers: by the pair, the lower
    places first; within a pair a, b: a + b, b - a, a * b, b / a, a - b, a / b."""
    for i, j in combinations(range(count), 2):
        yield from ((i, "+", j), (j, "-", i), (i, "*", j), (j, "/", i), (i, "-", j), (i, "/", j))


def is_solution(expression: str, numbers: tuple[int, ...], target: Fraction) -> bool:
    """Whether `expression` makes `target` of `numbers`, each used exactly once. Anything malformed
    does not."""
    try:
        value, used = evaluate(expression)
    except ValueError:
        return False
    return value == target and sorted(used) == sorted(numbers)


def can_make(values: Values, target: Fraction = GAME_OF_24) -> bool:
    """Whether `values`, each used once, can make `target`.

    Exact. Up to four values are enumerated; of more, one half is, and the other is asked for what
    the first lacks, so six values take a few tenths of a second at worst.
    """
    if len(values) <= 4:
        return target in _ways(tuple(sorted(values)))
    return any(
        a == target == 0 or any(can_make(large, b) for b in _partners(a, target))
        for small, large in _halves(values)
        for a in _ways(tuple(sorted(small)))
    )


def solve(position: Position) -> Position | None:
    """A final position that makes the target, by the first operation at each step that still can;
    None if there is none."""
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
    """How many expressions that use each of `values` once make `target`.

    Counted are binary trees of + - * / over the values, of which there are 3,240 for four values:
    the order of the operands of + and * does not count, equal values are told apart.

    Raises:
        ValueError: `target` is 0, which 0 makes by * and / with whatever the rest makes.
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
    """Every way to divide `values` in two, the smaller half first."""
    places = range(len(values))
    for size in range(1, len(values) // 2 + 1):
        for chosen in combinations(places, size):
            if 2 * size == len(values) and 0 not in chosen:
                continue  # the mirror image of a division with 0 in the first half
            yield (
                tuple(values[i] for i in chosen),
                tuple(values[i] for i in places if i not in chosen),
            )


@lru_cache(maxsize=1 << 12)  # some 200 MB of fours at most
def _ways(values: Values) -> Counter[Fraction]:
    """What `values` can make, each value with the number of expressions that make it."""
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
    """Each b that makes `target` with `a`, by a + b, a - b, b - a, a * b, b / a and a / b; but for
    a target of 0, which an `a` of 0 makes with any."""
    partners = [target - a, a - target, target + a]
    if a:
        partners += [target / a, target * a]
    if a and target:
        partners.append(a / target)
    return partners
