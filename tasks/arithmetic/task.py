"""A task about combining numbers into a target: Countdown, and the Game of 24.

A step combines two of the numbers left; the code, not the model, keeps what is left and composes
the answer's expression. `ArithmeticTask` reads replies and never judges whether an answer is
right: that is `ArithmeticVerifier`, to which it holds no reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from treeshare.tasks.replies import is_approved, read_steps, read_verdict
from treeshare.tasks.sampling import RoleSampling, merged
from treeshare.tasks.task import ParseFailure, Problem, State, Step
from treeshare.tasks.votes import read_vote

from .prompts import Words
from .replies import final_expression, is_equation, plain, read_step
from .rules import Position, can_make, combine, evaluate, operations

SAMPLING: RoleSampling = {
    "propose": {"max_tokens": 120, "temperature": 0.7, "stop": ("\n\n",)},
    "step": {"max_tokens": 40, "temperature": 0.7, "stop": ("\n",)},
    "io": {"max_tokens": 48, "temperature": 0.7, "stop": ("\n",)},
    "cot": {"max_tokens": 128, "temperature": 0.7, "stop": ("\n\n",)},
    "value": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
    "vote": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
    "reflect": {"max_tokens": 48, "temperature": 0.7, "stop": ("\n",)},
    "feedback": {"max_tokens": 48, "temperature": 0.7, "stop": ("\n",)},
    "refine": {"max_tokens": 48, "temperature": 0.7, "stop": ("\n",)},
}
"""Enough for four numbers."""


class ArithmeticTask:
    """What such tasks have in common: all but the problems, their roots, the words and the name.

    Args:
        sampling: per role, fields that replace those of the defaults.
    """

    name: str
    words: Words
    default_sampling: RoleSampling = SAMPLING
    values: Mapping[str, float] = {" sure": 1.0, " likely": 0.05, " impossible": 0.00005}
    """ToT's 20, 1 and 0.001 over 20."""
    yes_no = (" yes", " no")

    def __init__(self, sampling: RoleSampling | None = None) -> None:
        self.sampling = merged(self.default_sampling, sampling)

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Segments of the prompt for `role`, the constant one first.

        `step`, `choose` and `cot` share one prompt, which holds the steps so far: a child's
        prompt continues its parent's. `propose`, `value`, `judge` and `vote` show only what is
        left, or the equation of a terminal state. Roles that ask for steps show the reflections.

        Raises:
            ValueError: there is no such role.
        """
        return self.words.prompt(role, state)

    def solution(self, state: Position) -> tuple[str, ...]:
        return self.words.solution(state)

    def is_satisfied(self, state: Position, feedback: str) -> bool:
        """Whether the feedback begins with `correct` and objects to nothing (`is_approved`)."""
        return is_approved(feedback)

    def parse(self, role: str, state: Position, text: str) -> list[Step] | ParseFailure:
        """Steps read from a reply.

        `propose` and `step`: lines such as `2 + 8 = 10 (left: 8 10 14)`, of which `step` takes
        the first. A line counts if its operands are left and its arithmetic is right; what it
        says is left is not read. `io`, `cot`, `refine`: the expression after the last `Answer:`, or
        else the last line that is one (`final_expression`), taken as it is, right or wrong.

        Raises:
            ValueError: the role has no such reply.
        """
        if role in ("propose", "step"):
            lines = map(str.strip, plain(text).splitlines())
            return read_steps(role, text, lines, lambda line: read_step(state, line))
        if role in ("io", "cot", "refine"):
            expression = final_expression(text, state.puzzle)
            if expression is None:
                return ParseFailure(role, text, "no arithmetic expression")
            return [Step(expression, replace(state, answer=expression))]
        raise ValueError(f"role={role!r} must be one of propose, step, io, cot, refine")

    def is_terminal(self, state: Position) -> bool:
        return state.is_final

    def answer(self, state: Position) -> str | None:
        """An expression such as `(10 - 4) * (13 - 9)`; None unless the state is terminal."""
        if state.answer is None and state.is_final:
            return state.numbers[0].expression
        return state.answer

    def moves(self, state: Position) -> list[Step]:
        """All legal steps, one for each distinct position they lead to; none from a terminal one.

        In the order of `operations`; of steps to one position the first is kept. The text ends
        with `=`, so that ` 13 - 1` is not the beginning of ` 13 - 10`.
        """
        if state.is_final:
            return []
        values = state.values
        texts: dict[Position, str] = {}
        for i, sign, j in operations(len(values)):
            position = state.step(i, sign, j)
            if position is not None:
                texts.setdefault(position, f" {values[i]} {sign} {values[j]} =")
        return [Step(text, position) for position, text in texts.items()]

    def heuristic(self, state: Position) -> float:
        """1 / (1 + |target - x|), where x is the nearest to the target that any one operation on
        two of the numbers left makes. A terminal state's x is its own value; 0.0 if it divides by
        zero."""
        values = state.values
        if state.answer is not None:
            made = [evaluate(state.answer)[0]]
        elif state.is_final:
            made = [values[0]]
        else:
            made = [combine(values[i], sign, values[j]) for i, sign, j in operations(len(values))]
        distances = [abs(state.target - value) for value in made if value is not None]
        return float(1 / (1 + min(distances))) if distances else 0.0

    def with_reflections(self, state: Position, reflections: Sequence[str]) -> Position:
        """The same position, which shows these reflections in place of those it has."""
        return replace(state, reflections=tuple(reflections))

    def parse_value(self, state: Position, text: str) -> float | ParseFailure:
        """The value of the one verdict in the reply (`read_verdict`)."""
        return read_verdict(self.values, text)

    def parse_vote(self, states: Sequence[Position], text: str) -> int | ParseFailure:
        """The place of the one option that the reply picks (`read_vote`)."""
        return read_vote(len(states), text)


class ArithmeticVerifier:
    """Knows which positions still lead to a right answer; a task's own verifier adds `check`."""

    def promise(self, problem: Problem, state: Position) -> float:
        """1.0 if what is left can still make the target, or the answer given is right; else 0.0."""
        if state.answer is not None:
            return float(is_equation(state.answer, state.puzzle, state.target))
        return float(can_make(state.values, state.target))
