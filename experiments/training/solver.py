"""Compute exactly which targets numbers can make, for many puzzles at once.

The answers are those of `tasks.arithmetic.rules.can_make`, but fast enough for training. A fraction
is a pair of whole numbers in float64; both stay far below 2^53, so the arithmetic is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

import numpy as np
import numpy.typing as npt

from treeshare.tasks.arithmetic.rules import Position, operations

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Made = npt.NDArray[np.int8]

LARGEST_TARGET = 100
"""The largest target that is solved for."""

LARGEST_NUMBER = 50
"""The largest number of a puzzle."""

MAX_NUMBERS = 5
"""The most numbers of a puzzle."""


@dataclass(frozen=True, slots=True)
class Solved:
    """A position with everything that can still be made from it.

    Both arrays have one dimension for each remaining step. Its length is the number of
    `operations`, k(k-1)/2·6 with k numbers left.
    """

    position: Position
    made: Made  # the result of each path if it is a whole number from 1 to 100; else 0
    whole: Made  # the same, but 0 if a number on the path is not whole

    def aimed(self, target: int) -> Solved:
        """The same position with another target."""
        return replace(self, position=replace(self.position, target=Fraction(target)))

    def targets(self) -> list[int]:
        """The whole numbers from 1 to 100 that can be made, in ascending order."""
        count = np.bincount(self.made.ravel(), minlength=1 + LARGEST_TARGET)
        return [int(target) for target in np.flatnonzero(count) if target]

    def can_make_it(self, *, only_whole: bool = False) -> bool:
        """Whether the position's target can be made; with `only_whole`, without fractions."""
        made = self.whole if only_whole else self.made
        return bool((made == int(self.position.target)).any())

    def is_good(self, *, only_whole: bool = False) -> Flags:
        """Whether the target can still be made after each operation, [operations] bool."""
        made = self.whole if only_whole else self.made
        good: Flags = (made == int(self.position.target)).reshape(len(made), -1).any(1)
        return good

    def after(self, operation: int) -> Solved | None:
        """The position after an operation, by its index; None after a division by zero."""
        i, sign, j = _OPERATIONS[len(self.position.numbers)][operation]
        position = self.position.step(i, sign, j)
        if position is None:
            return None
        return Solved(position, self.made[operation], self.whole[operation])


def solve_all(puzzles: npt.NDArray[np.int64]) -> Iterator[Solved]:
    """Solve puzzles.

    Args:
        puzzles: [n, k] whole numbers, k of each puzzle.

    Yields:
        The solved puzzles in order.

    Raises:
        ValueError: k is not from 2 to 5, or a number is not from 1 to 50.
    """
    k = puzzles.shape[1]
    if not 2 <= k <= MAX_NUMBERS:
        raise ValueError(f"{k} numbers must be from 2 to {MAX_NUMBERS}")
    if puzzles.min() < 1 or puzzles.max() > LARGEST_NUMBER:
        found = f"numbers from {puzzles.min()} to {puzzles.max()}"
        raise ValueError(f"{found} must be from 1 to {LARGEST_NUMBER}")
    puzzles = np.sort(puzzles, axis=1)
    top, bottom = puzzles.astype(np.float64), np.ones(puzzles.shape)
    is_whole: Flags = np.ones(len(puzzles), np.bool_)
    while top.shape[-1] > 1:
        top, bottom, is_made_whole = _children(top, bottom)
        is_whole = is_whole[..., None] & is_made_whole
    top, bottom = top[..., 0], bottom[..., 0]
    value = np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0)
    is_target = (value >= 1) & (value <= LARGEST_TARGET) & (np.rint(value) * bottom == top)
    made = np.where(is_target, value, 0).astype(np.int8)
    whole = np.where(is_whole, made, np.int8(0))
    for row, numbers in enumerate(puzzles.tolist()):
        yield Solved(Position.start(tuple(numbers)), made[row], whole[row])


def _children(top: Floats, bottom: Floats) -> tuple[Floats, Floats, Flags]:
    """The positions after every operation, with their numbers in the order of `Position`.

    Args:
        top: [..., k] numerators; 0 after a division by zero.
        bottom: [..., k] denominators; 0 after a division by zero.

    Returns:
        Numerators and denominators, both [..., operations, k - 1], and whether the new number is
        whole, [..., operations].
    """
    rest = _rest(top.shape[-1])
    i, j = np.triu_indices(top.shape[-1], 1)
    a, b, c, d = top[..., i], bottom[..., i], top[..., j], bottom[..., j]
    ad, cb, ac, bd = a * d, c * b, a * c, b * d
    made = [(ad + cb, bd), (cb - ad, bd), (ac, bd), (cb, ad), (ad - cb, bd), (ad, cb)]
    shape = (*top.shape[:-1], len(rest), 1 + rest.shape[1])
    tops, bottoms = np.empty(shape), np.empty(shape)
    tops[..., :-1], bottoms[..., :-1] = top[..., rest], bottom[..., rest]
    for place, (made_top, made_bottom) in enumerate(made):  # in the order of `operations`
        tops[..., place :: len(made), -1] = np.where(made_bottom == 0, 0, made_top)
        bottoms[..., place :: len(made), -1] = made_bottom
    with np.errstate(invalid="ignore"):
        values = tops / bottoms
    is_whole: Flags = np.rint(values[..., -1]) == values[..., -1]
    order = np.argsort(values, axis=-1, kind="stable")
    return np.take_along_axis(tops, order, -1), np.take_along_axis(bottoms, order, -1), is_whole


_OPERATIONS = {k: tuple(operations(k)) for k in range(2, 1 + MAX_NUMBERS)}


@cache
def _rest(k: int) -> npt.NDArray[np.intp]:
    """The indices of the numbers that an operation on k numbers leaves, [operations, k - 2]."""
    rest = [[p for p in range(k) if p not in (i, j)] for i, _, j in _OPERATIONS[k]]
    return np.array(rest, dtype=np.intp)
