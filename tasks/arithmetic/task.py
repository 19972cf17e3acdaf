"""The base of tasks that combine numbers into a target: Countdown and the Game of 24.

A step combines two of the numbers left. The code, not the model, computes what is left and composes
the answer's expression. `ArithmeticTask` reads replies and does not check answers;
`ArithmeticVerifier` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from treeshare.tasks.prompts import PromptTexts, Shots
from treeshare.tasks.replies import is_approved, read_steps, read_verdict
from treeshare.tasks.task import ParseFailure, Problem, RoleSampling, State, Step, merge_sampling
from treeshare.tasks.votes import read_vote

from .replies import final_expression, is_equation, normalize_signs, read_step
from .rules import Position, can_make, combine, evaluate, operations
from .templates import ArithmeticTemplates

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
"""The sampling by role; its `max_tokens` are enough for four numbers."""


class ArithmeticTask:
    """The base class: prompts, parsers and moves. A subclass adds problems, roots and texts.

    Args:
        sampling: per role, fields that replace those of the defaults.
        prompts: by role, a file or a text that replaces the prompt.
        shots: the number of examples in each prompt, or by role; None takes all.

    Raises:
        OSError: a prompt's file cannot be read.
        ValueError: a value is out of its bound.
    """

    name: str
    templates: ArithmeticTemplates
    """The prompts."""
    default_sampling: RoleSampling = SAMPLING
    """The sampling by role that `sampling` overrides."""
    values: Mapping[str, float] = {" sure": 1.0, " likely": 0.05, " impossible": 0.00005}
    """ToT's values 20, 1 and 0.001, divided by 20."""
    yes_no = (" yes", " no")
    """The judgements."""

    def __init__(
        self,
        sampling: RoleSampling | None = None,
        prompts: PromptTexts | None = None,
        shots: Shots | None = None,
    ) -> None:
        self.sampling = merge_sampling(self.default_sampling, sampling)
        self.templates = self.templates.customized(prompts, shots)

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Return the segments of the prompt for `role`, the constant one first.

        `step`, `choose` and `cot` share one prompt, which holds the steps so far, so a child's
        prompt begins with its parent's. `propose`, `value`, `judge` and `vote` show only what is
        left, or the equation of a terminal state. Roles that ask for steps show the reflections.

        Raises:
            ValueError: there is no such role.
        """
        return self.templates.prompt(role, state)

    def solution(self, state: Position) -> tuple[str, ...]:
        """Return the question and the steps for a reward model, a terminal state's answer last."""
        return self.templates.solution(state)

    def is_satisfied(self, state: Position, feedback: str) -> bool:
        """Return whether the feedback approves the solution (`is_approved`)."""
        return is_approved(feedback)

    def parse(self, role: str, state: Position, text: str) -> list[Step] | ParseFailure:
        """Read the steps of a reply.

        A reply to `propose` or `step` has lines such as `2 + 8 = 10 (left: 8 10 14)`; `step` takes
        the first. A line counts if its operands are left and its arithmetic is right; its brackets
        are not read. Of a reply to `io`, `cot` or `refine` the step is the expression after the
        last `Answer:`, or else the last line that is an expression (`final_expression`), right or
        wrong.

        Raises:
            ValueError: the role has no such reply.
        """
        if role in ("propose", "step"):
            lines = map(str.strip, normalize_signs(text).splitlines())
            return read_steps(role, text, lines, lambda line: read_step(state, line))
        if role in ("io", "cot", "refine"):
            expression = final_expression(text, state.puzzle)
            if expression is None:
                return ParseFailure(role, text, "no arithmetic expression")
            return [Step(expression, replace(state, answer=expression))]
        raise ValueError(f"role={role!r} must be one of propose, step, io, cot, refine")

    def is_terminal(self, state: Position) -> bool:
        """Return whether one number is left or a whole solution was given."""
        return state.is_final

    def answer(self, state: Position) -> str | None:
        """Return an expression such as `(10 - 4) * (13 - 9)`; None before the terminal state."""
        if state.answer is None and state.is_final:
            return state.numbers[0].expression
        return state.answer

    def moves(self, state: Position) -> list[Step]:
        """Return the legal steps, one for each distinct position that follows.

        They are in the order of `operations`, and the first step to a position is kept. A text ends
        with `=`, so that ` 13 - 1` is not a prefix of ` 13 - 10`.
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
        """Return 1 / (1 + |target - x|), where x is the closest value that one operation makes.

        The operation is on two of the numbers left. For a terminal state x is its own value; the
        result is 0.0 if that divides by zero.
        """
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
        """Return the position with these reflections in place of its own."""
        return replace(state, reflections=tuple(reflections))

    def parse_value(self, state: Position, text: str) -> float | ParseFailure:
        """Read the value of the one verdict in the reply (`read_verdict`)."""
        return read_verdict(self.values, text)

    def parse_vote(self, states: Sequence[Position], text: str) -> int | ParseFailure:
        """Read the index of the one option that the reply picks (`read_vote`)."""
        return read_vote(len(states), text)


class ArithmeticVerifier:
    """The base of the verifiers; a subclass adds `check`."""

    def promise(self, problem: Problem, state: Position) -> float:
        """Return 1.0 if the target can still be made, or the given answer is right, else 0.0."""
        if state.answer is not None:
            return float(is_equation(state.answer, state.puzzle, state.target))
        return float(can_make(state.values, state.target))
