"""The Game of 24 as a task: moves, heuristic, and parsing of replies of every kind."""

from __future__ import annotations

import operator
from collections import Counter
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from treeshare.llm_backend.api import Sampling
from treeshare.tasks.arithmetic.game24 import Game24, Game24Verifier
from treeshare.tasks.arithmetic.rules import Number, Position
from treeshare.tasks.task import (
    HasHeuristic,
    HasJudgement,
    HasMoves,
    HasValues,
    HasVotes,
    ParseFailure,
    Problem,
    Step,
    Task,
)

TASK = Game24()
VERIFIER = Game24Verifier()
ROOT = Position.start((2, 8, 8, 14))
SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def left(text: str) -> Position:
    """Return a position with these values left, of no particular puzzle."""
    values = sorted(map(Fraction, text.split()))
    return Position((), tuple(Number(value, str(value)) for value in values))


def read(role: str, state: Position, text: str) -> list[Step]:
    steps = TASK.parse(role, state, text)
    assert isinstance(steps, list) and steps
    return steps


def test_is_a_task_with_every_capability() -> None:
    for protocol in (Task, HasMoves, HasValues, HasJudgement, HasVotes, HasHeuristic):
        assert isinstance(TASK, protocol)
    assert not any(isinstance(value, Game24Verifier) for value in vars(TASK).values())


def test_sampling_is_merged_per_role() -> None:
    overrides = OmegaConf.create({"step": {"max_tokens": 9, "stop": ["\n", ";"]}, "io": {}})
    sampling = Game24(limit=1, sampling=overrides).sampling
    assert Sampling(**sampling["step"]) == Sampling(9, 0.7, stop=("\n", ";"))
    assert {role: Sampling(**sampling[role]) for role in sampling if role != "step"} == {
        role: Sampling(**fields) for role, fields in TASK.sampling.items() if role != "step"
    }


@pytest.mark.parametrize("puzzle", [(4, 9, 10, 13), (1, 5, 5, 5), (3, 3, 8, 8)], ids=str)
def test_moves_are_those_of_brute_force(puzzle: tuple[int, ...]) -> None:
    root = Position.start(puzzle)
    for state in {root, *(move.state for move in TASK.moves(root))}:
        expected = set()
        for a, b, *rest in permutations(state.values):
            for sign, function in SIGNS.items():
                if sign != "/" or b:
                    expected.add(tuple(sorted((function(a, b), *rest))))
        moves = TASK.moves(state)
        assert Counter(move.state.values for move in moves) == Counter(expected)


def test_moves_come_in_the_documented_order() -> None:
    assert [move.text for move in TASK.moves(left("2 8/3"))] == [
        " 2 + 8/3 =",
        " 8/3 - 2 =",
        " 2 * 8/3 =",
        " 8/3 / 2 =",
        " 2 - 8/3 =",
        " 2 / 8/3 =",
    ]
    assert [move.text for move in TASK.moves(left("0 4"))] == [" 0 + 4 =", " 0 * 4 =", " 0 - 4 ="]
    assert TASK.moves(left("24")) == []
    assert TASK.moves(read("io", ROOT, "8 + 8")[0].state) == []


@pytest.mark.parametrize(
    ("numbers", "value"),
    [
        ("4 6", 1.0),
        ("2 17", 1 / 6),
        ("0 0", 1 / 25),
        ("24", 1.0),
        ("20", 1 / 5),
        ("2 11 30", 1 / 3),
    ],
)
def test_heuristic_looks_one_operation_ahead(numbers: str, value: float) -> None:
    assert TASK.heuristic(left(numbers)) == value


