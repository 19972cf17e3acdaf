"""The Game of 24: combine four numbers by + - * / into 24, using each exactly once.

This is the task of Tree of Thoughts (arXiv 2305.10601 section 4.1). The prompts in
`prompts/game24/` follow that paper and, for `feedback` and `refine`, Self-Refine (arXiv
2303.17651), in our own words. Every example in them has a number above 13 or fewer than four
numbers, so none can be a puzzle.
"""

from __future__ import annotations

from treeshare.tasks.arguments import keeps_arguments
from treeshare.tasks.prompts import PromptTexts, Shots, read_prompts
from treeshare.tasks.task import Problem, RoleSampling
from treeshare.tasks.verifiers import verifier_of

from .game24_puzzles import read_puzzles, select, solvable_puzzles
from .replies import is_equation
from .rules import GAME_OF_24, Position
from .task import ArithmeticTask, ArithmeticVerifier
from .templates import ArithmeticTemplates


@keeps_arguments
class Game24(ArithmeticTask):
    """The task of the Game of 24.

    Args:
        path: ToT's 24.csv, or another such list, whose puzzles need not have a solution; None
            generates all that have one, easiest first by our own measure (`solvable_puzzles`).
        split: `test` (ToT's 100: indices 900 to 999 of the list) or `all`.
        start: index of the first puzzle taken, from 0 in the split.
        limit: number of puzzles taken; None takes all that follow.
        sampling: per role, fields that replace those of the defaults.
        prompts: by role, a file or a text that replaces the prompt.
        shots: the number of examples in each prompt, or by role; None takes all.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is not such a list, or another argument is out of its bound.
    """

    name = "game24"
    templates = ArithmeticTemplates(read_prompts(__package__, "game24"), is_target_shown=False)

    def __init__(
        self,
        path: str | None = None,
        *,
        split: str = "test",
        start: int = 0,
        limit: int | None = None,
        sampling: RoleSampling | None = None,
        prompts: PromptTexts | None = None,
        shots: Shots | None = None,
    ) -> None:
        super().__init__(sampling, prompts, shots)
        puzzles = solvable_puzzles() if path is None else read_puzzles(path)
        self._puzzles = select(puzzles, split, start, limit)

    def problems(self) -> list[Problem]:
        """Return the problems in the list's order.

        An id such as `game24/1-5-5-5` names the numbers, so it does not depend on the list.
        """
        return [
            Problem(f"{self.name}/{'-'.join(map(str, puzzle))}", puzzle) for puzzle in self._puzzles
        ]

    def root(self, problem: Problem) -> Position:
        """Return the position with all four numbers."""
        return Position.start(problem.data)

    def max_steps(self, problem: Problem) -> int:
        """Return 3: each step leaves one number fewer."""
        return len(problem.data) - 1


class Game24Verifier(ArithmeticVerifier):
    """Computes an answer's value in fractions and compares its numbers with the puzzle's."""

    def check(self, problem: Problem, answer: str) -> bool:
        """Return whether `answer`, with or without `= 24`, uses each number once and makes 24.

        A malformed answer is wrong.
        """
        return is_equation(answer, problem.data, GAME_OF_24)


@verifier_of.register
def _make_verifier(task: Game24) -> Game24Verifier:
    return Game24Verifier()
