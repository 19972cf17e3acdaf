"""Sorting and set intersection: errors as the paper counts them, replies, and Graph of Thoughts."""

from __future__ import annotations

import re
from ast import literal_eval
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.budget import Budget
from treeshare.search.context import Context
from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.expanders import Sample
from treeshare.search.policies.got import GoT
from treeshare.search.policies.tot import ToTBFS
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.graph_of_thoughts import set_intersection, sorting
from treeshare.tasks.graph_of_thoughts.merging import list_to_text, read_answer, read_lists
from treeshare.tasks.graph_of_thoughts.set_intersection import (
    SetIntersection,
    SetIntersectionVerifier,
    Sets,
)
from treeshare.tasks.graph_of_thoughts.sorting import Sorting, SortingVerifier
from treeshare.tasks.task import HasHeuristic, HasMerge, ParseFailure, Problem, Step, Task

SORTING = Sorting(size=8, part_size=4, limit=3)
SETS = SetIntersection(size=8, part_size=4, limit=3)
TASKS = pytest.mark.parametrize("task", [SORTING, SETS], ids=lambda task: task.name)
VERIFIERS = {"sorting": SortingVerifier(), "set_intersection": SetIntersectionVerifier()}


def right_answer(problem):
    if problem.id.startswith("sorting"):
        return sorted(problem.data)
    return [number for number in problem.data.second if number in problem.data.first]


def perfect(prompt):
    """Return the reply of a model without errors to a prompt of either task."""
    *_, last = prompt.rstrip().split("\n\n")
    lists = [literal_eval(text) for text in re.findall(r"\[.*?\]", last)]
    label = last.rpartition("\n")[2]
    if label == "Part 1:":
        size = int(last.split()[2])
        parts = [lists[0][i : i + size] for i in range(0, len(lists[0]), size)]
        return "\n".join(f"Part {i}: {part}" for i, part in enumerate(parts, start=1))
    if "Set 1" in last:
        return f" {[number for number in lists[1] if number in lists[0]]}"
    if "Wrong:" in last:
        return f" {sorted(lists[0])}"
    joined = [number for numbers in lists for number in numbers]
    return f" {sorted(joined) if 'sorted' in prompt.lower() else joined}"


def careless(prompt, seed, k):
    """Return a reply, of which sample 0 lacks the last number of each list except for a split."""
    reply = perfect(prompt)
    if k or "Part 1:" in reply:
        return reply
    return re.sub(r"(, )?[0-9]+\]", "]", reply)


def search(policy, task, reply):
    problem = task.problems()[0]
    context = Context(task, problem, Sample(), Heuristic(), budget=Budget())
    (outcome,) = Scheduler(MockEngine(reply)).run([(policy, context)])
    assert outcome.error is None
    return problem, outcome


@TASKS
def test_is_a_task_that_can_be_merged(task):
    assert all(isinstance(task, protocol) for protocol in (Task, HasMerge, HasHeuristic))


@TASKS
def test_graph_of_thoughts_solves_it_with_a_careless_model(task):
    problem, outcome = search(GoT(num_samples=2, merges=2, improvements=1), task, careless)
    best = outcome.ranked[0]
    assert len(best.parents) == 2 and best.is_terminal
    assert VERIFIERS[task.name].grades(problem, best.state) == {"score": 1.0}
    assert VERIFIERS[task.name].grades(problem, best.parents[0].state) == {"score": 0.0}
    assert VERIFIERS[task.name].check(problem, task.answer(best.state))
    assert read_answer(task.answer(best.state)) == tuple(right_answer(problem))


@TASKS
def test_what_was_merged_wrong_is_improved(task):
    def wrong_merge(prompt, seed, k):
        return " [1]" if prompt.endswith("Merged:") else perfect(prompt)

    problem, outcome = search(GoT(num_samples=1, merges=1, improvements=1), task, wrong_merge)
    best = outcome.ranked[0]
    assert best.parents[0].state.result == (1,)  # the merged thought
    assert VERIFIERS[task.name].check(problem, task.answer(best.state))


@TASKS
def test_without_improvement_a_wrong_result_is_no_answer(task):
    _, outcome = search(GoT(num_samples=1, merges=1, improvements=0), task, lambda *_: "[1]")
    assert outcome.parse_failures == 1  # the split
    assert task.answer(outcome.ranked[0].state) is None
    root = task.root(task.problems()[0])
    (wrong,) = task.parse("io", root, "[1]")
    (grade,) = VERIFIERS[task.name].grades(task.problems()[0], wrong.state).values()
    assert grade == task.heuristic(wrong.state) < 1


