"""Random problems, which are the same for the same seed, and checks of arguments' bounds."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from typing import SupportsIndex, TypeVar

T = TypeVar("T", bound=Hashable)

PATIENCE = 20_000
"""Draws without anything new after which a generator counts as exhausted."""


def distinct(
    draw: Callable[[random.Random], T | None], limit: int, seed: int, patience: int = PATIENCE
) -> list[T]:
    """Draw different things until there are `limit` of them.

    A larger limit with the same seed gives the same things first.

    Args:
        draw: makes one thing from a random generator; None does not count.
        limit: the number of things, at least 1.
        seed: seed of the random generator.
        patience: draws without anything new after which the drawing ends with an error.

    Returns:
        The things, in the order drawn.

    Raises:
        ValueError: `limit` or `seed` is no whole number, `limit` is below 1, or `patience` draws
            gave nothing new.
    """
    at_least(1, limit=limit)
    whole(seed=seed)
    rng = random.Random(seed)
    found: dict[T, None] = {}
    misses = 0
    while len(found) < limit:
        drawn = draw(rng)
        misses += 1
        if drawn is not None and drawn not in found:
            found[drawn] = None
            misses = 0
        if misses == patience:
            raise ValueError(
                f"limit={limit} is too many: {patience:,} draws gave none new after {len(found)}"
            )
    return list(found)


def take(items: Sequence[T], start: int, limit: int | None) -> list[T]:
    """Return `limit` items from index `start` on; all of them if the limit is None.

    Raises:
        ValueError: `start` or `limit` is no whole number, or there are fewer items.
    """
    at_least(0, start=start)
    if start >= len(items):
        raise ValueError(f"start={start} must be from 0 to {len(items) - 1}")
    if limit is None:
        return list(items[start:])
    rest = len(items) - start
    if not (_is_whole(limit) and 1 <= limit <= rest):
        raise ValueError(
            f"limit={limit!r} must be a whole number from 1 to {rest}, or null for all"
        )
    return list(items[start : start + limit])


def at_least(least: int, **given: int) -> None:
    """Refuse arguments that are no whole numbers, or below a bound.

    Args:
        least: the smallest value allowed.
        **given: the arguments by name.

    Raises:
        ValueError: an argument is no whole number, or below `least`; the message names it.
    """
    whole(**given)
    for name, value in given.items():
        if value < least:
            raise ValueError(f"{name}={value} must be at least {least}")


def within(least: int, most: int, **given: int) -> None:
    """Refuse arguments that are no whole numbers, or out of their bounds.

    Args:
        least: the smallest value allowed.
        most: the largest value allowed.
        **given: the arguments by name.

    Raises:
        ValueError: an argument is; the message names it.
    """
    whole(**given)
    for name, value in given.items():
        if not least <= value <= most:
            raise ValueError(f"{name}={value} must be from {least} to {most}")


def whole(**given: int) -> None:
    """Refuse arguments that are no whole numbers; True and 2.0 are none.

    Args:
        **given: the arguments by name.

    Raises:
        ValueError: an argument is not; the message names it.
    """
    for name, value in given.items():
        if not _is_whole(value):
            raise ValueError(f"{name}={value!r} must be a whole number")


def _is_whole(value: object) -> bool:
    return isinstance(value, SupportsIndex) and not isinstance(value, bool)
