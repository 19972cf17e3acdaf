"""Any data set of reasoning-gym (arXiv 2505.24760) as a task.

The package has over a hundred generators of puzzles, from arithmetic to games, each with its own
scorer; the extra `reasoning-gym` installs it. It runs in separate processes, because some scorers
evaluate answers as Python, and one data set runs programs that come with it. One process makes the
questions and ends; another holds the scorer for `ReasoningGymVerifier`. The task keeps only the
questions. A step is a paragraph of reasoning, or the answer.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from treeshare.tasks.arguments import keeps_arguments
from treeshare.tasks.generator import at_least, whole
from treeshare.tasks.prompts import (
    REPLY,
    PromptTemplates,
    PromptTexts,
    Shots,
    Values,
    read_prompts,
)
from treeshare.tasks.replies import read_verdict
from treeshare.tasks.sandbox.parent import Sandbox, SandboxFailure
from treeshare.tasks.task import ParseFailure, Problem, RoleSampling, State, Step, merge_sampling
from treeshare.tasks.verifiers import verifier_of

_SAMPLING: RoleSampling = {
    "io": {"max_tokens": 256, "temperature": 0.7, "stop": ("</answer>",)},
    "cot": {"max_tokens": 1024, "temperature": 0.7, "stop": ("</answer>",)},
    "step": {"max_tokens": 256, "temperature": 0.7, "stop": ("\n\n", "</answer>")},
    "value": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
}
_MARKER = "treeshare.tasks.reasoning_gym.marker"
_SIZE = 5_000
"""The number of questions for which every data set is made, whatever the limit.

`acre` draws its kinds of questions by shares of that number.
"""
_MOST_MARKS = 1_000  # marks that are kept, so that `check` and `grades` mark an answer once
_LONGEST = 100_000
"""Characters of an answer; the longest right answers have some 4,000."""

_QUESTION = "Question:\n{question}\n\n"
_TEMPLATES = PromptTemplates(
    read_prompts(__package__),
    {
        "io": ("solve", _QUESTION, REPLY, "<answer>"),
        "cot": ("reason", _QUESTION, REPLY, "Reasoning:\n", "{reasoning}"),
        "step": ("reason", _QUESTION, REPLY, "Reasoning:\n", "{reasoning}"),
        "value": ("value", _QUESTION, "<answer>{answer}</answer>\n", REPLY, "Verdict:"),
        "value_reasoning": (
            *("value_reasoning", _QUESTION, "Reasoning:\n", "{reasoning}", REPLY, "Verdict:"),
        ),
    },
)


@dataclass(frozen=True, slots=True)
class Reply:
    """A state of a question.

    Attributes:
        question: the question.
        reasoning: the paragraphs of reasoning so far.
        answer: the answer, right or wrong.
    """

    question: str
    reasoning: tuple[str, ...] = ()
    answer: str | None = None


@keeps_arguments
class ReasoningGym:
    """The task of a data set.

    Args:
        dataset: the data set's name in reasoning-gym, such as `countdown`.
        options: the data set's own parameters, such as `{max_numbers: 4}`; they set the difficulty.
        limit: number of questions, 1 to 5,000; a larger limit gives the same questions first.
        seed: seed of the questions.
        sampling: per role, fields that replace those of the defaults.
        prompts: by role, a file or a text that replaces the prompt.
        shots: None or 0, because the prompts have no examples.

    Raises:
        ImportError: reasoning-gym is not installed.
        OSError: the system is not POSIX.
        TypeError: the data set refuses the options.
        ValueError: there is no such data set, it refuses the options, or the limit is out of its
            bound.
    """

    name = "reasoning_gym"
    templates = _TEMPLATES
    """The prompts."""
    values: Mapping[str, float] = {" sure": 1.0, " likely": 0.5, " impossible": 0.0}
    """The value of each verdict."""

    def __init__(
        self,
        dataset: str,
        *,
        options: Mapping[str, Any] | None = None,
        limit: int = 100,
        seed: int = 0,
        sampling: RoleSampling | None = None,
        prompts: PromptTexts | None = None,
        shots: Shots | None = None,
    ) -> None:
        self.dataset = dataset
        self.options = dict(options or {})
        self.limit = limit
        self.seed = seed
        self.sampling = merge_sampling(_SAMPLING, sampling)
        self.templates = self.templates.customized(prompts, shots)
        with (
            closing(_sandbox(dataset, options, limit, seed)) as sandbox,
            _explained(dataset, options),
        ):
            questions = sandbox.call("questions", limit, is_limited=False)
        self._problems = [Problem(_id(dataset, i), text) for i, text in enumerate(questions)]

    def problems(self) -> list[Problem]:
        """Return the problems; an id is such as `reasoning_gym/countdown/7`, from 0."""
        return self._problems

    def root(self, problem: Problem) -> Reply:
        """Return the question without an answer."""
        return Reply(problem.data)

    def max_steps(self, problem: Problem) -> int:
        """Return 8: seven paragraphs of reasoning, and the answer."""
        return 8

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Return the segments of the prompt for `role`, the constant one first.

        `step` and `cot` share one prompt, which holds the reasoning so far, so a child's prompt
        begins with its parent's.

        Raises:
            ValueError: there is no such role.
        """
        if role == "value" and state.answer is None:
            role = "value_reasoning"
        values: Values = {
            "question": state.question.strip(),
            "reasoning": [f"{paragraph}\n\n" for paragraph in state.reasoning],
            "answer": str(state.answer),
        }
        return self.templates.render(role, values)

    def parse(self, role: str, state: Reply, text: str) -> list[Step] | ParseFailure:
        """Read the answer in a reply, which may have several lines.

        It follows the last `<answer>`. Without one, a reply to `io` is an answer as a whole, and a
        reply to `step` a paragraph of reasoning.

        Raises:
            ValueError: the role has no such reply.
        """
        if role not in ("io", "cot", "step"):
            raise ValueError(f"role={role!r} must be one of io, cot, step")
        if role == "cot" and "<answer>" not in text:
            return ParseFailure(role, text, "no <answer>")
        if role == "step" and "<answer>" not in text:
            paragraph = text.strip()
            if not paragraph:
                return ParseFailure(role, text, "empty reply")
            return [Step(paragraph, replace(state, reasoning=(*state.reasoning, paragraph)))]
        answer = text.rpartition("<answer>")[2].partition("</answer>")[0].strip()
        if not answer:
            return ParseFailure(role, text, "empty answer")
        return [Step(answer, replace(state, answer=answer))]

    def is_terminal(self, state: Reply) -> bool:
        """Return whether there is an answer."""
        return state.answer is not None

    def answer(self, state: Reply) -> str | None:
        """Return the answer, if there is one."""
        return state.answer

    def parse_value(self, state: Reply, text: str) -> float | ParseFailure:
        """Read the value of the one verdict in the reply (`read_verdict`)."""
        return read_verdict(self.values, text)


