"""Any data set of reasoning-gym (arXiv 2505.24760) as a task: over a hundred generators of puzzles,
from arithmetic to games, each with its own scorer.

The package comes with the extra `reasoning-gym`. The task keeps the questions alone; the answers
are made again by `ReasoningGymVerifier`, which asks the data set's scorer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .generator import at_least
from .replies import last_verdict
from .sampling import RoleSampling, merged
from .task import ParseFailure, Problem, State, Step

_SAMPLING: RoleSampling = {
    "io": {"max_tokens": 256, "temperature": 0.7, "stop": ("</answer>",)},
    "cot": {"max_tokens": 1024, "temperature": 0.7, "stop": ("</answer>",)},
    "value": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
}
_UNREAD = (ArithmeticError, LookupError, TypeError, ValueError)
"""What some scorers raise on an answer they cannot read, where others give 0."""

SOLVE = """\
Answer the question. Write the answer, and nothing else, between <answer> and </answer>, in the \
format that the question asks for.

"""

REASON = """\
Answer the question. Think step by step first. Then write the answer, and nothing else, between \
<answer> and </answer>, in the format that the question asks for.

"""

VALUE = """\
Is the answer to the question right? Say sure, likely or impossible.

"""


@dataclass(frozen=True, slots=True)
class Reply:
    question: str
    answer: str | None = None  # right or wrong


class ReasoningGym:
    """The task: questions of a data set, prompts and parsers.

    Args:
        dataset: its name in reasoning-gym, such as `countdown`.
        options: its own parameters, which set the difficulty, such as `{max_numbers: 4}`.
        limit: questions; the first of more are these.
        seed: of the questions.
        sampling: per role, fields that replace those of the defaults.

    Raises:
        ImportError: reasoning-gym is not installed.
        TypeError, ValueError: there is no such data set, or it refuses the options.
    """

    name = "reasoning_gym"
    values: Mapping[str, float] = {" sure": 1.0, " likely": 0.5, " impossible": 0.0}

    def __init__(
        self,
        dataset: str,
        *,
        options: Mapping[str, Any] | None = None,
        limit: int = 100,
        seed: int = 0,
        sampling: RoleSampling | None = None,
    ) -> None:
        self.sampling = merged(_SAMPLING, sampling)
        entries = _entries(dataset, options, limit, seed)
        self._problems = [
            Problem(_id(dataset, i), entries[i]["question"]) for i in range(len(entries))
        ]

    def problems(self) -> list[Problem]:
        """An id as `reasoning_gym/countdown/7` counts the questions from 0."""
        return self._problems

    def root(self, problem: Problem) -> Reply:
        return Reply(problem.data)

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Segments of the prompt for `role`, the constant one first.

        Raises:
            ValueError: there is no such role.
        """
        question = f"Question:\n{state.question.strip()}\n\n"
        match role:
            case "io":
                return SOLVE, question, "<answer>"
            case "cot":
                return REASON, question, "Reasoning:\n"
            case "value":
                return VALUE, question, f"<answer>{state.answer}</answer>\n", "Verdict:"
        raise ValueError(f"role={role!r} must be one of {', '.join(self.sampling)}")

    def parse(self, role: str, state: Reply, text: str) -> list[Step] | ParseFailure:
        """The answer in a reply, of one line or several: what follows the last `<answer>`; for
        `io` all of the reply if there is none.

        Raises:
            ValueError: the role has no such reply.
        """
        if role not in ("io", "cot"):
            raise ValueError(f"role={role!r} must be one of io, cot")
        if role == "cot" and "<answer>" not in text:
            return ParseFailure(role, text, "no <answer>")
        answer = text.rpartition("<answer>")[2].partition("</answer>")[0].strip()
        if not answer:
            return ParseFailure(role, text, "empty answer")
        return [Step(answer, replace(state, answer=answer))]

    def is_terminal(self, state: Reply) -> bool:
        return state.answer is not None

    def answer(self, state: Reply) -> str | None:
        return state.answer

    def parse_value(self, state: Reply, text: str) -> float | ParseFailure:
        """The value of the last verdict word in the reply."""
        return last_verdict(self.values, text)


class ReasoningGymVerifier:
    """Asks the data set's scorer, and is as strict as it is. The arguments must be the task's."""

    def __init__(
        self,
        dataset: str,
        *,
        options: Mapping[str, Any] | None = None,
        limit: int = 100,
        seed: int = 0,
    ) -> None:
        self._entries = _entries(dataset, options, limit, seed)
        self._index = {_id(dataset, i): i for i in range(len(self._entries))}

    def check(self, problem: Problem, answer: str) -> bool:
        """Whether the scorer gives `answer` its full mark, 1."""
        return self._score(problem, answer) >= 1.0

    def promise(self, problem: Problem, state: Reply) -> float:
        """1.0 if there is no answer yet, or it is right; else 0.0."""
        return 1.0 if state.answer is None else float(self.check(problem, state.answer))

    def grades(self, problem: Problem, state: Reply) -> dict[str, float]:
        """The scorer's mark, `score`."""
        return {"score": 0.0 if state.answer is None else self._score(problem, state.answer)}

    def _score(self, problem: Problem, answer: str) -> float:
        entry = self._entries[self._index[problem.id]]
        try:
            return float(self._entries.score_answer(answer, entry))
        except _UNREAD:
            return 0.0


def _entries(dataset: str, options: Mapping[str, Any] | None, limit: int, seed: int) -> Any:
    """The data set: a sequence of entries, with its scorer."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise ImportError(
            'task=reasoning_gym needs `pip install "treeshare[reasoning-gym]"`'
        ) from error
    at_least(1, limit=limit)
    try:
        return reasoning_gym.create_dataset(dataset, seed=seed, size=limit, **(options or {}))
    except AssertionError as error:  # how its data sets refuse a parameter
        raise ValueError(f"options={dict(options or {})}: {error}") from error


def _id(dataset: str, index: int) -> str:
    return f"{ReasoningGym.name}/{dataset}/{index}"
