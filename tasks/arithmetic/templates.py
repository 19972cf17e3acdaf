"""The prompts of arithmetic tasks: constant texts, then lines that show a position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .rules import Position

ROLES = (
    *("propose", "step", "io", "cot", "value", "vote", "reflect", "feedback", "refine"),
    *("choose", "judge"),
)
"""The roles of the task."""


@dataclass(frozen=True, slots=True)
class PromptTemplates:
    """Makes prompts of a task's texts, which hold the instructions and worked examples.

    Attributes:
        propose, value, judge, vote, reflect, feedback, refine: the text of the role of that name.
        steps: the text of the roles `step`, `choose` and `cot`.
        solve: the text of the role `io`.
        is_target_shown: whether the prompts show the target on a line of its own, because the
            texts do not name it.
    """

    propose: str
    steps: str
    solve: str
    value: str
    judge: str
    vote: str
    reflect: str
    feedback: str
    refine: str
    is_target_shown: bool

    def prompt(self, role: str, state: Any) -> tuple[str, ...]:
        """Return the segments of a prompt (see `ArithmeticTask.prompt`).

        Raises:
            ValueError: there is no such role.
        """
        match role:
            case "propose":
                left = self._numbers(state, state)
                return self.propose, left, *_lesson_lines(state), "Next steps:\n"
            case "step" | "choose" | "cot":
                puzzle = self._puzzle(state)
                return self.steps, puzzle, *_lesson_lines(state), *_step_lines(state), "Step:"
            case "io":
                return self.solve, self._puzzle(state), "Answer:"
            case "value":
                return self.value, *self._judged(state), "Verdict:"
            case "judge":
                return self.judge, *self._judged(state), f"Makes {state.target}:"
            case "vote":
                options = (f"Option {i}: {_one_line(each)}\n" for i, each in enumerate(state, 1))
                return self.vote, *self._target(state[0]), *options, "Best option:"
            case "reflect":
                answer = [f"Answer: {_one_line(state)}\n"] if state.is_final else []
                return self.reflect, self._puzzle(state), *_step_lines(state), *answer, "Lesson:"
            case "feedback":
                return self.feedback, self._puzzle(state), _claim(state), "Feedback:"
            case "refine":
                return self.refine, *self._criticised(state), "Answer:"
        raise ValueError(f"role={role!r} must be one of {', '.join(ROLES)}")

    def solution(self, state: Position) -> tuple[str, ...]:
        """Return the question, the steps and, of a final position, the answer (`HasSolution`)."""
        question = " ".join([self.solve.splitlines()[0], *self._puzzle(state).splitlines()])
        steps = (f"Step {i}: {step}" for i, step in enumerate(state.steps, start=1))
        return question, *steps, *([f"Answer: {_one_line(state)}"] if state.is_final else [])

    def _target(self, state: Position) -> list[str]:
        return [f"Target: {state.target}\n"] if self.is_target_shown else []

    def _numbers(self, state: Position, numbers: object) -> str:
        return "".join([*self._target(state), f"Numbers: {numbers}\n"])

    def _puzzle(self, state: Position) -> str:
        return self._numbers(state, " ".join(map(str, state.puzzle)))

    def _judged(self, state: Position) -> list[str]:
        """Show what is left, or the puzzle and the answer of a final position."""
        if state.is_final:
            return [self._puzzle(state), f"Answer: {_one_line(state)}\n"]
        return [self._numbers(state, state)]

    def _criticised(self, attempts: Sequence[tuple[Position, str]]) -> list[str]:
        """Show the puzzle, then each attempt at it with its feedback."""
        segments = [self._puzzle(attempts[0][0])]
        for position, feedback in attempts:
            segments += [_claim(position), f"Feedback: {' '.join(feedback.split())}\n"]
        return segments


def _step_lines(state: Position) -> list[str]:
    return [f"Step: {step}\n" for step in state.steps]


def _lesson_lines(state: Position) -> list[str]:
    return [f"Lesson: {reflection}\n" for reflection in state.reflections]


def _claim(state: Position) -> str:
    return f"Answer: {state.answer} = {state.target}\n"


def _one_line(state: Position) -> str:
    """Show a position in one line: the equation of a final one, or what is left."""
    if state.answer is not None:
        return f"{state.answer} = {state.target}"
    if state.is_final:
        return f"{state.numbers[0].expression} = {state}"
    return str(state)
