"""The base of tasks that are solved in parts (Graph of Thoughts, arXiv 2308.09687, section 5).

A list of numbers is split, each part is solved, and the results are merged and improved. The roles
of the paper's baselines solve the whole list at once. `MergingTask` has what sorting and set
intersection share: it writes and reads lists and computes scores from errors.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from treeshare.tasks.generator import at_least, distinct
from treeshare.tasks.prompts import (
    REPLY,
    Preamble,
    PromptTemplates,
    PromptTexts,
    Shots,
    Values,
)
from treeshare.tasks.replies import normalize_characters
from treeshare.tasks.task import ParseFailure, Problem, RoleSampling, State, Step, merge_sampling

Numbers = tuple[int, ...]
"""A list of numbers."""

_NUMBER = "(?:0|[1-9][0-9]{0,3})"
_LIST = re.compile(  # possessive (`*+`), so that a long reply is read in linear time
    rf"\[\s*+((?:{_NUMBER}(?:\s*+,\s*+{_NUMBER})*+)?+)\s*+\]"
)
_ANSWERED = ("solve", "step", "improve", "io", "cot")


@dataclass(frozen=True, slots=True)
class Thought:
    """A state: a part of the problem, and the model's result for it.

    Attributes:
        part: the part of the list, in the list's order.
        size: the length of the whole list.
        other: the set to intersect with; empty for sorting.
        result: the result, right or wrong.
        is_claim: whether the result was given as the final answer, with any errors.
    """

    part: Numbers
    size: int
    other: Numbers = ()
    result: Numbers | None = None
    is_claim: bool = False

    def __str__(self) -> str:
        return list_to_text(self.part if self.result is None else self.result)

    @property
    def is_whole(self) -> bool:
        """Whether the part is the whole list."""
        return len(self.part) == self.size


def make_templates(
    preambles: Mapping[str, Preamble], part: str, other: str | None, answer: str
) -> PromptTemplates:
    """Make the prompts of a task.

    Args:
        preambles: the instructions and examples: `solve` for the roles `solve` and `io`, `reason`
            for the role `cot`, and one of the role's name for each other role.
        part: the label of the list, such as `Input`.
        other: the label of the other set, if there is one.
        answer: the label of the result, such as `Sorted`.
    """
    lists = [f"{other}: {{other}}\n"] if other else []
    lists.append(f"{part}: {{list}}\n")
    return PromptTemplates(
        preambles,
        {
            "solve": ("solve", *lists, REPLY, f"{answer}:"),
            "merge": ("merge", "{results}", REPLY, "Merged:"),
            "improve": ("improve", *lists, "Wrong: {wrong}\n", REPLY, f"{answer}:"),
            "io": ("solve", *lists, REPLY, f"{answer}:"),
            "split": ("split", "Parts of {part_size} of: {list}\n", REPLY, "Part 1:"),
            "cot": ("reason", *lists, REPLY, "Reasoning:"),
        },
    )


class MergingTask(ABC):
    """The base class: prompts and parsers. A subclass adds problems, texts and the error count.

    Args:
        size: length of a list, at least 2.
        part_size: length of each part that `split` asks for, 1 to `size`.
        sampling: per role, fields that replace those of the defaults.
        prompts: by role, a file or a text that replaces the prompt.
        shots: the number of examples in each prompt, or by role; None takes all.

    Raises:
        OSError: a prompt's file cannot be read.
        ValueError: an argument is out of its bound.
    """

    name: str
    """The task's name."""
    templates: PromptTemplates
    """The prompts (`make_templates`)."""
    _problems: list[Problem]

    def __init__(
        self,
        size: int,
        part_size: int,
        sampling: RoleSampling | None = None,
        prompts: PromptTexts | None = None,
        shots: Shots | None = None,
    ) -> None:
        at_least(2, size=size)
        at_least(1, part_size=part_size)
        if part_size > size:
            raise ValueError(f"part_size={part_size} must be from 1 to size={size}")
        self._size, self._part_size = size, part_size
        self.templates = self.templates.customized(prompts, shots)
        room = 4 * size + 16  # tokens: a number, a comma, a space, and one more for each number
        whole = {"max_tokens": room, "temperature": 1.0, "stop": ("\n",)}
        lines = {**whole, "max_tokens": 2 * room, "stop": ("\n\n",)}
        roles = dict.fromkeys(("solve", "merge", "improve", "step", "io"), whole)
        self.sampling = merge_sampling({**roles, "split": lines, "cot": lines}, sampling)

    def problems(self) -> list[Problem]:
        """Return the problems in the order drawn; an id is such as `sorting/32-seed0/7`, from 0."""
        return list(self._problems)

    def _draw(self, draw: Callable[[random.Random], Hashable], limit: int, seed: int) -> None:
        """Draw the problems' data and make the problems."""
        drawn = enumerate(distinct(draw, limit, seed))
        prefix = f"{self.name}/{self._size}-seed{seed}"
        self._problems = [Problem(f"{prefix}/{i}", data) for i, data in drawn]

    def max_steps(self, problem: Problem) -> int:
        """Return 4: a first result, and three corrections."""
        return 4

    @abstractmethod
    def errors(self, thought: Thought) -> int:
        """Count the errors of a thought's result as the paper does."""

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Return the segments of the prompt for `role`, the constant one first.

        The state of `merge` is a sequence of thoughts. `step` has the prompt of `solve`, and that
        of `improve` once there is a result.

        Raises:
            ValueError: there is no such role.
        """
        if role not in self.sampling:
            raise ValueError(f"role={role!r} must be one of {', '.join(self.sampling)}")
        if role == "step":
            role = "solve" if state.result is None else "improve"
        if role == "merge":
            results = [f"List {i}: {thought}\n" for i, thought in enumerate(state, start=1)]
            return self.templates.render(role, {"results": results})
        values: Values = {
            "list": list_to_text(state.part),
            "other": list_to_text(state.other),
            "wrong": str(state),
            "part_size": str(self._part_size),
        }
        return self.templates.render(role, values)

    def parse(self, role: str, state: Thought, text: str) -> list[Step] | ParseFailure:
        """Read the steps of a reply.

        The steps of `split` are all lists in the reply, which must hold the numbers of the whole.
        The step of any other role is the last list, right or wrong.

        Raises:
            ValueError: the role has no such reply.
        """
        if role != "split" and role not in _ANSWERED:
            raise ValueError(f"role={role!r} must be one of split, {', '.join(_ANSWERED)}")
        lists = read_lists(text)
        if not lists:
            return ParseFailure(role, text, "no list such as `[1, 2, 3]`")
        if role == "split":
            numbers = sorted(number for part in lists for number in part)
            if numbers != sorted(state.part) or not all(lists):
                return ParseFailure(role, text, "the parts do not hold the numbers given")
            return [
                Step(list_to_text(part), replace(state, part=part, result=None)) for part in lists
            ]
        is_claim = role in ("io", "cot")
        return [Step(list_to_text(lists[-1]), replace(state, result=lists[-1], is_claim=is_claim))]

    def parse_merge(self, states: Sequence[Thought], text: str) -> Step | ParseFailure:
        """Read the last list in the reply as the result of all the parts."""
        lists = read_lists(text)
        if not lists:
            return ParseFailure("merge", text, "no list such as `[1, 2, 3]`")
        part = tuple(number for state in states for number in state.part)
        return Step(list_to_text(lists[-1]), replace(states[0], part=part, result=lists[-1]))

    def is_terminal(self, state: Thought) -> bool:
        """Return whether the result was given as the answer, or is whole and without an error.

        A result with an error can still be improved.
        """
        is_done = state.is_whole and state.result is not None and self.errors(state) == 0
        return state.is_claim or is_done

    def answer(self, state: Thought) -> str | None:
        """Return a list such as `[1, 2, 3]`; None for a state that is not terminal."""
        is_answer = state.result is not None and self.is_terminal(state)
        return str(state) if is_answer else None

    def heuristic(self, state: Thought) -> float:
        """Return the paper's score, max(0, n - errors) / n for a part of n, or 0.0 if no result."""
        if state.result is None:
            return 0.0
        return max(0.0, 1 - self.errors(state) / len(state.part))


