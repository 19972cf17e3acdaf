"""Countdown: the generator, the solver for up to six numbers, the prompts and the verifier."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeshare.tasks.arithmetic.countdown import (
    EXAMPLES,
    Countdown,
    CountdownVerifier,
    Puzzle,
    is_solvable,
)
from treeshare.tasks.arithmetic.rules import (
    Position,
    can_make,
    combine,
    count_solutions,
    solve,
)
from treeshare.tasks.task import ParseFailure, Problem

TASK = Countdown(limit=5)
VERIFIER = CountdownVerifier()
PROBLEM = Problem("countdown/2-3-7-15-18=31", Puzzle((2, 3, 7, 15, 18), 31))
ROOT = TASK.root(PROBLEM)
TEXTS = TASK.templates


@cache
def makeable(values: tuple[Fraction, ...]) -> frozenset[Fraction]:
    """Return all values that brute force makes, combining any two again and again."""
    if len(values) == 1:
        return frozenset(values)
    made: set[Fraction] = set()
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            if i != j:
                rest = [value for k, value in enumerate(values) if k not in (i, j)]
                for value in (combine(a, sign, b) for sign in "+-*/"):
                    if value is not None:
                        made |= makeable(tuple(sorted([*rest, value])))
    return frozenset(made)


@pytest.mark.parametrize(
    "numbers", [(1, 6, 9), (2, 2, 7, 10), (1, 2, 4, 4, 9), (1, 1, 1, 1, 1, 1)], ids=str
)
def test_what_can_be_made_is_what_brute_force_makes(numbers: tuple[int, ...]) -> None:
    values = tuple(map(Fraction, numbers))
    made = makeable(values)
    targets = {Fraction(target) for target in range(-3, 40)} | set(sorted(made)[::400])
    assert {target for target in targets if can_make(values, target)} == targets & made
    for target in (Fraction(5), Fraction(37), Fraction(1, 3)):
        final = solve(Position.start(numbers, target))
        assert (final is not None) == (target in made)
        if final is not None:
            assert VERIFIER.check(Problem("", (numbers, target)), final.numbers[0].expression)
            assert len(final.steps) == len(numbers) - 1


def test_solutions_are_counted_for_any_target_but_zero() -> None:
    values = tuple(map(Fraction, (2, 5, 9)))
    assert {target for target in range(1, 99) if count_solutions(values, Fraction(target))} == {
        int(value) for value in makeable(values) if value > 0 and value.denominator == 1
    }
    with pytest.raises(ValueError, match="target=0 must be another number"):
        count_solutions(values, Fraction(0))


@pytest.mark.parametrize("numbers", [3, 4, 5, 6])
def test_puzzles_are_solvable_in_bounds_and_repeatable(numbers: int) -> None:
    task = Countdown(numbers=numbers, largest=13, smallest_target=20, largest_target=40, limit=20)
    puzzles = [problem.data for problem in task.problems()]
    assert len(set(puzzles)) == len({problem.id for problem in task.problems()}) == 20
    for puzzle in puzzles:
        assert len(puzzle.numbers) == numbers and list(puzzle.numbers) == sorted(puzzle.numbers)
        assert puzzle.numbers[0] >= 1 and puzzle.numbers[-1] <= 13 and 20 <= puzzle.target <= 40
        final = solve(task.root(Problem("", puzzle)))
        assert final is not None
        assert VERIFIER.check(Problem("", puzzle), final.numbers[0].expression)


def test_the_seed_and_nothing_else_fixes_the_puzzles() -> None:
    first = Countdown(limit=3, seed=7).problems()
    assert first == Countdown(limit=9, seed=7).problems()[:3]
    assert first != Countdown(limit=3, seed=8).problems()


def test_no_example_is_drawn() -> None:
    narrow = {"numbers": 3, "largest": 14, "smallest_target": 18, "largest_target": 18}
    every = [problem.data for problem in Countdown(**narrow, limit=60).problems()]
    assert ((3, 8, 14), 18) in EXAMPLES and is_solvable(Puzzle((3, 8, 14), 18))
    assert Puzzle((3, 8, 14), 18) not in every


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"numbers": 2}, "numbers=2 must be from 3 to 6"),
        ({"numbers": 7}, "numbers=7 must be from 3 to 6"),
        ({"largest": 0}, "largest=0 must be at least 1"),
        ({"smallest_target": 0}, "smallest_target=0 must be at least 1"),
        ({"largest_target": 9}, "largest_target=9 must be at least 10"),
        ({"limit": 0}, "limit=0 must be at least 1"),
        (
            {"numbers": 3, "largest": 2, "smallest_target": 8, "largest_target": 8, "limit": 2},
            "limit=2 is too many: 20,000 draws gave none new after 1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_out_of_bound_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        Countdown(**arguments)
    assert str(raised.value) == message


@pytest.mark.parametrize("role", ["propose", "step", "choose", "io", "cot", "value", "judge"])
def test_a_prompt_names_the_target_of_its_puzzle(role: str) -> None:
    constant, given, *_ = TASK.prompt(role, ROOT)
    assert constant in (
        TEXTS.preamble("propose"),
        TEXTS.preamble("step"),
        TEXTS.preamble("io"),
        TEXTS.preamble("value"),
        TEXTS.preamble("judge"),
    )
    assert given == "Target: 31\nNumbers: 2 3 7 15 18\n"
    end = TASK.prompt(role, ROOT)[-1]
    assert end == "Makes 31:" if role == "judge" else not end.endswith(" ")


def test_votes_reflections_and_refinements_name_it_too() -> None:
    (wrong,) = TASK.parse("io", ROOT, "2 + 3 = 31")
    assert "".join(TASK.prompt("vote", (ROOT, wrong.state))).endswith(
        "\n\nTarget: 31\nOption 1: 2 3 7 15 18\nOption 2: 2 + 3 = 31\nBest option:"
    )
    shown = "\n\nTarget: 31\nNumbers: 2 3 7 15 18\nAnswer: 2 + 3 = 31\n"
    assert "".join(TASK.prompt("reflect", wrong.state)).endswith(f"{shown}Lesson:")
    assert "".join(TASK.prompt("feedback", wrong.state)).endswith(f"{shown}Feedback:")
    assert "".join(TASK.prompt("refine", ((wrong.state, "no"),))).endswith(
        f"{shown}Feedback: no\nAnswer:"
    )
    assert TASK.solution(wrong.state) == (
        "Make the target from the numbers by + - * / and parentheses. Use each number exactly "
        "once. Target: 31 Numbers: 2 3 7 15 18",
        "Answer: 2 + 3 = 31",
    )


def examples(text: str) -> Iterator[tuple[Position, list[str]]]:
    """Yield, for each example of a prompt, its position and the lines that follow."""
    for target, numbers, rest in re.findall(
        r"Target: (\d+)\nNumbers: ([\d ]+)\n(.*?)\n\n", text, re.DOTALL
    ):
        values = tuple(map(int, numbers.split()))
        assert len(values) == 2 or (values, int(target)) in EXAMPLES
        yield Position.start(values, Fraction(target)), rest.split("\n")


def test_examples_of_proposals_are_right() -> None:
    for state, (_, *lines) in examples(TEXTS.preamble("propose")):
        steps = TASK.parse("propose", state, "\n".join(lines))
        assert isinstance(steps, list) and [step.text for step in steps] == lines
        assert can_make(state.values, state.target)


def is_right(state: Position, answer: str) -> bool:
    return VERIFIER.check(Problem("", (state.puzzle, int(state.target))), answer)


@pytest.mark.parametrize(
    "text", [TEXTS.preamble("step"), TEXTS.preamble("io")], ids=["steps", "solve"]
)
def test_examples_of_solutions_are_right(text: str) -> None:
    for start, (*steps, answer) in examples(text):
        state = start
        for line in steps:
            (step,) = TASK.parse("step", state, line)
            assert line == f"Step: {step.text}"
            state = step.state
        assert not steps or state.values == (state.target,)
        assert is_right(start, answer.removeprefix("Answer: "))


@pytest.mark.parametrize(
    "text", [TEXTS.preamble("value"), TEXTS.preamble("judge")], ids=["value", "judge"]
)
def test_examples_of_verdicts_are_right(text: str) -> None:
    for state, (*answer, verdict) in examples(text):
        good = can_make(state.values, state.target)
        if answer:
            good = is_right(state, answer[0].removeprefix("Answer: "))
        if text == TEXTS.preamble("judge"):
            assert verdict == f"Makes {state.target}: {'yes' if good else 'no'}"
        else:
            assert verdict in ("Verdict: likely", f"Verdict: {'sure' if good else 'impossible'}")


def test_examples_of_mistakes_are_mistakes_and_of_mending_right() -> None:
    for state, (*steps, answer, _) in examples(TEXTS.preamble("reflect")):
        for line in steps:
            (step,) = TASK.parse("step", state, line)
            assert line == f"Step: {step.text}"
            state = step.state
        assert answer == f"Answer: {state.numbers[0].expression} = {state}"
        assert state.is_final and state.values != (state.target,)
    for state, (answer, feedback) in examples(TEXTS.preamble("feedback")):
        right = is_right(state, answer.removeprefix("Answer: "))
        assert right == TASK.is_satisfied(state, feedback.removeprefix("Feedback: "))
    for state, (wrong, _, right) in examples(TEXTS.preamble("refine")):
        assert not is_right(state, wrong.removeprefix("Answer: "))
        assert is_right(state, right.removeprefix("Answer: "))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("2 * 15 + 7 - 18 / 3", True),
        ("2 * 15 + 7 - 18 / 3 = 31", True),
        ("2 × 15 + 7 − 18 ÷ 3 = 31", True),
        ("2 * 15 + 7 - 18 / 3 = 24", False),
        ("2 * 15 + 7 - 18 / 3 = 3 1", False),
        ("2 * 15 + 1", False),
        ("31", False),
        ("18 + 15 - 2", False),
        ("2 * 15 + 7 - 18 / 3 + 0", False),
        ("2 * 15 + 7 - 18 / 3)", False),
    ],
)
def test_verifier_table(answer: str, expected: bool) -> None:
    assert VERIFIER.check(PROBLEM, answer) is expected


def test_promise_is_that_the_target_is_in_reach() -> None:
    (good,) = TASK.parse("step", ROOT, "18 / 3 = 6")
    (right,) = TASK.parse("io", ROOT, "2 * 15 + 7 - 18 / 3")
    (wrong,) = TASK.parse("io", ROOT, "2 * 15 + 1")
    states = [ROOT, good.state, right.state, wrong.state]
    assert [VERIFIER.promise(PROBLEM, state) for state in states] == [1, 1, 1, 0]
    assert not VERIFIER.promise(PROBLEM, Position.start((1, 2), Fraction(31)))


RIGHT = "2 * 15 + 7 - 18 / 3 = 31"
places = st.integers(0, len(RIGHT))
noise = st.text(alphabet="123578+-*/()= \n×")
spoilt = st.builds(lambda i, text, j: RIGHT[:i] + text + RIGHT[j:], places, noise, places)


@given(st.text() | noise | spoilt)
def test_nothing_raises_and_nothing_wrong_passes(text: str) -> None:
    for role in ("propose", "step", "io", "cot"):
        assert isinstance(TASK.parse(role, ROOT, text), list | ParseFailure)
    if VERIFIER.check(PROBLEM, text):
        sides = " ".join(text.replace("×", "*").split()).split("=")
        assert all(abs(eval(side) - 31) < 1e-9 for side in sides)
        used = [sorted(map(int, re.findall(r"\d+", side))) for side in sides]
        assert [2, 3, 7, 15, 18] in used