class ReasoningGymVerifier:
    """Marks answers by the data set's scorer, and is as strict as the scorer.

    The scorer runs in a separate process (`treeshare.tasks.sandbox`), since some scorers evaluate
    an answer as Python. An answer for which it raises, exits or takes too long gets 0 marks, and
    `scoring_failures` counts it.

    Args:
        dataset: the task's data set.
        options: the task's options.
        limit: the task's limit.
        seed: the task's seed.
        seconds: wall time in seconds for one answer.

    Raises:
        ImportError: reasoning-gym is not installed.
        OSError: the system is not POSIX.
        TypeError: the data set refuses the options.
        ValueError: there is no such data set, it refuses the options, or the limit is out of its
            bound.
    """

    def __init__(
        self,
        dataset: str,
        *,
        options: Mapping[str, Any] | None = None,
        limit: int = 100,
        seed: int = 0,
        seconds: float = 5.0,
    ) -> None:
        self.dataset = dataset
        self.options = dict(options or {})
        self.limit = limit
        self.seed = seed
        self.seconds = seconds
        self._sandbox = _sandbox(dataset, options, limit, seed, seconds)
        self._index = {_id(dataset, i): i for i in range(limit)}
        self._marks: dict[tuple[str, str], float] = {}  # by problem and answer

    @property
    def scoring_failures(self) -> Mapping[str, int]:
        """The number of answers that the scorer could not mark, by kind.

        The kinds are "raised", "exited" and "timed_out". Such an answer gets 0 marks.
        """
        return dict(self._sandbox.failures)

    def check(self, problem: Problem, answer: str) -> bool:
        """Return whether the scorer gives `answer` the full mark, 1.

        Raises:
            ValueError: the data set no longer makes the problem's question.
        """
        return self._score(problem, answer) >= 1.0

    def promise(self, problem: Problem, state: Reply) -> float:
        """Return 1.0 if there is no answer yet or it is right, else 0.0."""
        return 1.0 if state.answer is None else float(self.check(problem, state.answer))

    def grades(self, problem: Problem, state: Reply) -> dict[str, float]:
        """Return the scorer's mark as `score`."""
        return {"score": 0.0 if state.answer is None else self._score(problem, state.answer)}

    def _score(self, problem: Problem, answer: str) -> float:
        key = problem.id, answer
        if key not in self._marks:
            if len(self._marks) >= _MOST_MARKS:
                self._marks.clear()
            self._marks[key] = self._mark(problem, answer)
        return self._marks[key]

    def _mark(self, problem: Problem, answer: str) -> float:
        index = self._index[problem.id]
        with _explained(self.dataset, None):
            question = self._sandbox.call("question", index, is_limited=False)
        if question != problem.data:
            raise ValueError(f"{problem.id}: the data set makes another question than the task's")
        if len(answer) > _LONGEST:
            return 0.0
        try:
            return float(self._sandbox.call("mark", index, answer))
        except SandboxFailure:  # the sandbox counted it
            return 0.0


@verifier_of.register
def _make_verifier(task: ReasoningGym) -> ReasoningGymVerifier:
    return ReasoningGymVerifier(
        task.dataset, options=task.options, limit=task.limit, seed=task.seed
    )


def _sandbox(
    dataset: str,
    options: Mapping[str, Any] | None,
    limit: int,
    seed: int,
    seconds: float = 5.0,
) -> Sandbox:
    """Start a process that holds the data set; it raises the task's errors."""
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ImportError('task=reasoning_gym needs `pip install "treeshare[reasoning-gym]"`')
    at_least(1, limit=limit)
    whole(seed=seed)
    if limit > _SIZE:
        raise ValueError(f"limit={limit} must be at most {_SIZE}")
    if dataset == "composite":
        raise ValueError("dataset='composite' is not supported: run its data sets one by one")
    with _explained(dataset, options):
        arguments = (dataset, options or {}, seed, _SIZE)
        return Sandbox(_MARKER, "Marker", arguments, seconds=seconds)


@contextmanager
def _explained(dataset: str, options: Mapping[str, Any] | None) -> Iterator[None]:
    """Raise an error of the data set's process again, as a TypeError or ValueError of one line."""
    try:
        yield
    except SandboxFailure as failure:
        kind = TypeError if failure.error == "TypeError" else ValueError
        what = f"dataset={dataset!r}" + (f", options={dict(options)}" if options else "")
        message = " ".join(str(failure).split())
        raise kind(f"{what}: {failure.error or failure.kind}: {message}") from None


def _id(dataset: str, index: int) -> str:
    return f"{ReasoningGym.name}/{dataset}/{index}"