@TASKS
def test_tree_of_thoughts_solves_and_then_mends_the_whole(task):
    def wrong_at_first(prompt, seed, k):
        return perfect(prompt) if "Wrong: [1]" in prompt else " [1]"

    problem, outcome = search(ToTBFS(breadth=1, num_samples=2, depth=2), task, wrong_at_first)
    best = outcome.ranked[0]
    assert best.depth == 2 and VERIFIERS[task.name].check(problem, task.answer(best.state))


@TASKS
@pytest.mark.parametrize("role", ["io", "cot"])
def test_a_whole_answer_is_taken_right_or_wrong(task, role):
    root = task.root(task.problems()[0])
    (step,) = task.parse(role, root, "first [1, 2]\nAnswer: [3,1 , 2]")
    assert task.is_terminal(step.state) and task.answer(step.state) == "[3, 1, 2]" == step.text
    assert 0 <= task.heuristic(step.state) < 1


@TASKS
def test_examples_in_the_prompts_are_what_a_perfect_model_says(task):
    for role in ("solve", "cot", "merge", "improve", "split"):
        text = task.templates.preamble(role)
        examples = re.sub(r"Reasoning: .*\n", "", text).strip().split("\n\n")[1:]
        assert len(examples) >= 2
        for example in examples:
            first, *rest = example.split("\n")
            shown = [first] if role == "split" else [first, *rest[:-1]]
            label, reply = example.removeprefix("\n".join(shown) + "\n").split(":", 1)
            assert perfect(text + "\n".join([*shown, f"{label}:"])).strip() in (
                reply.strip(),
                f"{label}:{reply}",  # of a split, several lines
            )


@TASKS
def test_prompts_begin_with_their_constant_part_and_show_the_lists(task):
    root = task.root(task.problems()[0])
    (solved,) = task.parse("solve", root, "[1, 2]")
    states = {"merge": (solved.state, solved.state), "improve": solved.state}
    for role in task.sampling:
        first, *rest = task.prompt(role, states.get(role, root))
        assert first.endswith("\n\n") and all(s.endswith("\n") for s in rest[:-1])
        assert not rest[-1].endswith((" ", "\n"))
        assert ("[1, 2]" if role in states else list_to_text(root.part)) in "".join(rest)
    assert task.prompt("step", root) == task.prompt("solve", root)
    assert task.prompt("step", solved.state) == task.prompt("improve", solved.state)
    with pytest.raises(ValueError, match="role='vote' must be one of solve, merge, improve, step"):
        task.prompt("vote", root)
    with pytest.raises(ValueError, match="role='merge' must be one of split, solve, step"):
        task.parse("merge", root, "[1]")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no list", "no list such as `[1, 2, 3]`"),
        ("[1, 2, x]", "no list such as `[1, 2, 3]`"),
        ("[1, 2][3]", "the parts do not hold the numbers given"),
        ("[3, 1, 9, 3] [7, 5, 5, 5]", "the parts do not hold the numbers given"),
        ("[3, 1, 9, 3] [7, 5, 5] [4] []", "the parts do not hold the numbers given"),
    ],
)
def test_a_split_must_keep_the_numbers(text, reason):
    root = SORTING.root(Problem("", (3, 1, 9, 3, 7, 5, 5, 4)))
    assert SORTING.parse("split", root, text) == ParseFailure("split", text, reason)
    parts = SORTING.parse("split", root, " [3, 1, 9]\nPart 2: [3, 7]\n[5, 5, 4]")
    assert [step.state.part for step in parts] == [(3, 1, 9), (3, 7), (5, 5, 4)]
    assert not any(step.state.is_whole or SORTING.is_terminal(step.state) for step in parts)


def test_a_merge_is_of_all_the_parts():
    root = SORTING.root(Problem("", (3, 1, 2, 0)))
    left, right = (step.state for step in SORTING.parse("split", root, "[3, 1] [2, 0]"))
    merged = SORTING.parse_merge((left, right), "Merged: [0, 1, 2, 3]")
    assert isinstance(merged, Step) and merged.state.part == (3, 1, 2, 0)
    assert merged.state.is_whole and SORTING.is_terminal(merged.state)
    assert SORTING.parse_merge((left, right), "?") == ParseFailure(
        "merge", "?", "no list such as `[1, 2, 3]`"
    )


