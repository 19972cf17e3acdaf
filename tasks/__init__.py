"""Tasks: problems, prompts, parsers and verifiers.

`Game24(limit=20)` makes a task with the defaults of the option `task=game24`, and
`verifier_of(task)` makes the verifier of its answers. `Task` and the `Has...` protocols say what a
user's own task needs (docs/add_a_task.md). The import loads only the standard library and starts no
process.
"""

from __future__ import annotations

from .arithmetic.countdown import Countdown, CountdownVerifier
from .arithmetic.game24 import Game24, Game24Verifier
from .blocksworld.task import Blocksworld, BlocksworldVerifier
from .crosswords.task import Crosswords, CrosswordsVerifier
from .graph_of_thoughts.set_intersection import SetIntersection, SetIntersectionVerifier
from .graph_of_thoughts.sorting import Sorting, SortingVerifier
from .math.problems import MathProblems, MathVerifier
from .reasoning_gym.task import ReasoningGym, ReasoningGymVerifier
from .task import (
    Dialogue,
    HasEqualAnswers,
    HasGrades,
    HasHeuristic,
    HasJudgement,
    HasMaxSteps,
    HasMerge,
    HasMoves,
    HasRefinement,
    HasReflections,
    HasSolution,
    HasValues,
    HasVotes,
    ParseFailure,
    Problem,
    Step,
    Task,
    Verifier,
)
from .verifiers import verifier_of

__all__ = [
    "Blocksworld",
    "BlocksworldVerifier",
    "Countdown",
    "CountdownVerifier",
    "Crosswords",
    "CrosswordsVerifier",
    "Dialogue",
    "Game24",
    "Game24Verifier",
    "HasEqualAnswers",
    "HasGrades",
    "HasHeuristic",
    "HasJudgement",
    "HasMaxSteps",
    "HasMerge",
    "HasMoves",
    "HasRefinement",
    "HasReflections",
    "HasSolution",
    "HasValues",
    "HasVotes",
    "MathProblems",
    "MathVerifier",
    "ParseFailure",
    "Problem",
    "ReasoningGym",
    "ReasoningGymVerifier",
    "SetIntersection",
    "SetIntersectionVerifier",
    "Sorting",
    "SortingVerifier",
    "Step",
    "Task",
    "Verifier",
    "verifier_of",
]
