"""How a task about combining numbers puts a position into words; the texts are the task's own.

`Words` holds, per role, the part of a prompt that is the same for all states (instructions and
worked examples) and appends the lines that show a position. Knows neither replies nor verifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .rules import Position

ROLES = (
    *("propose", "step", "io", "cot", "value", "vote", "reflect", "feedback", "refine"),
    *("choose", "judge"),
)


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of a task; each ends with an empty line."""

    propose: str
    steps: str  # for the roles `step`, `choose` and `cot`
    solve: str  # for the role `io`
    value: str
    judge: str
    vote: str
    reflect: str
    feedback: str
    refine: str
    is_target_shown: bool  # on a line of its own, because the texts name none

    def prompt(self, role: str, state: Any) -> tuple[str, ...]:
        """See `ArithmeticTask.prompt`."""
        match role:
            case "propose":
                left = self._numbers(state, state)
                return self.propose, left, *_lessons(state), "Next steps:\n"
            case "step" | "choose" | "cot":
                given = self._given(state)
                return self.steps, given, *_lessons(state), *_taken(state), "Step:"
            case "io":
                return self.solve, self._given(state), "Answer:"
            case "value":
                return self.value, *self._judged(state), "Verdict:"
            case "judge":
                return self.judge, *self._judged(state), f"Makes {state.target}:"
            case "vote":
                options = (f"Option {i}: {_shown(option)}\n" for i, option in enumerate(state, 1))
                return self.vote, *self._target(state[0]), *options, "Best option:"
            case "reflect":
                answer = [f"Answer: {_shown(state)}\n"] if state.is_final else []
                return self.reflect, self._given(state), *_taken(state), *answer, "Lesson:"
            case "feedback":
                return self.feedback, self._given(state), _claim(state), "Feedback:"
            case "refine":
                return self.refine, *self._criticised(state), "Answer:"
        raise ValueError(f"role={role!r} must be one of {', '.join(ROLES)}")

    def solution(self, state: Position) -> tuple[str, ...]:
        """The question and the steps taken, the answer last, as a reward model reads them."""
        question = " ".join([self.solve.splitlines()[0], *self._given(state).splitlines()])
        steps = (f"Step {i}: {step}" for i, step in enumerate(state.steps, start=1))
        return question, *steps, *([f"Answer: {_shown(state)}"] if state.is_final else [])

    def _target(self, state: Position) -> list[str]:
        return [f"Target: {state.target}\n"] if self.is_target_shown else []

    def _numbers(self, state: Position, numbers: object) -> str:
        return "".join([*self._target(state), f"Numbers: {numbers}\n"])

    def _given(self, state: Position) -> str:
        return self._numbers(state, " ".join(map(str, state.puzzle)))

    def _judged(self, state: Position) -> list[str]:
        """What is left, or the puzzle and the answer of a terminal position."""
        if state.is_final:
            return [self._given(state), f"Answer: {_shown(state)}\n"]
        return [self._numbers(state, state)]

    def _criticised(self, attempts: Sequence[tuple[Position, str]]) -> list[str]:
        """The puzzle, then each attempt at it with its feedback."""
        segments = [self._given(attempts[0][0])]
        for position, feedback in attempts:
            segments += [_claim(position), f"Feedback: {' '.join(feedback.split())}\n"]
        return segments


def _taken(state: Position) -> list[str]:
    return [f"Step: {step}\n" for step in state.steps]


def _lessons(state: Position) -> list[str]:
    return [f"Lesson: {reflection}\n" for reflection in state.reflections]


def _claim(state: Position) -> str:
    return f"Answer: {state.answer} = {state.target}\n"


def _shown(state: Position) -> str:
    """A position in one line: a claimed or composed equation, or what is left."""
    if state.answer is not None:
        return f"{state.answer} = {state.target}"
    if state.is_final:
        return f"{state.numbers[0].expression} = {state}"
    return str(state)