def test_heuristic_of_an_answer_is_that_of_its_value() -> None:
    (right,) = TASK.parse("io", ROOT, "4 * 6")
    (void,) = TASK.parse("io", ROOT, "4 / (6 - 6)")
    assert (TASK.heuristic(right.state), TASK.heuristic(void.state)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("2 + 8 = 10 (left: 8 10 14)", "8 10 14"),
        (" 2 + 8 = 10", "8 10 14"),
        ("2+8=10", "8 10 14"),
        ("2 + 8 = 10 (left: 1 2 3)", "8 10 14"),
        ("2 + 8 = 10.", "8 10 14"),
        ("2 + 8 = 10 - left 8 10 14", "8 10 14"),
        ("- 2 + 8 = 10", "8 10 14"),
        ("* 2 + 8 = 10", "8 10 14"),
        ("• 2 + 8 = 10", "8 10 14"),
        ("1. 2 + 8 = 10", "8 10 14"),
        ("12) 2 + 8 = 10", "8 10 14"),
        ("(3) 2 + 8 = 10", "8 10 14"),
        ("Step 1: 2 + 8 = 10", "8 10 14"),
        ("Next step: 2 + 8 = 10", "8 10 14"),
        ("1. **2 + 8 = 10**", "8 10 14"),
        ("`2 + 8 = 10`", "8 10 14"),
        ("8 × 2 = 16", "8 14 16"),
        ("14 ÷ 2 = 7", "7 8 8"),
        ("14−8 = 6", "2 6 8"),
        ("8 - 8 = 0", "0 2 14"),
        ("2 - 14 = -12", "-12 8 8"),
        ("8 / 14 = 4/7", "4/7 2 8"),
        ("8/14=8/14", "4/7 2 8"),
        ("2 / 8 = 0.25", "1/4 8 14"),
        ("nothing yet\n2 + 8 = 10\n", "8 10 14"),
    ],
)
def test_a_step_is_read(line: str, numbers: str) -> None:
    for role in ("propose", "step"):
        (step,) = read(role, ROOT, line)
        assert step.state == left(numbers)
        assert step.text == step.state.steps[-1]


@pytest.mark.parametrize(
    ("state", "line", "numbers"),
    [
        ("-12 8/3 3", "-12 + 3 = -9", "-9 8/3"),
        ("-12 8/3 3", "8/3 * 3 = 8", "-12 8"),
        ("-12 8/3 3", "3 * 8/3 = 8", "-12 8"),
        ("-12 8/3 3", "8/3 / 3 = 8/9", "-12 8/9"),
        ("-12 8/3 3", "3 / 8/3 = 9/8", "-12 9/8"),
        ("-12 8/3 3", "3 - -12 = 15", "8/3 15"),
        ("1/2 2", "0.5 * 2 = 1", "1"),
    ],
)
def test_a_step_of_fractions_and_negatives_is_read(state: str, line: str, numbers: str) -> None:
    (step,) = read("step", left(state), line)
    assert step.state == left(numbers)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty reply"),
        (" \n\n ", "empty reply"),
        ("I think so", "not a step such as `2 + 8 = 10`"),
        ("2 + 8", "not a step such as `2 + 8 = 10`"),
        ("2 + 8 = x", "not a step such as `2 + 8 = 10`"),
        ("2 + 8 + 8 = 18", "not a step such as `2 + 8 = 10`"),
        ("2 + 8 = 10 + 8 = 18", "not a step such as `2 + 8 = 10`"),
        ("2 + 8 = 10/1/1", "not a step such as `2 + 8 = 10`"),
        ("2 + 8 = 10.05", "2 + 8 is not 10.05"),
        ("12 + 8 = 20", "12 is not left"),
        ("2 + 2 = 4", "2 is not left"),
        ("2 + 8 = 11\n8 + 8 = 17", "2 + 8 is not 11"),
        ("14 / 8 = 1.7", "14 / 8 is not 1.7"),
        ("9999999999 + 8 = 1", "not a step such as `2 + 8 = 10`"),
        ("٢ + 8 = 10", "not a step such as `2 + 8 = 10`"),
    ],
)
def test_a_reply_without_a_step_is_a_failure_with_a_reason(text: str, reason: str) -> None:
    for role in ("propose", "step"):
        assert TASK.parse(role, ROOT, text) == ParseFailure(role, text, reason)


def test_a_division_by_zero_is_no_step() -> None:
    failure = TASK.parse("step", left("0 8"), "8 / 0 = 0")
    assert failure == ParseFailure("step", "8 / 0 = 0", "8 / 0 is not 0")


def test_several_lines_are_several_proposals_but_one_step() -> None:
    text = "2 + 8 = 10 (left: 8 10 14)\nwrong\n8 / 2 = 5\n14 - 8 = 6 (left: 2 6 8)"
    assert [str(step.state) for step in read("propose", ROOT, text)] == ["8 10 14", "2 6 8"]
    assert [str(step.state) for step in read("step", ROOT, text)] == ["8 10 14"]


