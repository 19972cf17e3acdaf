"""Positions, arithmetic, the solver and the verifier, against brute force and Python's parser."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, combinations, permutations, product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from treeshare.tasks.arithmetic.game24 import Game24, Game24Verifier
from treeshare.tasks.arithmetic.rules import Position, count_solutions, evaluate
from treeshare.tasks.task import Problem

TASK = Game24()
VERIFIER = Game24Verifier()
SIGNS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
PUZZLES = [(4, 9, 10, 13), (1, 5, 5, 5), (3, 3, 8, 8), (1, 1, 1, 1), (2, 4, 11, 12)]


def problem(*numbers: int) -> Problem:
    return Problem("some", numbers)


def at(*numbers: int) -> Position:
    return Position.start(numbers)


def reached(state: Position) -> Iterator[Position]:
    """Return `state` and every position that moves lead to from it."""
    yield state
    for move in TASK.moves(state):
        yield from reached(move.state)


def exact(text: str) -> tuple[Fraction, list[int]]:
    """Read an expression's value and numbers by Python's parser; ValueError if malformed."""
    numbers = []

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.BinOp(left, ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as sign, right):
                return SIGNS[type(sign)](value(left), value(right))
            case ast.UnaryOp(ast.USub(), operand):
                return -value(operand)
            case ast.Constant(int() as number) if type(number) is int:
                numbers.append(number)
                return Fraction(number)
        raise ValueError(text)

    try:
        return value(ast.parse(" ".join(text.split()), mode="eval").body), numbers
    except (SyntaxError, ZeroDivisionError) as error:
        raise ValueError(text) from error


def trees(leaves: tuple[tuple[object, Fraction], ...]) -> Iterator[tuple[object, Fraction]]:
    """Yield every expression over labelled leaves, with its value; some trees come twice."""
    if len(leaves) == 1:
        yield leaves[0]
    for i, j in combinations(range(len(leaves)), 2):
        rest = tuple(leaf for k, leaf in enumerate(leaves) if k not in (i, j))
        for (a, x), (b, y) in permutations((leaves[i], leaves[j])):
            made = [(("-", a, b), x - y)]
            made += [(("+", frozenset((a, b))), x + y), (("*", frozenset((a, b))), x * y)]
            made += [(("/", a, b), x / y)] if y else []
            for tree in made:
                yield from trees((tree, *rest))


@pytest.mark.parametrize("puzzle", PUZZLES, ids=str)
def test_solutions_are_counted_as_brute_force_counts_them(puzzle: tuple[int, ...]) -> None:
    leaves = tuple((place, Fraction(number)) for place, number in enumerate(puzzle))
    solutions = {tree for tree, value in trees(leaves) if value == 24}
    assert count_solutions(at(*puzzle).values) == len(solutions)


def test_positions_are_equal_by_what_is_left() -> None:
    one = TASK.parse("step", at(2, 2, 3, 5), "2 + 2 = 4")
    other = TASK.parse("step", at(2, 2, 3, 5), "2 * 2 = 4")
    assert one[0].state == other[0].state and hash(one[0].state) == hash(other[0].state)
    assert one[0].text != other[0].text
    assert str(one[0].state) == "3 4 5"
    answered = TASK.parse("io", at(2, 2, 3, 5), "2 + 2")
    assert answered[0].state != at(2, 2, 3, 5)


def test_every_position_composes_its_own_value() -> None:
    for state in reached(at(1, 4, 6, 11)):
        for number in state.numbers:
            assert exact(number.expression)[0] == evaluate(number.expression)[0] == number.value
        used = sorted(n for number in state.numbers for n in exact(number.expression)[1])
        assert used == [1, 4, 6, 11]
        assert list(state.values) == sorted(state.values)


def test_the_answer_is_composed_by_the_code() -> None:
    state = at(4, 9, 10, 13)
    for line in ("13 - 9 = 4", "10 - 4 = 6", "4 * 6 = 24"):
        assert not TASK.is_terminal(state) and TASK.answer(state) is None
        (step,) = TASK.parse("step", state, line)
        state = step.state
    assert TASK.is_terminal(state)
    assert TASK.answer(state) == "(13 - 9) * (10 - 4)"
    assert state.steps[-1] == "4 * 6 = 24 (left: 24)"


expressions = st.recursive(
    st.integers(0, 13).map(str),
    lambda inner: (
        st.builds("{} {} {}".format, inner, st.sampled_from("+-*/"), inner)
        | st.builds("({})".format, inner)
        | st.builds("-{}".format, inner)
    ),
    max_leaves=8,
)


@given(expressions)
def test_any_expression_is_read_as_python_reads_it(text: str) -> None:
    assume(len(text) <= 120)
    try:
        expected = exact(text)
    except ValueError:
        assert evaluate(text)[0] is None  # divides by zero
    else:
        assert evaluate(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "4 +", "+4", "(4", "4)", "()", "4 4", "4(4)", "4 ** 4", "4 // 4", "04", "4.0", "٤", "x"],
)
def test_a_malformed_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"where .* should be"):
        evaluate(text)


def test_an_expression_too_long_is_refused() -> None:
    assert evaluate("(" * 59 + "24" + ")" * 59) == (24, [24])
    with pytest.raises(ValueError, match="expression of 121 characters is longer than 120"):
        evaluate("-" * 120 + "4")


@pytest.mark.parametrize("puzzle", [(4, 9, 10, 13), (1, 5, 5, 5), (1, 1, 1, 1)], ids=str)
def test_verifier_agrees_with_brute_force(puzzle: tuple[int, ...]) -> None:
    solvable = {}
    for state in reversed(list(reached(at(*puzzle)))):  # children before parents
        moves = TASK.moves(state)
        solvable[state] = state.values == (24,) or any(solvable[m.state] for m in moves)
        assert VERIFIER.promise(problem(*puzzle), state) == solvable[state]
        answer = TASK.answer(state)
        assert answer is None or VERIFIER.check(problem(*puzzle), answer) == solvable[state]


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("(10 - 4) * (13 - 9)", True),
        (" (10-4)*(13-9) = 24 ", True),
        ("(10 − 4) × (13 − 9)=24", True),
        ("-(4 - 10) * (13 - 9)", True),
        ("(10 - 4) * (13 - 9) = 25", False),
        ("(10 - 4) * (13 - 9) = 24 = 24", True),
        ("24 = (10 - 4) * (13 - 9)", True),
        ("(10 - 4) * (13 - 9) = 6 * 4 = 24", True),
        ("[10 - 4] * {13 - 9}", True),
        ("24 = (10 - 4) * (13 - 9) = 25", False),
        ("6 * 4 = 24", False),
        ("(10 - 4] * (13 - 9)", False),
        ("(10 - 4) * (13 - 9", False),
        ("(10 - 4)(13 - 9)", False),
        ("4 * 6", False),
        ("(10 - 4) * (13 - 9) + 4 - 4", False),
        ("10 - 4 + 9 + 9", False),
        ("4 + 9 + 10 + 13", False),
        ("49 - 10 - 13 - 2", False),
        ("4 ** 9 - 10 - 13", False),
        ("4 / (9 - 9)", False),
        ("", False),
        ("24", False),
        ("=24", False),
        ("(" * 100_000, False),
        ("9" * 100_000, False),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_verifier_table(answer: str, is_right: bool) -> None:
    assert VERIFIER.check(problem(4, 9, 10, 13), answer) is is_right


def test_promise_of_a_whole_solution_is_that_it_is_right() -> None:
    (right,) = TASK.parse("io", at(4, 9, 10, 13), "(10 - 4) * (13 - 9)")
    (wrong,) = TASK.parse("io", at(4, 9, 10, 13), "(10 - 4) * 4")
    assert VERIFIER.promise(problem(4, 9, 10, 13), right.state) == 1
    assert VERIFIER.promise(problem(4, 9, 10, 13), wrong.state) == 0


def test_only_right_answers_are_accepted() -> None:
    for numbers in permutations((4, 9, 10, 13)):
        for signs in product("+-*/", repeat=3):
            for form in ("{}{}{}{}{}{}{}", "({}{}{}){}({}{}{})", "{}{}({}{}{}){}{}"):
                answer = form.format(*chain(*zip(numbers, signs, strict=False)), numbers[-1])
                assert VERIFIER.check(problem(4, 9, 10, 13), answer) == (exact(answer)[0] == 24)


RIGHT = "(10 - 4) * (13 - 9) = 24"
places = st.integers(0, len(RIGHT))
noise = st.text(alphabet="491013+-*/()= \n×÷−")
spoilt = st.builds(lambda i, text, j: RIGHT[:i] + text + RIGHT[j:], places, noise, places)


@given(st.text() | noise | spoilt)
def test_no_string_makes_the_verifier_raise_or_passes_wrongly(answer: str) -> None:
    if VERIFIER.check(problem(4, 9, 10, 13), answer):
        for typographic, sign in zip("×÷−", "*/-", strict=True):
            answer = answer.replace(typographic, sign)
        answer = re.sub(r"(?<!\d)0+(?=\d)", "", answer)  # Python reads no 024
        sides = [exact(side) for side in answer.split("=")]
        assert {value for value, _ in sides} == {24}
        assert [4, 9, 10, 13] in [sorted(used) for _, used in sides]
