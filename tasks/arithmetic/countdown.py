"""Countdown: combine three to six numbers by + - * / into a target, using each exactly once.

The puzzle of Stream of Search (arXiv 2404.03683 section 3); the Game of 24 is the case of four
numbers and the target 24. All but the words and the generator is `ArithmeticTask`. How many numbers
there are is the difficulty: each more multiplies the positions by about a hundred.
"""

from __future__ import annotations

import random
from fractions import Fraction
from typing import NamedTuple

from treeshare.tasks.generator import at_least, distinct
from treeshare.tasks.sampling import RoleSampling, merged
from treeshare.tasks.task import Problem

from . import countdown_prompts as prompts
from .replies import is_equation
from .rules import Position, can_make
from .task import SAMPLING, ArithmeticTask, ArithmeticVerifier


class Puzzle(NamedTuple):
    numbers: tuple[int, ...]  # ascending
    target: int


class Countdown(ArithmeticTask):
    """The task: generated puzzles, prompts and parsers.

    Puzzles are drawn uniformly from those that have a solution and differ from every example of
    the prompts.

    Args:
        numbers: how many a puzzle has, 3 to 6.
        largest: the numbers are from 1 to this.
        smallest_target: the targets are from this on.
        largest_target: the targets go up to this.
        limit: puzzles; the first of more are these.
        seed: of the puzzles.
        sampling: per role, fields that replace those of the defaults.

    Raises:
        ValueError: an argument is out of its bound, or there are fewer puzzles than `limit`.
    """

    name = "countdown"
    words = prompts.WORDS
    default_sampling = merged(
        SAMPLING,
        {
            "propose": {"max_tokens": 160},
            "step": {"max_tokens": 48},
            "io": {"max_tokens": 64},
            "cot": {"max_tokens": 240},
            "refine": {"max_tokens": 64},
        },
    )

    def __init__(
        self,
        *,
        numbers: int = 5,
        largest: int = 25,
        smallest_target: int = 10,
        largest_target: int = 100,
        limit: int = 100,
        seed: int = 0,
        sampling: RoleSampling | None = None,
    ) -> None:
        super().__init__(sampling)
        if not 3 <= numbers <= 6:
            raise ValueError(f"numbers={numbers} must be from 3 to 6")
        at_least(1, largest=largest, smallest_target=smallest_target)
        at_least(smallest_target, largest_target=largest_target)

        def draw(rng: random.Random) -> Puzzle | None:
            drawn = tuple(sorted(rng.randint(1, largest) for _ in range(numbers)))
            puzzle = Puzzle(drawn, rng.randint(smallest_target, largest_target))
            return puzzle if is_solvable(puzzle) and puzzle not in prompts.EXAMPLES else None

        self._puzzles = distinct(draw, limit, seed)

    def problems(self) -> list[Problem]:
        """In the order drawn; the id names the puzzle, as `countdown/2-5-9-14-20=61`."""
        return [
            Problem(f"{self.name}/{'-'.join(map(str, puzzle.numbers))}={puzzle.target}", puzzle)
            for puzzle in self._puzzles
        ]

    def root(self, problem: Problem) -> Position:
        numbers, target = problem.data
        return Position.start(numbers, Fraction(target))


class CountdownVerifier(ArithmeticVerifier):
    def check(self, problem: Problem, answer: str) -> bool:
        """Whether `answer`, with or without `= target`, makes the target of the puzzle's numbers,
        each used once. Anything malformed is wrong."""
        numbers, target = problem.data
        return is_equation(answer, numbers, Fraction(target))


def is_solvable(puzzle: Puzzle) -> bool:
    return can_make(tuple(map(Fraction, puzzle.numbers)), Fraction(puzzle.target))