def test_every_move_can_be_told_as_a_step() -> None:
    for first in TASK.moves(ROOT):
        for move in (first, *TASK.moves(first.state)):
            parent = ROOT if move is first else first.state
            line = move.state.steps[-1]
            assert f" {line}".startswith(move.text)
            assert [step.state for step in read("step", parent, f" {line}")] == [move.state]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" (14 - 8) * 8 / 2 = 24", "(14 - 8) * 8 / 2"),
        ("Answer: (14 - 8) * 8 / 2 = 24", "(14 - 8) * 8 / 2"),
        ("The answer is: (14 − 8) × 8 ÷ 2.", "(14 - 8) * 8 / 2"),
        ("**Answer:** `(14 - 8) * 8 / 2`", "(14 - 8) * 8 / 2"),
        ("Answer:\n(14 - 8) * 8 / 2 = 24", "(14 - 8) * 8 / 2"),
        ("14 - 8 = 6\n6 * 8 = 48\nAnswer: (14 - 8) * 8 / 2 = 24\nDone: yes", "(14 - 8) * 8 / 2"),
        ("Answer: 1 + 1\nAnswer: 8 + 14 + 2", "8 + 14 + 2"),
        ("14 + 8\n14 + 8 + 2\nthat is it", "14 + 8 + 2"),
        ("Answer: 8 + 8 = 23", "8 + 8"),
        ("Answer: 24", "24"),
        ("Answer: 1 / 0", "1 / 0"),
    ],
)
def test_a_solution_is_read_right_or_wrong(text: str, answer: str) -> None:
    for role in ("io", "cot"):
        (step,) = read(role, ROOT, text)
        assert TASK.is_terminal(step.state)
        assert (step.text, TASK.answer(step.state), str(step.state)) == (answer, answer, answer)


@pytest.mark.parametrize(
    "text",
    ["", "no idea", "Answer: (14 - 8", "Answer: 2 ** 8", "Step: 2 + 8 = 10", "x = 24", "1 +" * 99],
)
def test_a_reply_without_an_expression_is_a_failure(text: str) -> None:
    for role in ("io", "cot"):
        assert TASK.parse(role, ROOT, text) == ParseFailure(role, text, "no arithmetic expression")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" sure", 1.0),
        ("Likely.", 0.05),
        ("4 + 4 = 8\nIMPOSSIBLE", 0.00005),
        ("sure: 10 + 14 = 24", 1.0),
    ],
)
def test_a_verdict_is_read(text: str, value: float) -> None:
    assert TASK.parse_value(ROOT, text) == value


@pytest.mark.parametrize("text", ["", "unlikely", "surely", "yes"])
def test_no_verdict_is_a_failure(text: str) -> None:
    assert isinstance(TASK.parse_value(ROOT, text), ParseFailure)


@pytest.mark.parametrize(
    ("text", "index"),
    [(" 2", 1), ("Option 1", 0), ("Of 1 and 2 the best option is 2.", 1), ("3\n\nOption 1: 4", 2)],
)
def test_a_vote_is_the_best_option(text: str, index: int) -> None:
    assert TASK.parse_vote([ROOT] * 3, text) == index


@pytest.mark.parametrize("text", ["", "none", "0", "4", "-", "9" * 5000])
def test_no_vote_is_a_failure(text: str) -> None:
    assert isinstance(TASK.parse_vote([ROOT] * 3, text), ParseFailure)


@given(st.text() | st.text(alphabet="02814+-*/()=.:\n ×÷−aAnswer"))
def test_no_reply_makes_a_parser_raise(text: str) -> None:
    moves = {move.state for move in TASK.moves(ROOT)}
    for role in ("propose", "step", "io", "cot"):
        parsed = TASK.parse(role, ROOT, text)
        if isinstance(parsed, ParseFailure):
            assert (parsed.role, parsed.text) == (role, text)
        elif role in ("io", "cot"):
            VERIFIER.check(Problem("some", ROOT.puzzle), parsed[-1].text)
        else:
            assert moves.issuperset(step.state for step in parsed)
    TASK.parse_value(ROOT, text)
    TASK.parse_vote([ROOT, ROOT], text)
