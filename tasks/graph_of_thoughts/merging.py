"""Tasks that are solved in parts, as Graph of Thoughts does (arXiv 2308.09687 sections 5.1, 5.2).

A list of numbers is split, each part solved, the results merged and mended; or all at once by the
roles of the baselines. `MergingTask` is what sorting and set intersection have in common: it shows
lists, reads lists and counts errors. It does not know which lists are asked for.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from treeshare.tasks.generator import at_least, distinct
from treeshare.tasks.replies import tidy
from treeshare.tasks.sampling import RoleSampling, merged
from treeshare.tasks.task import ParseFailure, Problem, State, Step

Numbers = tuple[int, ...]

_NUMBER = "(?:0|[1-9][0-9]{0,3})"
_LIST = re.compile(  # possessive (`*+`), so that a long reply is not tried in every way
    rf"\[\s*+((?:{_NUMBER}(?:\s*+,\s*+{_NUMBER})*+)?+)\s*+\]"
)
_ANSWERED = ("solve", "step", "improve", "io", "cot")


@dataclass(frozen=True, slots=True)
class Thought:
    """A part of the problem, and what the model has made of it."""

    part: Numbers  # of the whole list, in its order
    size: int  # of the whole list
    other: Numbers = ()  # the set to intersect with; not used by sorting
    result: Numbers | None = None  # right or wrong
    is_claim: bool = False  # given as the answer, whatever is wrong with it

    def __str__(self) -> str:
        return show(self.part if self.result is None else self.result)

    @property
    def is_whole(self) -> bool:
        return len(self.part) == self.size


@dataclass(frozen=True, slots=True)
class MergingWords:
    """Instructions and worked examples, each ending with an empty line, and the labels of lists."""

    split: str
    solve: str  # for the roles `solve` and `io`, and for `step` where there is no result yet
    reason: str  # for the role `cot`
    merge: str
    improve: str  # also for `step` where there is one
    part: str  # label of the list; `Input`
    other: str | None  # label of the other set
    answer: str  # label of the result; `Sorted`


class MergingTask(ABC):
    """All but the problems, the words and what counts as an error.

    Args:
        size: numbers of a list.
        part_size: numbers of each part that `split` asks for.
        sampling: per role, fields that replace those of the defaults.

    Raises:
        ValueError: an argument is out of its bound.
    """

    name: str
    words: MergingWords
    _problems: list[Problem]

    def __init__(self, size: int, part_size: int, sampling: RoleSampling | None) -> None:
        at_least(2, size=size)
        if not 1 <= part_size <= size:
            raise ValueError(f"part_size={part_size} must be from 1 to size={size}")
        self._size, self._part_size = size, part_size
        room = 4 * size + 16  # tokens: a number, a comma, a space, and one to spare
        whole = {"max_tokens": room, "temperature": 1.0, "stop": ("\n",)}
        lines = {**whole, "max_tokens": 2 * room, "stop": ("\n\n",)}
        roles = dict.fromkeys(("solve", "merge", "improve", "step", "io"), whole)
        self.sampling = merged({**roles, "split": lines, "cot": lines}, sampling)

    def problems(self) -> list[Problem]:
        """In the order drawn; an id as `sorting/32-seed0/7` counts them from 0."""
        return list(self._problems)

    def _draw(self, draw: Callable[[random.Random], Hashable], limit: int, seed: int) -> None:
        """Make the problems; what is drawn is a problem's data."""
        drawn = enumerate(distinct(draw, limit, seed))
        prefix = f"{self.name}/{self._size}-seed{seed}"
        self._problems = [Problem(f"{prefix}/{i}", data) for i, data in drawn]

    @abstractmethod
    def errors(self, thought: Thought) -> int:
        """The paper's count of what is wrong with the result; each is one number or place."""

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Segments of the prompt for `role`, the constant one first. The state of `merge` is a
        sequence of thoughts. `step` solves, and from then on improves.

        Raises:
            ValueError: there is no such role.
        """
        words = self.words
        if role == "step":
            role = "solve" if state.result is None else "improve"
        match role:
            case "split":
                return (
                    words.split,
                    f"Parts of {self._part_size} of: {show(state.part)}\n",
                    "Part 1:",
                )
            case "solve" | "io":
                return words.solve, *self._given(state), f"{words.answer}:"
            case "cot":
                return words.reason, *self._given(state), "Reasoning:"
            case "merge":
                results = (f"List {i}: {thought}\n" for i, thought in enumerate(state, start=1))
                return words.merge, *results, "Merged:"
            case "improve":
                wrong = f"Wrong: {state}\n"
                return words.improve, *self._given(state), wrong, f"{words.answer}:"
        raise ValueError(f"role={role!r} must be one of {', '.join(self.sampling)}")

    def parse(self, role: str, state: Thought, text: str) -> list[Step] | ParseFailure:
        """Steps read from a reply: for `split` all the lists in it, which must hold the numbers
        of the whole; else its last list, right or wrong.

        Raises:
            ValueError: the role has no such reply.
        """
        if role != "split" and role not in _ANSWERED:
            raise ValueError(f"role={role!r} must be one of split, {', '.join(_ANSWERED)}")
        lists = read_lists(text)
        if not lists:
            return ParseFailure(role, text, "no list such as `[1, 2, 3]`")
        if role == "split":
            told = sorted(number for numbers in lists for number in numbers)
            if told != sorted(state.part) or not all(lists):
                return ParseFailure(role, text, "the parts do not hold the numbers given")
            return [Step(show(part), replace(state, part=part, result=None)) for part in lists]
        is_claim = role in ("io", "cot")
        return [Step(show(lists[-1]), replace(state, result=lists[-1], is_claim=is_claim))]

    def parse_merge(self, states: Sequence[Thought], text: str) -> Step | ParseFailure:
        """The last list in the reply, as the result of all the parts."""
        lists = read_lists(text)
        if not lists:
            return ParseFailure("merge", text, "no list such as `[1, 2, 3]`")
        part = tuple(number for state in states for number in state.part)
        return Step(show(lists[-1]), replace(states[0], part=part, result=lists[-1]))

    def is_terminal(self, state: Thought) -> bool:
        """Whether it is given as the answer, or is of the whole list and without an error; with
        one, it can still be improved."""
        is_done = state.is_whole and state.result is not None and self.errors(state) == 0
        return state.is_claim or is_done

    def answer(self, state: Thought) -> str | None:
        """A list such as `[1, 2, 3]`; None unless the state is terminal."""
        is_answer = state.result is not None and self.is_terminal(state)
        return str(state) if is_answer else None

    def heuristic(self, state: Thought) -> float:
        """The paper's score of a result, max(0, n - errors) / n for a part of n; 0.0 without."""
        if state.result is None:
            return 0.0
        return max(0.0, 1 - self.errors(state) / len(state.part))

    def _given(self, state: Thought) -> list[str]:
        other = [f"{self.words.other}: {show(state.other)}\n"] if self.words.other else []
        return [*other, f"{self.words.part}: {show(state.part)}\n"]


