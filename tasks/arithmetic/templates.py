"""The prompts of arithmetic tasks: which lines show a position, by role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treeshare.tasks.prompts import REPLY, Preamble, PromptTemplates, Values

from .rules import GAME_OF_24, Position


class ArithmeticTemplates(PromptTemplates):
    """The prompts of a task that combines numbers into a target.

    Args:
        preambles: the instructions and examples: `solve` for the role `io`, `steps` for the roles
            `step`, `choose` and `cot`, and one of the role's name for each other role.
        is_target_shown: whether the prompts show the target on a line of its own, because the
            instructions do not name it.
    """

    def __init__(self, preambles: Mapping[str, Preamble], *, is_target_shown: bool) -> None:
        target = ["Target: {target}\n"] if is_target_shown else []
        puzzle = "".join([*target, "Numbers: {numbers}\n"])
        steps = ("steps", puzzle, "{lessons}", REPLY, "{steps}", "Step:")
        makes = "Makes {target}:" if is_target_shown else f"Makes {GAME_OF_24}:"
        super().__init__(
            preambles,
            {
                "propose": ("propose", puzzle, "{lessons}", REPLY, "Next steps:\n"),
                "step": steps,
                "io": ("solve", puzzle, REPLY, "Answer:"),
                "cot": steps,
                "value": ("value", puzzle, "{answer}", REPLY, "Verdict:"),
                "vote": ("vote", *target, "{options}", REPLY, "Best option:"),
                "reflect": ("reflect", puzzle, "{steps}", "{answer}", REPLY, "Lesson:"),
                "feedback": ("feedback", puzzle, "{answer}", REPLY, "Feedback:"),
                "refine": ("refine", puzzle, "{attempts}", REPLY, "Answer:"),
                "choose": steps,
                "judge": ("judge", puzzle, "{answer}", REPLY, makes),
            },
        )
        self.is_target_shown = is_target_shown

    def prompt(self, role: str, state: Any) -> tuple[str, ...]:
        """Return the segments of a prompt (see `ArithmeticTask.prompt`).

        Raises:
            ValueError: there is no such role.
        """
        if role == "vote":
            options = [f"Option {i}: {_one_line(each)}\n" for i, each in enumerate(state, 1)]
            return self.render(role, {"target": str(state[0].target), "options": options})
        if role == "refine":
            attempts = [line for attempt in state for line in _attempt_lines(*attempt)]
            return self.render(role, {**_values(state[0][0]), "attempts": attempts})
        if role == "propose" or (role in ("value", "judge") and not state.is_final):
            return self.render(role, {**_values(state), "numbers": str(state)})  # what is left
        return self.render(role, _values(state))

    def solution(self, state: Position) -> tuple[str, ...]:
        """Return the question, the steps and, of a final position, the answer (`HasSolution`)."""
        target = [f"Target: {state.target}"] if self.is_target_shown else []
        numbers = f"Numbers: {' '.join(map(str, state.puzzle))}"
        question = " ".join([self.instruction("io"), *target, numbers])
        steps = (f"Step {i}: {step}" for i, step in enumerate(state.steps, start=1))
        return question, *steps, *([f"Answer: {_one_line(state)}"] if state.is_final else [])


def _values(state: Position) -> Values:
    """Return what a position puts in place of the placeholders of most roles."""
    return {
        "target": str(state.target),
        "numbers": " ".join(map(str, state.puzzle)),
        "lessons": [f"Lesson: {reflection}\n" for reflection in state.reflections],
        "steps": [f"Step: {step}\n" for step in state.steps],
        "answer": [f"Answer: {_one_line(state)}\n"] if state.is_final else [],
    }


def _attempt_lines(position: Position, feedback: str) -> list[str]:
    return [f"Answer: {_one_line(position)}\n", f"Feedback: {' '.join(feedback.split())}\n"]


def _one_line(state: Position) -> str:
    """Show a position in one line: the equation of a final one, or what is left."""
    if state.answer is not None:
        return f"{state.answer} = {state.target}"
    if state.is_final:
        return f"{state.numbers[0].expression} = {state}"
    return str(state)