def test_errors_of_sorting_are_the_papers():
    assert sorting.count_errors((3, 1, 2), (1, 2, 3)) == 0
    assert sorting.count_errors((3, 1, 2), (3, 1, 2)) == 1  # one neighbour out of order
    assert sorting.count_errors((3, 1, 2), (1, 2)) == 1  # one too few
    assert sorting.count_errors((3, 1, 2), (1, 2, 2)) == 2  # a 3 too few, a 2 too many
    assert sorting.count_errors((3, 1, 2), (3, 2, 1, 1)) == 3
    assert sorting.count_errors((3, 1, 2), ()) == 3


def test_no_errors_is_the_same_as_right_by_brute_force():
    given = (2, 0, 2)
    sets = Sets((0, 1, 2), (2, 3, 0))
    for length in range(5):
        for result in product(range(4), repeat=length):
            answer = list_to_text(result)
            is_right = result == (0, 2, 2)
            assert (sorting.count_errors(given, result) == 0) == is_right
            assert SortingVerifier().check(Problem("", given), answer) == is_right
            is_right = length == 2 and set(result) == {0, 2}
            assert (set_intersection.count_errors(sets, result) == 0) == is_right
            assert SetIntersectionVerifier().check(Problem("", sets), answer) == is_right


@TASKS
@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1],
        lambda text: text[1:],
        lambda text: f"{text} {text}",
        lambda text: f"{text}, 1",
        lambda text: text.replace(",", ";"),
        lambda text: text.replace("[", "[-"),
        lambda text: text.replace("]", ".0]"),
        lambda text: f"[{text}]",
        lambda text: text.replace("[", "[0"),
        lambda text: "",
        lambda text: "[" * 10**5,
        lambda text: "[" + " " * 10**5,
    ],
)
def test_near_misses_are_wrong(task, spoil):
    problem = task.problems()[0]
    answer = list_to_text(right_answer(problem))
    verifier = VERIFIERS[task.name]
    assert verifier.check(problem, answer) and verifier.check(problem, f" {answer}\n")
    assert not verifier.check(problem, spoil(answer))


def test_problems_are_repeatable_and_the_sets_have_no_repetitions():
    for make in (Sorting, SetIntersection):
        first = make(size=16, limit=5, seed=3).problems()
        assert first == make(size=16, limit=9, seed=3).problems()[:5]
        assert first[0].data != make(size=16, limit=1, seed=4).problems()[0].data
        assert len({problem.id for problem in first}) == 5
    assert first[0].id == "set_intersection/16-seed3/0"
    for problem in SetIntersection(size=32, limit=50).problems():
        for numbers in problem.data:
            assert len(set(numbers)) == 32 and min(numbers) >= 0 and max(numbers) < 64
        assert 8 <= len(right_answer(problem)) <= 24


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Sorting, {"size": 1}, "size=1 must be at least 2"),
        (Sorting, {"part_size": 33}, "part_size=33 must be from 1 to size=32"),
        (Sorting, {"largest": 0}, "largest=0 must be at least 1"),
        (Sorting, {"largest": 10_000}, "largest=10000 must be at most 9999"),
        (SetIntersection, {"size": 5001}, "size=5001 must be at most 5000"),
        (Sorting, {"sampling": {"vote": {}}}, "sampling: role 'vote' must be one of solve, .*"),
    ],
)
def test_arguments_out_of_bound_are_refused(make, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(**arguments)


def test_lists_are_read_from_anything():
    assert read_lists("[1,2] and [ 3 , 4 ] [] [1, 2,] [12345] [01] [٣]") == [(1, 2), (3, 4), ()]
    assert read_lists("[1,\u00a02,\u200b 3] ［４，\u30005］") == [(1, 2, 3), (4, 5)]
    assert read_answer("\ufeff[1,\u20092]\u00a0\n") == (1, 2)


@given(st.text() | st.text(alphabet="[]0123, \nPart:"))
def test_nothing_raises(text):
    for task in (SORTING, SETS):
        problem = task.problems()[0]
        root = task.root(problem)
        for role in ("split", "solve", "improve", "step", "io", "cot"):
            parsed = task.parse(role, root, text)
            for step in parsed if isinstance(parsed, list) else ():
                assert step.state.result is None or 0 <= task.heuristic(step.state) <= 1
        task.parse_merge((root, root), text)
        if VERIFIERS[task.name].check(problem, text):
            assert sorted(literal_eval(text.strip())) == sorted(right_answer(problem))
