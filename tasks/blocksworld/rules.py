"""The rules of Blocksworld: stacks, legal moves, and the distance between two ways to stand.

Knows no prompts and no replies. Stacks are strings of blocks, the lowest first, in alphabetical
order, since it does not matter where on the table one stands.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

Stacks = tuple[str, ...]

TABLE = "table"


class Move(NamedTuple):
    block: str
    onto: str  # another block, or `table`

    def __str__(self) -> str:
        return f"move {self.block} {'to the table' if self.onto == TABLE else f'onto {self.onto}'}"


def ordered(stacks: Iterable[str]) -> Stacks:
    return tuple(sorted(stack for stack in stacks if stack))


def legal_moves(stacks: Stacks) -> list[Move]:
    """All moves that change something: of each top block, in the order of the stacks, onto each
    other top block and to the table."""
    moves = []
    for stack in stacks:
        moves += [Move(stack[-1], other[-1]) for other in stacks if other != stack]
        moves += [Move(stack[-1], TABLE)] if len(stack) > 1 else []
    return moves


def apply(stacks: Stacks, move: Move) -> Stacks | None:
    """The stacks after a move; None if it is not legal."""
    return _moved(stacks, move) if move in legal_moves(stacks) else None


def run(stacks: Stacks, moves: Iterable[Move]) -> Stacks | None:
    """The stacks after all the moves; None if one of them is not legal."""
    for move in moves:
        after = apply(stacks, move)
        if after is None:
            return None
        stacks = after
    return stacks


@lru_cache(maxsize=64)
def distances(start: Stacks) -> dict[Stacks, int]:
    """Every way the blocks can stand, with the fewest moves to it.

    Moves can be taken back, so these are also the fewest moves from it to `start`.
    """
    names = "".join(sorted(start, key=len))
    standard = "".join(sorted(names))
    shape = ordered(stack.translate(str.maketrans(names, standard)) for stack in start)
    back = str.maketrans(standard, names)
    return {
        ordered(stack.translate(back) for stack in stacks): far
        for stacks, far in _distances_of_shape(shape).items()
    }


def in_place(stacks: Stacks, goal: Stacks) -> int:
    """How many blocks stand as in the goal, and so do all below them."""
    goals = {stack[:height] for stack in goal for height in range(1, len(stack) + 1)}
    return sum(stack[:height] in goals for stack in stacks for height in range(1, len(stack) + 1))


def draw_stacks(rng: random.Random, blocks: Sequence[str]) -> Stacks:
    """Blocks set down in random order, each on the table or on one of the stacks so far, all
    equally likely."""
    stacks: list[str] = []
    for block in rng.sample(blocks, len(blocks)):
        place = rng.randint(0, len(stacks))
        stacks[place : place + 1] = [(stacks[place] if place < len(stacks) else "") + block]
    return ordered(stacks)


def show(stacks: Stacks) -> str:
    """Stacks as `A B | C`, the lowest block of each first."""
    return " | ".join(" ".join(stack) for stack in stacks)


def _moved(stacks: Stacks, move: Move) -> Stacks:
    left = [stack.removesuffix(move.block) for stack in stacks]
    if move.onto == TABLE:
        return ordered([*left, move.block])
    return ordered(stack + move.block if stack.endswith(move.onto) else stack for stack in left)


@lru_cache(maxsize=64)
def _distances_of_shape(start: Stacks) -> dict[Stacks, int]:
    """By breadth-first search; kept for each shape, since names do not matter."""
    found = {start: 0}
    queue = deque([start])
    while queue:
        stacks = queue.popleft()
        for after in (_moved(stacks, move) for move in legal_moves(stacks)):
            if after not in found:
                found[after] = found[stacks] + 1
                queue.append(after)
    return found
