"""Mathematics problems with a final answer, from a data set such as GSM8K or MATH.

A step is a line of the solution. `MathProblems` keeps the questions of the data set, and
`MathVerifier` keeps the answers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten

from treeshare.tasks.arguments import keeps_arguments
from treeshare.tasks.data import read_fields
from treeshare.tasks.generator import take, whole
from treeshare.tasks.prompts import (
    REPLY,
    PromptTemplates,
    PromptTexts,
    Shots,
    Values,
    read_prompts,
)
from treeshare.tasks.replies import read_verdict
from treeshare.tasks.sandbox.parent import Sandbox, SandboxFailure, check_seconds
from treeshare.tasks.task import ParseFailure, Problem, RoleSampling, State, Step, merge_sampling
from treeshare.tasks.verifiers import verifier_of

from .answers import (
    are_same,
    before_next_question,
    final_answer,
    group_keys,
    normalize_answer,
    require_math_verify,
)
from .replies import LONGEST_ANSWER

_QUESTION = "Question: {question}\n"
_TEMPLATES = PromptTemplates(
    read_prompts(__package__),
    {
        "step": ("steps", _QUESTION, REPLY, "Solution:\n", "{steps}"),
        "io": ("solve", _QUESTION, REPLY, "Answer:"),
        "cot": ("steps", _QUESTION, REPLY, "Solution:\n", "{steps}"),
        "value": ("value", _QUESTION, "Solution:\n", "{steps}", REPLY, "Verdict:"),
        "judge": ("judge", _QUESTION, "Solution:\n", "{steps}", REPLY, "Right so far:"),
    },
)
_SAMPLING: RoleSampling = {
    "step": {"max_tokens": 128, "temperature": 0.7, "stop": ("\n",)},
    # A blank line does not stop, because replies begin with one and hold more of them. A base
    # model continues with the next question.
    "io": {"max_tokens": 48, "temperature": 0.7, "stop": ("\nQuestion:", "\nProblem:")},
    "cot": {"max_tokens": 512, "temperature": 0.7, "stop": ("\nQuestion:", "\nProblem:")},
    "value": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
}
_LABEL = re.compile(r"^(?:[-*•]\s+|(?:step\s*)?[0-9]{1,2}[.):]\s+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Solution:
    """A state of a problem.

    Attributes:
        question: the question.
        lines: the lines of the solution so far.
        answer: the answer in the form of `normalize_answer`, right or wrong.
    """

    question: str
    lines: tuple[str, ...] = ()
    answer: str | None = None


@keeps_arguments
class MathProblems:
    """The task of mathematics problems.

    Args:
        path: a file, a data set of the Hugging Face hub, or one that `datasets` saved
            (`treeshare.tasks.data`).
        name: the task's name in results and in the problems' ids.
        id: the field that identifies a problem, in ids such as `math500/test/algebra/1.json`; None
            takes the index of the row.
        question: the field that holds the question.
        level: the field that holds the difficulty, such as `Level 3` or 3; needed with `levels`.
        levels: the levels of the problems taken; None takes all.
        seed: seed of the order; None keeps the data set's order.
        start: index of the first problem taken, from 0 in that order.
        limit: number of problems taken; None takes all that follow.
        sampling: per role, fields that replace those of the defaults.
        prompts: by role, a file or a text that replaces the prompt.
        shots: the number of examples in each prompt, or by role; None takes all.

    Raises:
        ImportError: the path needs the extra `datasets`.
        OSError: the data set cannot be read or loaded.
        ValueError: a row lacks a field or has an empty one, two rows have the same id, or another
            argument is out of its bound.
    """

    templates = _TEMPLATES
    """The prompts."""
    values: Mapping[str, float] = {" sure": 1.0, " likely": 0.5, " impossible": 0.0}
    """The value of each verdict."""
    yes_no = (" yes", " no")
    """The judgements."""

    def __init__(
        self,
        path: str,
        *,
        name: str = "math",
        id: str | None = None,
        question: str = "question",
        level: str = "level",
        levels: Sequence[int] | None = None,
        seed: int | None = None,
        start: int = 0,
        limit: int | None = None,
        sampling: RoleSampling | None = None,
        prompts: PromptTexts | None = None,
        shots: Shots | None = None,
    ) -> None:
        if not name or "/" in name:
            raise ValueError(f"name={name!r} must be a text without `/`")
        self.name, self.path, self.id = name, path, id
        self.sampling = merge_sampling(_SAMPLING, sampling)
        self.templates = self.templates.customized(prompts, shots)
        questions = [text for _, text in read_fields(path, question)]
        ids = _ids(path, id, len(questions))
        chosen = list(range(len(questions)))
        if levels is not None:
            found = [re.search("[0-9]+", text) for _, text in read_fields(path, level)]
            chosen = [i for i in chosen if (n := found[i]) is not None and int(n[0]) in levels]
            if not chosen:
                raise ValueError(f"levels={list(levels)} leave no problem of {path}")
        if seed is not None:
            whole(seed=seed)
            random.Random(seed).shuffle(chosen)
        self._problems = [
            Problem(f"{name}/{ids[i]}", questions[i]) for i in take(chosen, start, limit)
        ]

    def problems(self) -> list[Problem]:
        """Return the problems; an id such as `math/7` has the index of the row, from 0."""
        return self._problems

    def root(self, problem: Problem) -> Solution:
        """Return the question without any line."""
        return Solution(problem.data)

    def max_steps(self, problem: Problem) -> int:
        """Return 16: few solutions have more lines."""
        return 16

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Return the segments of the prompt for `role`, the constant one first.

        `step` and `cot` share one prompt, which holds the lines so far, so a child's prompt begins
        with its parent's.

        Raises:
            ValueError: there is no such role.
        """
        steps = [f"{line}\n" for line in state.lines]
        if role in ("value", "judge") and not steps and state.answer is not None:
            steps = [f"Answer: {state.answer}\n"]
        values: Values = {"question": " ".join(state.question.split()), "steps": steps}
        return self.templates.render(role, values)

    def solution(self, state: Solution) -> tuple[str, ...]:
        """Return the question and the lines for a reward model."""
        lines = state.lines or (() if state.answer is None else (f"Answer: {state.answer}",))
        return " ".join(state.question.split()), *lines

    def parse(self, role: str, state: Solution, text: str) -> list[Step] | ParseFailure:
        """Read the steps of a reply.

        Of a reply to `step` it is the first line, which ends the solution if it holds an answer; of
        a reply to `cot` all lines, which must hold an answer; of a reply to `io` the answer, or
        else the first line. A further question, with which a model may continue, is not read.
        `final_answer` says what counts as an answer.

        Raises:
            ValueError: the role has no such reply.
        """
        own = before_next_question(text)
        lines = [_LABEL.sub("", line.strip()) for line in own.splitlines()]
        lines = [line for line in lines if line]
        if role not in ("step", "cot", "io"):
            raise ValueError(f"role={role!r} must be one of step, cot, io")
        if not lines:
            return ParseFailure(role, text, "empty reply")
        if role == "step":
            answer = final_answer(lines[0])
            after = replace(
                state,
                lines=(*state.lines, lines[0]),
                answer=None if answer is None else normalize_answer(answer),
            )
            return [Step(lines[0], after)]
        answer = final_answer(text)
        if answer is None and role == "io":
            answer = final_answer(f"Answer: {lines[0]}")
        if answer is None:
            return ParseFailure(role, text, "no `Answer:` of at most 200 characters")
        kept = (*state.lines, *lines) if role == "cot" else ()
        return [Step(answer, replace(state, lines=kept, answer=normalize_answer(answer)))]

    def is_terminal(self, state: Solution) -> bool:
        """Return whether there is an answer."""
        return state.answer is not None

    def answer(self, state: Solution) -> str | None:
        r"""Return the normalized answer, such as `1/2`, `18 dollars` or `\sqrt{2}`.

        It is None for a state that is not terminal.
        """
        return state.answer

    def answer_keys(self, answers: Sequence[str]) -> list[Hashable]:
        """Return a key for each answer by value: `18`, `18 USD` and `$18` have the same."""
        return group_keys(answers)

    def parse_value(self, state: Solution, text: str) -> float | ParseFailure:
        """Read the value of the one verdict in the reply (`read_verdict`)."""
        return read_verdict(self.values, text)


