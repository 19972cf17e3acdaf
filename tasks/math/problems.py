"""Mathematics word problems with a final answer, from a user's file as GSM8K's and MATH's.

A step is a line of the solution. `MathProblems` reads the questions and nothing else of the file;
the answers are `MathVerifier`'s.
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

from treeshare.tasks.replies import read_verdict
from treeshare.tasks.sampling import RoleSampling, merged
from treeshare.tasks.sandbox.parent import Sandbox, SandboxFailure
from treeshare.tasks.task import ParseFailure, Problem, State, Step

from . import prompts as prompts
from .answers import (
    are_same,
    before_next_question,
    final_answer,
    group_keys,
    need_math_verify,
    normal,
)
from .replies import LONGEST_ANSWER

_SAMPLING: RoleSampling = {
    "step": {"max_tokens": 128, "temperature": 0.7, "stop": ("\n",)},
    # no blank line: replies begin with one, and are divided by them; a base model goes on so
    "io": {"max_tokens": 48, "temperature": 0.7, "stop": ("\nQuestion:", "\nProblem:")},
    "cot": {"max_tokens": 512, "temperature": 0.7, "stop": ("\nQuestion:", "\nProblem:")},
    "value": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
}
_LABEL = re.compile(r"^(?:[-*•]\s+|(?:step\s*)?[0-9]{1,2}[.):]\s+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Solution:
    question: str
    lines: tuple[str, ...] = ()
    answer: str | None = None  # in normal form, right or wrong


class MathProblems:
    """The task: problems, prompts and parsers.

    Args:
        path: a file of JSON lines.
        question: the field that holds the question.
        level: the field that holds the difficulty, such as `Level 3` or 3; needed with `levels`.
        levels: only problems of these levels; None takes all.
        seed: None takes the file's order, a number shuffles it.
        start: first problem taken, counted from 0 after that.
        limit: problems taken; None takes all that follow.
        sampling: per role, fields that replace those of the defaults.

    Raises:
        OSError: the file cannot be opened.
        ValueError: a line lacks a field or has an empty one, or another argument is out of its
            bound.
    """

    name = "math"
    values: Mapping[str, float] = {" sure": 1.0, " likely": 0.5, " impossible": 0.0}
    yes_no = (" yes", " no")

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
        self.sampling = merged(_SAMPLING, sampling)
        questions = [text for _, text in read_fields(path, question)]
        chosen = list(range(len(questions)))
        if levels is not None:
            found = [re.search("[0-9]+", text) for _, text in read_fields(path, level)]
            chosen = [i for i in chosen if (n := found[i]) is not None and int(n[0]) in levels]
            if not chosen:
                raise ValueError(f"levels={list(levels)} leave no problem of {path}")
        if seed is not None:
            random.Random(seed).shuffle(chosen)
        if not 0 <= start < len(chosen):
            raise ValueError(f"start={start} must be from 0 to {len(chosen) - 1}")
        stop = len(chosen) if limit is None else start + limit
        if not start < stop <= len(chosen):
            raise ValueError(f"limit={limit} must be from 1 to {len(chosen) - start}, or null")
        self._problems = [Problem(_id(i), questions[i]) for i in chosen[start:stop]]

    def problems(self) -> list[Problem]:
        """An id as `math/7` counts the file's problems from 0."""
        return self._problems

    def root(self, problem: Problem) -> Solution:
        return Solution(problem.data)

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Segments of the prompt for `role`, the constant one first. `step` and `cot` share one
        prompt, which holds the lines so far: a child's prompt continues its parent's.

        Raises:
            ValueError: there is no such role.
        """
        question = f"Question: {' '.join(state.question.split())}\n"
        lines = [f"{line}\n" for line in state.lines]
        told = lines or ([] if state.answer is None else [f"Answer: {state.answer}\n"])
        match role:
            case "io":
                return prompts.SOLVE, question, "Answer:"
            case "step" | "cot":
                return prompts.STEPS, question, "Solution:\n", *lines
            case "value":
                return prompts.VALUE, question, "Solution:\n", *told, "Verdict:"
            case "judge":
                return prompts.JUDGE, question, "Solution:\n", *told, "Right so far:"
        raise ValueError(f"role={role!r} must be one of {', '.join((*self.sampling, 'judge'))}")

    def solution(self, state: Solution) -> tuple[str, ...]:
        """The question and the lines, as a reward model reads them."""
        told = state.lines or (() if state.answer is None else (f"Answer: {state.answer}",))
        return " ".join(state.question.split()), *told

    def parse(self, role: str, state: Solution, text: str) -> list[Step] | ParseFailure:
        """Steps read from a reply.

        `step`: its first line, which ends the solution if it holds an answer. `cot`: all lines, and
        there must be an answer. `io`: the answer, or else the first line. A further question that
        the model goes on with is not read. `final_answer` says what counts as an answer.

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
                answer=None if answer is None else normal(answer),
            )
            return [Step(lines[0], after)]
        answer = final_answer(text)
        if answer is None and role == "io":
            answer = final_answer(f"Answer: {lines[0]}")
        if answer is None:
            return ParseFailure(role, text, "no `Answer:` of at most 200 characters")
        told = (*state.lines, *lines) if role == "cot" else ()
        return [Step(answer, replace(state, lines=told, answer=normal(answer)))]

    def is_terminal(self, state: Solution) -> bool:
        return state.answer is not None

    def answer(self, state: Solution) -> str | None:
        r"""In normal form, such as `1/2`, `18 dollars` or `\sqrt{2}`; None unless the state is
        terminal."""
        return state.answer

    def answer_keys(self, answers: Sequence[str]) -> list[Hashable]:
        """By value: `18`, `18 USD` and `$18` have one key (`group_keys`)."""
        return group_keys(answers)

    def parse_value(self, state: Solution, text: str) -> float | ParseFailure:
        """The value of the one verdict in the reply (`read_verdict`)."""
        return read_verdict(self.values, text)


