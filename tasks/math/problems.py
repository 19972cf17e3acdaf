"""Mathematics problems with a final answer, from a user's file such as GSM8K's or MATH's.

A step is a line of the solution. `MathProblems` keeps the questions of the file, and `MathVerifier`
keeps the answers.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

from treeshare.tasks.generator import take
from treeshare.tasks.prompts import read_prompts
from treeshare.tasks.replies import read_verdict
from treeshare.tasks.sandbox.parent import Sandbox, SandboxFailure
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

PROMPTS = read_prompts(__package__)
"""The constant parts of the prompts."""

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


class MathProblems:
    """The task of mathematics problems.

    Args:
        path: a file of JSON lines.
        question: the field that holds the question.
        level: the field that holds the difficulty, such as `Level 3` or 3; needed with `levels`.
        levels: the levels of the problems taken; None takes all.
        seed: seed of the order; None keeps the file's order.
        start: index of the first problem taken, from 0 in that order.
        limit: number of problems taken; None takes all that follow.
        sampling: per role, fields that replace those of the defaults.

    Raises:
        OSError: the file cannot be opened.
        ValueError: a line lacks a field or has an empty one, or another argument is out of its
            bound.
    """

    name = "math"
    values: Mapping[str, float] = {" sure": 1.0, " likely": 0.5, " impossible": 0.0}
    """The value of each verdict."""
    yes_no = (" yes", " no")
    """The judgements."""

    def __init__(
        self,
        path: str,
        *,
        question: str = "question",
        level: str = "level",
        levels: Sequence[int] | None = None,
        seed: int | None = None,
        start: int = 0,
        limit: int | None = None,
        sampling: RoleSampling | None = None,
    ) -> None:
        self.path = path
        self.sampling = merge_sampling(_SAMPLING, sampling)
        questions = [text for _, text in read_fields(path, question)]
        chosen = list(range(len(questions)))
        if levels is not None:
            found = [re.search("[0-9]+", text) for _, text in read_fields(path, level)]
            chosen = [i for i in chosen if (n := found[i]) is not None and int(n[0]) in levels]
            if not chosen:
                raise ValueError(f"levels={list(levels)} leave no problem of {path}")
        if seed is not None:
            random.Random(seed).shuffle(chosen)
        self._problems = [Problem(_id(i), questions[i]) for i in take(chosen, start, limit)]

    def problems(self) -> list[Problem]:
        """Return the problems; an id such as `math/7` has the index in the file, from 0."""
        return self._problems

    def root(self, problem: Problem) -> Solution:
        """Return the question without any line."""
        return Solution(problem.data)

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Return the segments of the prompt for `role`, the constant one first.

        `step` and `cot` share one prompt, which holds the lines so far, so a child's prompt begins
        with its parent's.

        Raises:
            ValueError: there is no such role.
        """
        question = f"Question: {' '.join(state.question.split())}\n"
        lines = [f"{line}\n" for line in state.lines]
        judged = lines or ([] if state.answer is None else [f"Answer: {state.answer}\n"])
        match role:
            case "io":
                return PROMPTS["solve"], question, "Answer:"
            case "step" | "cot":
                return PROMPTS["steps"], question, "Solution:\n", *lines
            case "value":
                return PROMPTS["value"], question, "Solution:\n", *judged, "Verdict:"
            case "judge":
                return PROMPTS["judge"], question, "Solution:\n", *judged, "Right so far:"
        raise ValueError(f"role={role!r} must be one of {', '.join((*self.sampling, 'judge'))}")

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
    r"""Compares answers with those in the task's file.

    Args:
        path: the task's file.
        answer: the field that holds the answer: alone, after `####` as in GSM8K, or in `\boxed{}`
            as in MATH.
        symbolic: whether math-verify (pip install "treeshare[math]") compares answers that are not
            numbers, as MATH needs it, in a separate process. Otherwise they are compared as texts.
        seconds: wall time in seconds for one answer in that process; a slower one is wrong.

    Raises:
        ImportError: `symbolic` is true and math-verify is not installed.
        OSError: the file cannot be opened.
        ValueError: a line lacks the field or has an empty one, or its answer is one that no reply
            can give.
    """

    def __init__(
        self, path: str, *, answer: str = "answer", symbolic: bool = False, seconds: float = 5.0
    ) -> None:
        self.path, self.answer = path, answer
        self.symbolic, self.seconds = symbolic, seconds
        self._sandbox: Sandbox | None = None
        if symbolic:
            require_math_verify()
            module = "treeshare.tasks.math.answers"
            self._sandbox = Sandbox(module, imports=["math_verify"], seconds=seconds)
        self._answers = {
            _id(i): _gold(text, f"{path}:{line}")
            for i, (line, text) in enumerate(read_fields(path, answer))
        }

    @property
    def scoring_failures(self) -> Mapping[str, int]:
        """The number of answers that math-verify could not compare, by kind.

        The kinds are "raised", "exited" and "timed_out". Such an answer is wrong.
        """
        return {} if self._sandbox is None else dict(self._sandbox.failures)

    def right_answer(self, problem: Problem) -> str:
        """Return the file's answer, without the words around it."""
        return self._answers[problem.id]

    def check(self, problem: Problem, answer: str) -> bool:
        """Return whether `answer` equals the file's (`are_same`). A malformed answer is wrong."""
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
    return MathVerifier(task.path)


@cache
def read_fields(path: str, name: str) -> tuple[tuple[int, str], ...]:
    """Read one field of every line of a file of JSON lines.

    Args:
        path: the file.
        name: the field, which holds a text or a number.

    Returns:
        Each line's number, from 1, and the field's text. Of a number it is the text in the file, so
        `1e-07` stays exact.

    Raises:
        OSError: the file cannot be opened.
        ValueError: a line is not a JSON object with the field, the field is empty, or there is no
            line.
    """
    fields = []
    with Path(path).open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    fields.append((number, _field(line, name, f"{path}:{number}")))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not a file in UTF-8: {error}") from error
    if not fields:
        raise ValueError(f"{path}: no problems; at least one line is needed")
    return tuple(fields)


def _field(line: str, name: str, where: str) -> str:
    try:
        row: Any = json.loads(line, parse_float=str, parse_int=str, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get(name), str):
        raise ValueError(f"{where}: no text or number in a field {name!r}")
    text: str = row[name]
    if not text.strip():
        raise ValueError(f"{where}: the field {name!r} is empty")
    return text


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


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


def _id(index: int) -> str:
    return f"{MathProblems.name}/{index}"
