"""reasoning-gym's data sets as tasks, and our own verifiers against its scorers."""

from __future__ import annotations

import random
import re
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeshare.tasks.arithmetic.countdown import CountdownVerifier, Puzzle
from treeshare.tasks.arithmetic.game24 import Game24, Game24Verifier
from treeshare.tasks.arithmetic.rules import Position, operations, solve
from treeshare.tasks.graph_of_thoughts.sorting import SortingVerifier
from treeshare.tasks.math.answers import are_same
from treeshare.tasks.reasoning_gym.task import ReasoningGym, ReasoningGymVerifier
from treeshare.tasks.task import HasGrades, HasValues, ParseFailure, Problem, Task
from treeshare.tasks.verifiers import verifier_of

MISSING = "needs the extra `reasoning-gym`"


@pytest.fixture(scope="module")
def gym():
    return pytest.importorskip("reasoning_gym", reason=MISSING)


@pytest.fixture(scope="module")
def pair(gym):
    name = "prime_factorization"
    return ReasoningGym(name, limit=1), ReasoningGymVerifier(name, limit=1)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    for make in (ReasoningGym, ReasoningGymVerifier):
        with pytest.raises(ImportError, match=r'needs `pip install "treeshare\[reasoning-gym\]"`'):
            make("countdown")


@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        ("countdown", {"min_numbers": 3, "max_numbers": 3}),
        ("mini_sudoku", {}),  # its answers have several lines
    ],
)
def test_a_data_set_is_a_task(gym, dataset, options):
    task = ReasoningGym(dataset, options=options, limit=3, seed=5)
    verifier = verifier_of(task)
    assert isinstance(verifier, ReasoningGymVerifier)
    assert vars(verifier).keys() >= {"dataset", "options", "limit", "seed", "seconds"}
    assert isinstance(task, Task) and isinstance(task, HasValues)
    assert isinstance(verifier, HasGrades)
    problems = task.problems()
    assert [problem.id for problem in problems] == [
        f"reasoning_gym/{dataset}/{i}" for i in range(3)
    ]
    entries = gym.create_dataset(dataset, seed=5, size=5_000, **options)
    assert entries[0]["answer"] not in map(str, vars(task).values())
    for problem, entry in zip(problems, (entries[i] for i in range(3)), strict=True):
        root = task.root(problem)
        assert verifier.promise(problem, root) == 1 and verifier.grades(problem, root)["score"] == 0
        (io,) = task.parse("io", root, f"\n{entry['answer']}\n")
        (cot,) = task.parse("cot", root, f"I think <answer>0</answer><answer>{entry['answer']}")
        assert io.state == cot.state and task.is_terminal(io.state)
        assert verifier.check(problem, task.answer(io.state))
        assert verifier.grades(problem, io.state) == {"score": 1.0}
        (wrong,) = task.parse("io", root, "no idea")
        assert not verifier.check(problem, "no idea")
        assert (
            verifier.promise(problem, wrong.state)
            == 0
            <= verifier.grades(problem, wrong.state)["score"]
            < 1
        )


def test_replies_and_prompts(pair):
    task = pair[0]
    root = task.root(task.problems()[0])
    assert task.parse("cot", root, "5") == ParseFailure("cot", "5", "no <answer>")
    assert task.parse("io", root, "<answer> </answer>") == ParseFailure(
        "io", "<answer> </answer>", "empty answer"
    )
    (step,) = task.parse("io", root, "5")
    assert task.prompt("value", step.state)[2:] == ("<answer>5</answer>\n", "Verdict:")
    for role in ("io", "cot", "step"):
        first, question, _ = task.prompt(role, root)
        assert first.endswith("\n\n") and root.question.strip() in question
    assert task.parse_value(root, "Sure.") == 1.0
    assert isinstance(task.parse_value(root, "surely"), ParseFailure)
    with pytest.raises(ValueError, match="role='propose' must be one of io, cot, step, value"):
        task.prompt("propose", root)
    with pytest.raises(ValueError, match="role='propose' must be one of io, cot, step"):
        task.parse("propose", root, "5")