class MathVerifier:
    r"""Compares answers with those in the task's data set.

    Args:
        path: the task's path.
        id: the task's field that identifies a problem.
        answer: the field that holds the answer: alone, after `####` as in GSM8K, or in `\boxed{}`
            as in MATH.
        symbolic: whether math-verify (pip install "treeshare[math]") compares answers that are not
            numbers, as MATH needs it, in a separate process. Otherwise they are compared as texts.
        seconds: wall time in seconds for one answer in that process; a slower one is wrong.

    Raises:
        ImportError: `symbolic` is true and math-verify is not installed.
        OSError: the data set cannot be read or loaded.
        ValueError: a row lacks the field or has an empty one, its answer is one that no reply can
            give, or `seconds` is not from 0.1 to 3600.
    """

    def __init__(
        self,
        path: str,
        *,
        id: str | None = None,
        answer: str = "answer",
        symbolic: bool = False,
        seconds: float = 5.0,
    ) -> None:
        self.path, self.id, self.answer = path, id, answer
        check_seconds(seconds)
        self.symbolic, self.seconds = symbolic, seconds
        self._sandbox: Sandbox | None = None
        if symbolic:
            require_math_verify()
            module = "treeshare.tasks.math.answers"
            self._sandbox = Sandbox(module, imports=["math_verify"], seconds=seconds)
        golds = [_gold(text, where) for where, text in read_fields(path, answer)]
        self._answers = dict(zip(_ids(path, id, len(golds)), golds, strict=True))

    @property
    def scoring_failures(self) -> Mapping[str, int]:
        """The number of answers that math-verify could not compare, by kind.

        The kinds are "raised", "exited" and "timed_out". Such an answer is wrong.
        """
        return {} if self._sandbox is None else dict(self._sandbox.failures)

    def right_answer(self, problem: Problem) -> str:
        """Return the data set's answer, without the words around it."""
        return self._answers[problem.id.partition("/")[2]]

    def check(self, problem: Problem, answer: str) -> bool:
        """Return whether `answer` is the right one (`are_same`). A malformed answer is wrong."""
        right = self.right_answer(problem)
        if are_same(answer, right):
            return True
        if self._sandbox is None:
            return False
        try:
            return bool(self._sandbox.call("are_same", answer, right, symbolic=True))
        except SandboxFailure:  # the sandbox counted it
            return False

    def promise(self, problem: Problem, state: Solution) -> float:
        """Return 1.0 if there is no answer yet or it is right, else 0.0."""
        return 1.0 if state.answer is None else float(self.check(problem, state.answer))


@verifier_of.register
def _make_verifier(task: MathProblems) -> MathVerifier:
    return MathVerifier(task.path, id=task.id)


def _ids(path: str, name: str | None, count: int) -> list[str]:
    """Return what identifies each row: the field of that name, or the row's index.

    Raises:
        ValueError: two rows have the same.
    """
    if name is None:
        return [str(i) for i in range(count)]
    places: dict[str, str] = {}
    for where, text in read_fields(path, name):
        if text in places:
            raise ValueError(f"{where}: the {name} {text!r} is also that of {places[text]}")
        places[text] = where
    return list(places)


def _gold(text: str, where: str) -> str:
    """Read the answer of a problem from its field.

    Raises:
        ValueError: no reply can give such an answer.
    """
    gold = final_answer(text) or text.strip()
    if len(gold) > LONGEST_ANSWER or not are_same(normalize_answer(gold), gold):
        raise ValueError(
            f"{where}: no answer of at most {LONGEST_ANSWER} characters in {shorten(gold, 60)!r}"
        )
    return gold