class MergingVerifier(ABC):
    """Right is a list without errors."""

    @abstractmethod
    def errors(self, problem: Problem, result: Numbers) -> int:
        """The paper's count, for a result of the whole; 0 only if it is right."""

    def check(self, problem: Problem, answer: str) -> bool:
        """Whether `answer` is the right list, written as `[0, 1, 1]`. Anything malformed is
        wrong."""
        result = read_answer(answer)
        return result is not None and self.errors(problem, result) == 0

    def promise(self, problem: Problem, state: Thought) -> float:
        """1.0 if nothing is claimed yet, or what is claimed is right; else 0.0."""
        return 1.0 if not state.is_claim else float(self.check(problem, str(state)))

    def grades(self, problem: Problem, state: Thought) -> dict[str, float]:
        """The paper's `score`, max(0, n - errors) / n for a list of n; 0.0 for a mere part."""
        if state.result is None or not state.is_whole:
            return {"score": 0.0}
        return {"score": max(0.0, 1 - self.errors(problem, state.result) / state.size)}


def show(numbers: Sequence[int]) -> str:
    return f"[{', '.join(map(str, numbers))}]"


def read_lists(text: str) -> list[Numbers]:
    """Every list of whole numbers of at most four digits in a text, such as `[3, 1, 2]`."""
    found = _LIST.findall(tidy(text))
    return [tuple(int(number) for number in re.findall("[0-9]+", inner)) for inner in found]


def read_answer(text: str) -> Numbers | None:
    """The list that the text is; None if it is anything else."""
    whole = _LIST.fullmatch(tidy(text).strip())
    return read_lists(text)[0] if whole else None