def test_a_step_is_a_paragraph_or_the_answer(pair):
    task = pair[0]
    root = task.root(task.problems()[0])
    (first,) = task.parse("step", root, "\nTwo and two\nare four.")
    (second,) = task.parse("step", first.state, "So it is 4.")
    assert first.text == "Two and two\nare four." and not task.is_terminal(second.state)
    assert task.prompt("step", second.state)[3:] == (
        "Two and two\nare four.\n\n",
        "So it is 4.\n\n",
    )
    assert task.prompt("step", second.state)[:4] == task.prompt("step", first.state)
    assert task.prompt("value", first.state)[2:] == (
        "Reasoning:\n",
        "Two and two\nare four.\n\n",
        "Verdict:",
    )
    (last,) = task.parse("step", second.state, "That is <answer>4")
    assert task.is_terminal(last.state) and task.answer(last.state) == "4"
    assert task.parse("step", root, " \n") == ParseFailure("step", " \n", "empty reply")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dataset": "nothing"}, ValueError, "nothing"),
        ({"dataset": "countdown", "options": {"colour": 1}}, TypeError, "colour"),
        ({"dataset": "countdown", "options": {"min_numbers": 1}}, ValueError, "min_numbers"),
        ({"dataset": "countdown", "limit": 0}, ValueError, "limit=0 must be at least 1"),
        (
            {"dataset": "countdown", "limit": 5_001},
            ValueError,
            "limit=5001 must be at most 5000",
        ),
        ({"dataset": "composite"}, ValueError, "dataset='composite' is not supported"),
    ],
)
def test_arguments_out_of_bound_are_refused(gym, arguments, error, message):
    with pytest.raises(error, match=message) as info:
        ReasoningGym(**arguments)
    assert "\n" not in str(info.value)


@given(st.text(st.characters(), max_size=50))  # lone surrogates too
def test_nothing_raises(pair, text):
    task, verifier = pair
    (problem,) = task.problems()
    for role in ("io", "cot", "step"):
        assert isinstance(task.parse(role, task.root(problem), text), list | ParseFailure)
    verifier.check(problem, text)


def expressions(rng, numbers, target, count):
    """Yield random expressions of the numbers, and a right one if there is any."""
    for _ in range(count):
        state = Position.start(numbers, target)
        while not state.is_final:
            i, sign, j = rng.choice(list(operations(len(state.numbers))))
            state = state.step(i, sign, j) or state
        yield state.numbers[0].expression
    final = solve(Position.start(numbers, target))
    if final is not None:
        right = final.numbers[0].expression
        yield from (right, f"{right} + 1", f"({right})", f"2 * ({right}) / 2", right[:-1])


def test_countdown_is_judged_as_there(gym):
    entries = gym.create_dataset("countdown", seed=1, size=8, max_numbers=5, max_value=20)
    rng, verifier, num_right = random.Random(0), CountdownVerifier(), 0
    for entry in entries:
        numbers, target = entry["metadata"]["numbers"], entry["metadata"]["target"]
        puzzle = Puzzle(tuple(sorted(numbers)), target)
        answers = list(expressions(rng, puzzle.numbers, Fraction(target), 12))
        for answer in [*answers, entry["answer"].replace("**", "^"), "", "1 +", str(target)]:
            is_right = entries.score_answer(answer, entry) == 1.0
            assert verifier.check(Problem("", puzzle), answer) == is_right, answer
            num_right += is_right
    assert num_right >= 24


def test_game24_is_judged_as_there_but_for_the_numbers_used(gym):
    """Its scorer does not check which numbers an answer uses, and accepts 24 1/2 as 24."""
    entries = gym.create_dataset("puzzle24", seed=1, size=1, min_value=1, max_value=10)
    rng, verifier, num_right = random.Random(0), Game24Verifier(), 0
    problems = [problem for problem in Game24().problems() if max(problem.data) <= 10]
    for problem in problems[:5]:
        for answer in expressions(rng, problem.data, Fraction(24), 8):
            is_right = entries.score_answer(answer, entries[0]) == 1.0
            used = sorted(map(int, re.findall("[0-9]+", answer)))
            exact = abs(eval(answer) - 24) < 1e-9 if is_right else False
            assert verifier.check(problem, answer) == (exact and used == sorted(problem.data))
            num_right += exact
    assert num_right >= 10


def test_sorting_is_judged_as_there(gym):
    """Its scorer allows each number to be wrong by 1, so the near misses here are by more."""
    entries = gym.create_dataset(
        "number_sorting", seed=1, size=20, max_decimals=0, min_value=0, max_value=99
    )
    judged = 0
    for entry in entries:
        if entry["metadata"]["direction"] == "ascending":
            numbers = [int(float(text)) for text in entry["metadata"]["original_numbers"]]
            right = sorted(numbers)
            for answer in (right, right[1:], [*right, 99], right[::-1], [right[0] + 2, *right[1:]]):
                is_right = entries.score_answer(str(answer), entry) == 1.0
                assert SortingVerifier().check(Problem("", tuple(numbers)), str(answer)) == is_right
                judged += is_right
    assert judged >= 5


def test_word_problems_are_judged_as_there(gym):
    entries = gym.create_dataset("gsm_symbolic", seed=1, size=10)
    for entry in entries:
        right = entry["answer"]
        for answer in (right, f"{right}.0", f"{right} apples", f"1{right}", f"{right}.5", "none"):
            assert are_same(answer, right) == (entries.score_answer(answer, entry) == 1.0)
