"""Problems drawn at random, the same for the same seed, and the bounds of a task's arguments.

Knows no task: a draw is a function of a random generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T", bound=Hashable)

PATIENCE = 20_000  # draws


def distinct(
    draw: Callable[[random.Random], T | None], limit: int, seed: int, patience: int = PATIENCE
) -> list[T]:
    """The first `limit` different things drawn, in order; a draw of None does not count.

    More of the same seed begin with the same. After `patience` draws without anything new there is
    taken to be no more.

    Raises:
        ValueError: `limit` is below 1, or there seem to be fewer.
    """
    at_least(1, limit=limit)
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


def at_least(least: int, **given: int) -> None:
    """Refuse arguments below `least`.

    Raises:
        ValueError: one of them is; names it.
    """
    for name, value in given.items():
        if value < least:
            raise ValueError(f"{name}={value} must be at least {least}")
