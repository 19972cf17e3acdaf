"""Find the step that led to a node of a saved tree, by its text and the text of its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from treeshare.tasks import HasMoves, ParseFailure, Step, Task
from treeshare.tasks.task import State

from .recorded import RecordedReplies


class FoundStep(NamedTuple):
    """A step, and the prompt that asked for it.

    Attributes:
        role: the role of the prompt, shown at the state before the step.
        step: the step with the state after it.
        reply: the reply, if it is a whole solution that the run has recorded.
    """

    role: str
    step: Step
    reply: str | None = None


class StepFinder:
    """Finds the steps of one tree.

    Args:
        task: lists legal steps, and reads texts.
        root: the state of the tree's root.
        replies: what the run has recorded.
    """

    def __init__(self, task: Task, root: State, replies: RecordedReplies) -> None:
        self._task = task
        self._root = root
        self._replies = replies
        self._moves: dict[int, list[Step]] = {}  # by the id of the node
        self._drawn: list[FoundStep] | None = None  # whole solutions that no node has yet

    def find(self, parent: int, state: State, saved: Mapping[str, Any]) -> FoundStep | None:
        """Find the step that led to a node.

        Args:
            parent: the id of the node before the step; the root's is 0.
            state: its state.
            saved: the node, as the tree's file holds it.

        Returns:
            The step; None if the task gives no such step for the node's text.
        """
        # What an expander adds has a prior, and a whole solution that was drawn has none.
        is_drawn = saved.get("prior") is None and parent == 0
        found = self._whole_solution(saved) if is_drawn else None
        if found is None and isinstance(self._task, HasMoves):
            if parent not in self._moves:
                self._moves[parent] = self._task.moves(state)
            moves = (step for step in self._moves[parent] if step.text == saved.get("text"))
            found = next((FoundStep("choose", s) for s in moves if self._is_of(s, saved)), None)
        if found is None and "step" in self._task.sampling:
            for role in ("step",) if is_drawn else ("step", "io"):  # `io` reads an answer alone
                steps = self._task.parse(role, state, str(saved.get("text")))
                if not isinstance(steps, ParseFailure) and self._is_of(steps[0], saved):
                    return FoundStep("step", steps[0])
        return found

    def _whole_solution(self, saved: Mapping[str, Any]) -> FoundStep | None:
        """The first reply to `cot` or `io` that gave a node. Each reply is taken once."""
        if self._drawn is None:
            self._drawn = list(self._read_replies())
        for place, (_, step, _) in enumerate(self._drawn):
            if step.text == saved.get("text") and self._is_of(step, saved):
                return self._drawn.pop(place)
        return None

    def _read_replies(self) -> Iterator[FoundStep]:
        for role in ("cot", "io"):
            if role in self._task.sampling:
                prompt = "".join(self._task.prompt(role, self._root))
                for text in self._replies.texts(prompt):
                    steps = self._task.parse(role, self._root, text)
                    if not isinstance(steps, ParseFailure):
                        yield FoundStep(role, steps[-1], text)

    def _is_of(self, step: Step, saved: Mapping[str, Any]) -> bool:
        is_terminal = bool(self._task.is_terminal(step.state))
        return str(step.state) == saved.get("state") and is_terminal == saved.get("is_terminal")