class MergingVerifier(ABC):
    """The base class of the verifiers: a list is right if it has no errors."""

    @abstractmethod
    def errors(self, problem: Problem, result: Numbers) -> int:
        """Count the errors of a result for the whole list; 0 means that it is right."""

    def check(self, problem: Problem, answer: str) -> bool:
        """Return whether `answer` is the right list, written as `[0, 1, 1]`.

        A malformed answer is wrong.
        """
        result = read_answer(answer)
        return result is not None and self.errors(problem, result) == 0

    def promise(self, problem: Problem, state: Thought) -> float:
        """Return 1.0 if no answer was given yet or it is right, else 0.0."""
        return 1.0 if not state.is_claim else float(self.check(problem, str(state)))

    def grades(self, problem: Problem, state: Thought) -> dict[str, float]:
        """Return the paper's `score`, max(0, n - errors) / n for a list of n; 0.0 for a part."""
        if state.result is None or not state.is_whole:
            return {"score": 0.0}
        return {"score": max(0.0, 1 - self.errors(problem, state.result) / state.size)}


def list_to_text(numbers: Sequence[int]) -> str:
    """Return a list as `[1, 2, 3]`."""
    return f"[{', '.join(map(str, numbers))}]"


def read_lists(text: str) -> list[Numbers]:
    """Read every list such as `[3, 1, 2]` in a text; numbers have at most four digits."""
    found = _LIST.findall(normalize_characters(text))
    return [tuple(int(number) for number in re.findall("[0-9]+", inner)) for inner in found]


def read_answer(text: str) -> Numbers | None:
    """Read a text that is one list; None for any other text."""
    whole = _LIST.fullmatch(normalize_characters(text).strip())
    return read_lists(text)[0] if whole else None
