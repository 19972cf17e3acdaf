"""The Game of 24: combine four numbers by + - * / into 24, using each exactly once.

The task of Tree of Thoughts (arXiv 2305.10601 section 4.1): its words and its lists of puzzles.
What it shares with Countdown is `ArithmeticTask`.
"""

from __future__ import annotations

from treeshare.tasks.sampling import RoleSampling
from treeshare.tasks.task import Problem

from . import game24_prompts as prompts
from .game24_puzzles import read_puzzles, select, solvable_puzzles
from .replies import is_equation
from .rules import GAME_OF_24, Position
from .task import ArithmeticTask, ArithmeticVerifier


class Game24(ArithmeticTask):
    """The task: problems, prompts and parsers.

    Args:
        path: ToT's 24.csv, or another such list, whose puzzles need not have a solution; None
            generates all that have one, easiest first by our own measure (`solvable_puzzles`).
        split: `test` (ToT's 100: indices 900 to 999 of the list) or `all`.
        start: first puzzle taken, counted from 0 within the split.
        limit: puzzles taken; None takes all that follow.
        sampling: per role, fields that replace those of the defaults.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is not such a list, or another argument is out of its bound.
    """

    name = "game24"
    words = prompts.WORDS

    def __init__(
        self,
        path: str | None = None,
        *,
        split: str = "test",
        start: int = 0,
        limit: int | None = None,
        sampling: RoleSampling | None = None,
    ) -> None:
        super().__init__(sampling)
        puzzles = solvable_puzzles() if path is None else read_puzzles(path)
        self._puzzles = select(puzzles, split, start, limit)

    def problems(self) -> list[Problem]:
        """In the list's order; the id names the numbers, so it does not depend on the list."""
        return [
            Problem(f"{self.name}/{'-'.join(map(str, puzzle))}", puzzle) for puzzle in self._puzzles
        ]

    def root(self, problem: Problem) -> Position:
        return Position.start(problem.data)


class Game24Verifier(ArithmeticVerifier):
    def check(self, problem: Problem, answer: str) -> bool:
        """Whether `answer`, with or without `= 24`, makes 24 of the puzzle's numbers, each used
        once. Anything malformed is wrong."""
        return is_equation(answer, problem.data, GAME_OF_24)