class MathVerifier:
    r"""Knows the answers in `path`.

    Args:
        path: the task's file.
        answer: the field that holds the answer: on its own, after `####` as in GSM8K, or in
            `\boxed{}` as in MATH.
        symbolic: compare what is no number by math-verify (pip install "treeshare[math]"), as MATH
            wants; else as text. It runs in a process of its own.
        seconds: wall time of one answer there; one that takes longer is wrong.

    Raises:
        ImportError: `symbolic`, and math-verify is not installed.
        OSError: the file cannot be opened.
        ValueError: as of the task, or no reply could have a line's answer.
    """

    def __init__(
        self, path: str, *, answer: str = "answer", symbolic: bool = False, seconds: float = 5.0
    ) -> None:
        self._sandbox: Sandbox | None = None
        if symbolic:
            need_math_verify()
            module = "treeshare.tasks.math.answers"
            self._sandbox = Sandbox(module, imports=["math_verify"], seconds=seconds)
        self._answers = {
            _id(i): _gold(text, f"{path}:{line}")
            for i, (line, text) in enumerate(read_fields(path, answer))
        }

    @property
    def scoring_failures(self) -> Mapping[str, int]:
        """Answers that are wrong because math-verify "raised", "exited" or "timed_out"."""
        return {} if self._sandbox is None else dict(self._sandbox.failures)

    def check(self, problem: Problem, answer: str) -> bool:
        """Whether `answer` equals the file's (`are_same`). Anything malformed is wrong."""
        right = self._answers[problem.id]
        if are_same(answer, right):
            return True
        if self._sandbox is None:
            return False
        try:
            return bool(self._sandbox.call("are_same", answer, right, symbolic=True))
        except SandboxFailure:  # the sandbox has counted it
            return False

    def promise(self, problem: Problem, state: Solution) -> float:
        """1.0 if there is no answer yet, or it is right; else 0.0."""
        return 1.0 if state.answer is None else float(self.check(problem, state.answer))


@cache
def read_fields(path: str, name: str) -> tuple[tuple[int, str], ...]:
    """One field of every line of a file of JSON lines: the line's number, from 1, and the text. A
    number is the text that stands in the file, so `1e-07` stays exact.

    Raises:
        OSError: the file cannot be opened.
        ValueError: a line is no JSON object that has the field, the field is empty, or there is
            no line.
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
    """The answer of a problem from its field.

    Raises:
        ValueError: it is such as no reply could give.
    """
    gold = final_answer(text) or text.strip()
    if len(gold) > LONGEST_ANSWER or not are_same(normal(gold), gold):
        raise ValueError(
            f"{where}: no answer of at most {LONGEST_ANSWER} characters in {shorten(gold, 60)!r}"
        )
    return gold


def _id(index: int) -> str:
    return f"{MathProblems.name}/{index}"
