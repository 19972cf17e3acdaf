"""The rules of Blocksworld: stacks, legal moves, and the distance between two configurations."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

Stacks = tuple[str, ...]
"""All stacks, each a string of blocks from the lowest to the top, in alphabetical order.

The order has no meaning, since the place of a stack on the table does not matter.
"""

TABLE = "table"
"""The destination of a move to the table."""


class Move(NamedTuple):
    """A move of a top block.

    Attributes:
        block: the block's name.
        onto: another block's name, or `TABLE`.
    """

    block: str
    onto: str

    def __str__(self) -> str:
        return f"move {self.block} {'to the table' if self.onto == TABLE else f'onto {self.onto}'}"


def sort_stacks(stacks: Iterable[str]) -> Stacks:
    """Return the stacks in alphabetical order, without empty ones."""
    return tuple(sorted(stack for stack in stacks if stack))


def legal_moves(stacks: Stacks) -> list[Move]:
    """Return all moves that change something.

    They are each top block, in the order of the stacks, onto each other top block and to the table.
    """
    moves = []
    for stack in stacks:
        moves += [Move(stack[-1], other[-1]) for other in stacks if other != stack]
        moves += [Move(stack[-1], TABLE)] if len(stack) > 1 else []
    return moves


def apply(stacks: Stacks, move: Move) -> Stacks | None:
    """Return the stacks after a move; None if the move is not legal."""
    return _moved(stacks, move) if move in legal_moves(stacks) else None


def run(stacks: Stacks, moves: Iterable[Move]) -> Stacks | None:
    """Return the stacks after all the moves; None if one of them is not legal."""
    for move in moves:
        after = apply(stacks, move)
        if after is None:
            return None
        stacks = after
    return stacks


@lru_cache(maxsize=64)
def distances(start: Stacks) -> dict[Stacks, int]:
    """Return every configuration of the blocks with the fewest moves to it.

    Every move can be undone, so these are also the fewest moves from there to `start`.
    """
    names = "".join(sorted(start, key=len))
    standard = "".join(sorted(names))
    shape = sort_stacks(stack.translate(str.maketrans(names, standard)) for stack in start)
    back = str.maketrans(standard, names)
    return {
        sort_stacks(stack.translate(back) for stack in stacks): far
        for stacks, far in _distances_of_shape(shape).items()
    }


def count_in_place(stacks: Stacks, goal: Stacks) -> int:
    """Count the blocks that are where the goal wants them, with all blocks below them."""
    goals = {stack[:height] for stack in goal for height in range(1, len(stack) + 1)}
    return sum(stack[:height] in goals for stack in stacks for height in range(1, len(stack) + 1))


def draw_stacks(rng: random.Random, blocks: Sequence[str]) -> Stacks:
    """Put blocks down in random order, each on the table or on one of the stacks so far.

    All places are equally likely.
    """
    stacks: list[str] = []
    for block in rng.sample(blocks, len(blocks)):
        place = rng.randint(0, len(stacks))
        stacks[place : place + 1] = [(stacks[place] if place < len(stacks) else "") + block]
    return sort_stacks(stacks)


def stacks_to_text(stacks: Stacks) -> str:
    """Return stacks as `A B | C`, the lowest block of each first."""
    return " | ".join(" ".join(stack) for stack in stacks)


def _moved(stacks: Stacks, move: Move) -> Stacks:
    left = [stack.removesuffix(move.block) for stack in stacks]
    if move.onto == TABLE:
        return sort_stacks([*left, move.block])
    return sort_stacks(stack + move.block if stack.endswith(move.onto) else stack for stack in left)


@lru_cache(maxsize=64)
def _distances_of_shape(start: Stacks) -> dict[Stacks, int]:
    """Find the distances by breadth-first search; one result serves all names of the blocks."""
    found = {start: 0}
    queue = deque([start])
    while queue:
        stacks = queue.popleft()
        for after in (_moved(stacks, move) for move in legal_moves(stacks)):
            if after not in found:
                found[after] = found[stacks] + 1
                queue.append(after)
    return found
