"""Mathematics word problems with a final answer, from a user's file as GSM8K's and MATH's.

A step is a line of the solution. `MathProblems` reads the questions and nothing else of the file;
the answers are `MathVerifier`'s.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from . import math_prompts as prompts
from .math_answers import are_same, final_answer, need_math_verify, normal
from .replies import last_verdict
from .sampling import RoleSampling, merged
from .task import ParseFailure, Problem, State, Step

_SAMPLING: RoleSampling = {
    "step": {"max_tokens": 128, "temperature": 0.7, "stop": ("\n",)},
    "io": {"max_tokens": 48, "temperature": 0.7, "stop": ("\n",)},
    "cot": {"max_tokens": 512, "temperature": 0.7, "stop": ("\n\n",)},
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
        ValueError: a line lacks a field, or another argument is out of its bound.
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
        questions = read_fields(path, question)
        chosen = list(range(len(questions)))
        if levels is not None:
            told = [re.search("[0-9]+", text) for text in read_fields(path, level)]
            chosen = [i for i in chosen if (n := told[i]) is not None and int(n[0]) in levels]
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

        `step`: its first line, which ends the solution if it holds an answer. `cot`: the lines up
        to the one with the last answer, which there must be. `io`: the answer, or else the first
        line. What counts as an answer says `final_answer`.

        Raises:
            ValueError: the role has no such reply.
        """
        lines = [_LABEL.sub("", line.strip()) for line in text.splitlines()]
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
        r"""In normal form, such as `1/2`, `18 dollars` or `\sqrt{2}`, so that equal answers can be
        counted; None unless the state is terminal."""
        return state.answer

    def parse_value(self, state: Solution, text: str) -> float | ParseFailure:
        """The value of the last verdict word in the reply."""
        return last_verdict(self.values, text)


class MathVerifier:
    r"""Knows the answers in `path`.

    Args:
        path: the task's file.
        answer: the field that holds the answer: on its own, after `####` as in GSM8K, or in
            `\boxed{}` as in MATH.
        symbolic: compare what is no number by math-verify (pip install "treeshare[math]"), as MATH
            wants; else as text.

    Raises:
        ImportError: `symbolic`, and math-verify is not installed.
        OSError, ValueError: as of the task.
    """

    def __init__(self, path: str, *, answer: str = "answer", symbolic: bool = False) -> None:
        if symbolic:
            need_math_verify()
        self._symbolic = symbolic
        self._answers = {
            _id(i): final_answer(text) or text.strip()
            for i, text in enumerate(read_fields(path, answer))
        }

    def check(self, problem: Problem, answer: str) -> bool:
        """Whether `answer` equals the file's (`are_same`). Anything malformed is wrong."""
        return are_same(answer, self._answers[problem.id], symbolic=self._symbolic)

    def promise(self, problem: Problem, state: Solution) -> float:
        """1.0 if there is no answer yet, or it is right; else 0.0."""
        return 1.0 if state.answer is None else float(self.check(problem, state.answer))


@cache
def read_fields(path: str, name: str) -> tuple[str, ...]:
    """One field of every line of a file of JSON lines, as text.

    Raises:
        OSError: the file cannot be opened.
        ValueError: a line is no JSON object that has the field, or there is none.
    """
    fields = []
    with Path(path).open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    fields.append(_field(line, name, f"{path}:{number}"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not a file in UTF-8: {error}") from error
    if not fields:
        raise ValueError(f"{path}: no problems; at least one line is needed")
    return tuple(fields)


def _field(line: str, name: str, where: str) -> str:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get(name), str | int | float):
        raise ValueError(f"{where}: no text or number in a field {name!r}")
    return str(row[name])


def _id(index: int) -> str:
    return f"{MathProblems.name}/{index}"
