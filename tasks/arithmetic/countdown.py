"""Countdown: combine three to six numbers by + - * / into a target, using each exactly once.

This is the puzzle of Stream of Search (arXiv 2404.03683 section 3); the Game of 24 is the case of
four numbers and the target 24. How many numbers there are is the difficulty: each number more
multiplies the positions by about a hundred. The prompts are those of the Game of 24 with a target
in every puzzle; their examples are `EXAMPLES`.
"""

from __future__ import annotations

import random
from fractions import Fraction
from typing import NamedTuple

from treeshare.tasks.arguments import keeps_arguments
from treeshare.tasks.generator import at_least, distinct, within
from treeshare.tasks.prompts import PromptTexts, Shots, read_prompts
from treeshare.tasks.task import Problem, RoleSampling, merge_sampling
from treeshare.tasks.verifiers import verifier_of

from .replies import is_equation
from .rules import Position, can_make
from .task import SAMPLING, ArithmeticTask, ArithmeticVerifier
from .templates import ArithmeticTemplates

EXAMPLES = frozenset(
    {
        ((2, 5, 14, 20), 52),
        ((3, 6, 15), 33),
        ((1, 5, 9, 14), 60),
        ((2, 3, 7, 15, 18), 31),
        ((3, 8, 14), 18),
        ((1, 2, 5, 20), 72),
        ((2, 5, 14), 38),
        ((5, 6, 8, 16), 50),
        ((15, 16, 17), 99),
        ((6, 7, 9), 40),
        ((3, 7, 18), 50),
        ((2, 4, 16), 32),
    }
)
"""The numbers, ascending, and the target of every example with three numbers or more.

The generator leaves them out.
"""


class Puzzle(NamedTuple):
    """A puzzle: the numbers, ascending, and the target."""

    numbers: tuple[int, ...]
    target: int


@keeps_arguments
class Countdown(ArithmeticTask):
    """The task of Countdown, with generated puzzles.

    Puzzles are drawn uniformly from those that have a solution and are no example of the prompts.

    Args:
        numbers: how many numbers a puzzle has, 3 to 6.
        largest: the largest of the numbers, which are drawn from 1 on.
        smallest_target: the smallest target, at least 1.
        largest_target: the largest target.
        limit: number of puzzles; a larger limit gives the same puzzles first.
        seed: seed of the puzzles.
        sampling: per role, fields that replace those of the defaults.
        prompts: by role, a file or a text that replaces the prompt.
        shots: the number of examples in each prompt, or by role; None takes all.

    Raises:
        OSError: a prompt's file cannot be read.
        ValueError: an argument is out of its bound, or there are fewer puzzles than `limit`.
    """

    name = "countdown"
    templates = ArithmeticTemplates(read_prompts(__package__, "countdown"), is_target_shown=True)
    default_sampling = merge_sampling(
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
        prompts: PromptTexts | None = None,
        shots: Shots | None = None,
    ) -> None:
        super().__init__(sampling, prompts, shots)
        within(3, 6, numbers=numbers)
        at_least(1, largest=largest, smallest_target=smallest_target)
        at_least(smallest_target, largest_target=largest_target)

        def draw(rng: random.Random) -> Puzzle | None:
            drawn = tuple(sorted(rng.randint(1, largest) for _ in range(numbers)))
            puzzle = Puzzle(drawn, rng.randint(smallest_target, largest_target))
            return puzzle if is_solvable(puzzle) and puzzle not in EXAMPLES else None

        self._puzzles = distinct(draw, limit, seed)

    def problems(self) -> list[Problem]:
        """Return the problems in the order drawn; an id is such as `countdown/2-5-9-14-20=61`."""
        return [
            Problem(f"{self.name}/{'-'.join(map(str, puzzle.numbers))}={puzzle.target}", puzzle)
            for puzzle in self._puzzles
        ]

    def root(self, problem: Problem) -> Position:
        """Return the position with all of the puzzle's numbers."""
        numbers, target = problem.data
        return Position.start(numbers, Fraction(target))

    def max_steps(self, problem: Problem) -> int:
        """Return one less than the numbers of the puzzle: each step leaves one number fewer."""
        return len(problem.data.numbers) - 1


class CountdownVerifier(ArithmeticVerifier):
    """Computes an answer's value in fractions and compares its numbers with the puzzle's."""

    def check(self, problem: Problem, answer: str) -> bool:
        """Return whether `answer`, with or without `= target`, uses each number once and makes it.

        A malformed answer is wrong.
        """
        numbers, target = problem.data
        return is_equation(answer, numbers, Fraction(target))


@verifier_of.register
def _make_verifier(task: Countdown) -> CountdownVerifier:
    return CountdownVerifier()


def is_solvable(puzzle: Puzzle) -> bool:
    """Return whether the puzzle has a solution."""
    return can_make(tuple(map(Fraction, puzzle.numbers)), Fraction(puzzle.target))
