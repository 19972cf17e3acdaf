"""The Game of 24: combine four numbers by + - * / into 24, using each exactly once.

The task of Tree of Thoughts (arXiv 2305.10601 section 4.1). A step combines two of the numbers
left; the code, not the model, keeps what is left and composes the answer's expression.
`Game24` reads replies and never judges whether an answer is right: that is `Game24Verifier`, to
which it holds no reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from operator import itemgetter
from typing import Any

from . import game24_prompts as prompts
from . import game24_refinement as refinement
from .game24_prompts import given, judged, lessons, shown, taken
from .game24_puzzles import read_puzzles, select, solvable_puzzles
from .game24_rules import TARGET, Position, combine, count_solutions, evaluate, plain
from .task import ParseFailure, Problem, State, Step

_SAMPLING: Mapping[str, Mapping[str, Any]] = {
    "propose": {"max_tokens": 120, "temperature": 0.7, "stop": ("\n\n",)},
    "step": {"max_tokens": 40, "temperature": 0.7, "stop": ("\n",)},
    "io": {"max_tokens": 48, "temperature": 0.7, "stop": ("\n",)},
    "cot": {"max_tokens": 128, "temperature": 0.7, "stop": ("\n\n",)},
    "value": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
    "vote": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
    "reflect": {"max_tokens": 48, "temperature": 0.7, "stop": ("\n",)},
    **refinement.SAMPLING,
}

_ROLES = (*_SAMPLING, "choose", "judge")

_NUMBER = r"(-?[0-9]{1,9}(?:\.[0-9]{1,9}|/[1-9][0-9]{0,8})?)"
_STEP = re.compile(
    r"(?:[-*•]\s|[a-z ]*\(?[0-9]{1,2}[.):]\s|[a-z ]+:)?[\s*`]*"  # a bullet, `1.`, `Step 1:`
    rf"{_NUMBER}\s*([-+*/])\s*{_NUMBER}\s*=\s*{_NUMBER}"
    r"(?![\w/]|\.[0-9]|\s*[-+*/=]\s*[0-9(])",  # nothing that carries the equation on
    re.IGNORECASE,
)
_EQUALS = re.compile(rf"=\s*{_NUMBER}$")
_BEST = re.compile(r"best\D*([0-9]{1,4})\b", re.IGNORECASE)
_OPTION = re.compile(r"\b([0-9]{1,4})\b")
_VERDICT = re.compile(r"\b(sure|likely|impossible)\b", re.IGNORECASE)


class Game24:
    """The task: problems, prompts and parsers.

    Args:
        path: ToT's 24.csv, or another such list, whose puzzles need not have a solution; None
            generates all that have one, easiest first by our own measure (`solvable_puzzles`).
        split: `test` (ToT's 100: indices 900 to 999 of the list) or `all`.
        start: first puzzle taken, counted from 0 within the split.
        limit: puzzles taken; None takes all that follow.
        sampling: per role, fields that replace those of the defaults.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is not such a list, or another argument is out of its bound.
    """

    name = "game24"
    values: Mapping[str, float] = {" sure": 1.0, " likely": 0.05, " impossible": 0.00005}
    """ToT's 20, 1 and 0.001 over 20."""
    yes_no = (" yes", " no")
    is_satisfied = staticmethod(refinement.is_satisfied)
    solution = staticmethod(prompts.solution)

    def __init__(
        self,
        path: str | None = None,
        *,
        split: str = "test",
        start: int = 0,
        limit: int | None = None,
        sampling: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        puzzles = solvable_puzzles() if path is None else read_puzzles(path)
        self._puzzles = select(puzzles, split, start, limit)
        self.sampling = _merge(sampling or {})

    def problems(self) -> list[Problem]:
        """In the list's order; the id names the numbers, so it does not depend on the list."""
        return [
            Problem(f"{self.name}/{'-'.join(map(str, puzzle))}", puzzle) for puzzle in self._puzzles
        ]

    def root(self, problem: Problem) -> Position:
        return Position.start(problem.data)

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Segments of the prompt for `role`, the constant one first.

        `step`, `choose` and `cot` share one prompt, which holds the steps so far: a child's
        prompt continues its parent's. `propose`, `value`, `judge` and `vote` show only what is
        left, or the equation of a terminal state. Roles that ask for steps show the reflections.

        Raises:
            ValueError: there is no such role.
        """
        match role:
            case "propose":
                return prompts.PROPOSE, f"Numbers: {state}\n", *lessons(state), "Next steps:\n"
            case "step" | "choose" | "cot":
                return prompts.STEPS, given(state), *lessons(state), *taken(state), "Step:"
            case "io":
                return prompts.SOLVE, given(state), "Answer:"
            case "value":
                return prompts.VALUE, *judged(state), "Verdict:"
            case "judge":
                return prompts.JUDGE, *judged(state), "Makes 24:"
            case "vote":
                options = (f"Option {i}: {shown(option)}\n" for i, option in enumerate(state, 1))
                return prompts.VOTE, *options, "Best option:"
            case "reflect":
                answer = [f"Answer: {shown(state)}\n"] if state.is_final else []
                return prompts.REFLECT, given(state), *taken(state), *answer, "Lesson:"
            case "feedback" | "refine":
                return refinement.prompt(role, state)
        raise ValueError(f"role={role!r} must be one of {', '.join(_ROLES)}")

    def parse(self, role: str, state: Position, text: str) -> list[Step] | ParseFailure:
        """Steps read from a reply.

        `propose` and `step`: lines such as `2 + 8 = 10 (left: 8 10 14)`, of which `step` takes
        the first. A line counts if its operands are left and its arithmetic is right; what it
        says is left is not read. `io`, `cot`, `refine`: the last `Answer:`, or else the last line
        that is an expression, taken as it is, right or wrong.

        Raises:
            ValueError: the role has no such reply.
        """
        if role in ("propose", "step"):
            lines = [line.strip() for line in plain(text).splitlines() if line.strip()]
            read = [_read_step(state, line) for line in lines]
            steps = [step for step in read if isinstance(step, Step)]
            reasons = [reason for reason in read if isinstance(reason, str)]
            if steps:
                return steps[:1] if role == "step" else steps
            return ParseFailure(role, text, reasons[0] if reasons else "empty reply")
        if role in ("io", "cot", "refine"):
            expression = _final_expression(plain(text))
            if expression is None:
                return ParseFailure(role, text, "no arithmetic expression")
            return [Step(expression, replace(state, answer=expression))]
        raise ValueError(f"role={role!r} must be one of propose, step, io, cot, refine")

    def is_terminal(self, state: Position) -> bool:
        return state.is_final

    def answer(self, state: Position) -> str | None:
        """An expression such as `(10 - 4) * (13 - 9)`; None unless the state is terminal."""
        if state.answer is None and state.is_final:
            return state.numbers[0].expression
        return state.answer

    def moves(self, state: Position) -> list[Step]:
        """All legal steps, one for each distinct position they lead to; none from a terminal one.

        By the pair of numbers, the lower places first; within a pair a <= b: a + b, b - a,
        a * b, b / a, a - b, a / b. Of steps to one position the first is kept. The text ends
        with `=`, lest ` 13 - 1` be the beginning of ` 13 - 10`.
        """
        if state.is_final:
            return []
        values = state.values
        texts: dict[Position, str] = {}
        for i, sign, j in _operations(len(values)):
            position = state.step(i, sign, j)
            if position is not None:
                texts.setdefault(position, f" {values[i]} {sign} {values[j]} =")
        return [Step(text, position) for position, text in texts.items()]

    def heuristic(self, state: Position) -> float:
        """1 / (1 + |24 - x|), where x is the nearest to 24 that any one operation on two of the
        numbers left makes. A terminal state's x is its own value; 0.0 if it divides by zero."""
        values = state.values
        if state.answer is not None:
            made = [evaluate(state.answer)[0]]
        elif state.is_final:
            made = [values[0]]
        else:
            made = [combine(values[i], sign, values[j]) for i, sign, j in _operations(len(values))]
        distances = [abs(TARGET - value) for value in made if value is not None]
        return float(1 / (1 + min(distances))) if distances else 0.0

    def with_reflections(self, state: Position, reflections: Sequence[str]) -> Position:
        """The same position, which shows these reflections in place of those it has."""
        return replace(state, reflections=tuple(reflections))

    def parse_value(self, state: Position, text: str) -> float | ParseFailure:
        """The value of the last verdict word in the reply."""
        verdicts = _VERDICT.findall(text)
        if not verdicts:
            return ParseFailure("value", text, "none of sure, likely, impossible")
        return self.values[f" {verdicts[-1].lower()}"]

    def parse_vote(self, states: Sequence[Position], text: str) -> int | ParseFailure:
        """The option after the word `best`, or else the first number in the reply."""
        match = _BEST.search(text) or _OPTION.search(text)
        if match is None:
            return ParseFailure("vote", text, "no option's number")
        option = int(match[1])
        if not 1 <= option <= len(states):
            return ParseFailure("vote", text, f"option {option} is not from 1 to {len(states)}")
        return option - 1


class Game24Verifier:
    """Knows which answers are right and which positions still lead to one."""

    def check(self, problem: Problem, answer: str) -> bool:
        """Whether `answer`, with or without `= 24`, makes 24 of the puzzle's numbers, each used
        once. Anything malformed is wrong."""
        expression = re.sub(r"=\s*24\s*$", "", plain(answer))
        try:
            value, numbers = evaluate(expression)
        except ValueError:
            return False
        return value == TARGET and sorted(numbers) == sorted(problem.data)

    def promise(self, problem: Problem, state: Position) -> float:
        """1.0 if what is left can still make 24, or the answer given is right; else 0.0."""
        if state.answer is not None:
            return float(self.check(problem, state.answer))
        return float(count_solutions(state.values) > 0)


def _merge(overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The default sampling with the fields of `overrides` in place of its own."""
    for role in overrides:
        if role not in _SAMPLING:
            raise ValueError(f"sampling: role {role!r} must be one of {', '.join(_SAMPLING)}")
    return {role: {**fields, **overrides.get(role, {})} for role, fields in _SAMPLING.items()}


def _operations(count: int) -> Iterator[tuple[int, str, int]]:
    """Operand places and sign of every operation on two of `count` numbers, in `moves`' order."""
    for i, j in combinations(range(count), 2):
        yield from ((i, "+", j), (j, "-", i), (i, "*", j), (j, "/", i), (i, "-", j), (i, "/", j))


def _read_step(state: Position, line: str) -> Step | str:
    """The step a line tells, or why it tells none."""
    match = _STEP.match(line)
    if match is None:
        return "not a step such as `2 + 8 = 10`"
    a, sign, b, result = match.groups()
    left: list[Fraction | None] = [*state.values]
    places = []
    for operand in (Fraction(a), Fraction(b)):
        if operand not in left:
            return f"{operand} is not left"
        places.append(left.index(operand))
        left[places[-1]] = None
    position = state.step(places[0], sign, places[1])
    if position is None or combine(Fraction(a), sign, Fraction(b)) != Fraction(result):
        return f"{a} {sign} {b} is not {result}"
    return Step(position.steps[-1], position)


def _final_expression(text: str) -> str | None:
    """The last expression after `Answer:`, or else the last bare line; without `= 24`."""
    candidates = []
    for line in reversed(text.splitlines()):
        label, _, rest = line.rpartition(":")
        if not label or "answer" in label.lower():
            expression = _EQUALS.sub("", rest.strip(" \t.*`$")).strip()
            candidates.append((not label, expression))
    for _, expression in sorted(candidates, key=itemgetter(0)):
        try:
            evaluate(expression)
        except ValueError:
            continue
        return expression
    return None
