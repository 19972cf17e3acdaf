"""Sorting by parts, as in the paper's section 5.1."""

from ast import literal_eval

import pytest
from drawn_tree import Drawn

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.expanders import Choose
from treeshare.search.policies.got import GoT
from treeshare.tasks.task import ParseFailure, Step

NUMBERS = (5, 3, 8, 1, 9, 2)


class Sorting:
    """A state is a pair: numbers, and whether they were sorted, right or wrong."""

    name = "sorting"
    sampling = {role: {"max_tokens": 8} for role in ("split", "solve", "merge", "improve")}  # noqa: RUF012

    def __init__(self, numbers=NUMBERS):
        self.numbers = numbers

    def root(self, problem):
        return (self.numbers, False)

    def prompt(self, role, state):
        return (
            f"{role}\n",
            str([numbers for numbers, _ in state] if role == "merge" else state[0]),
        )

    def parse(self, role, state, text):
        lists = [tuple(map(int, line.split())) for line in text.splitlines()]
        if not lists or not all(lists):
            return ParseFailure(role, text, "no list")
        return [Step(str(numbers), (numbers, role != "split")) for numbers in lists]

    def parse_merge(self, states, text):
        parsed = self.parse("merge", None, text)
        return parsed if isinstance(parsed, ParseFailure) else parsed[0]

    def is_terminal(self, state):
        return state[1] and state[0] == tuple(sorted(self.numbers))

    def answer(self, state):
        return str(state[0])

    def moves(self, state):
        return []

    def heuristic(self, state):
        """The share of neighbours in order."""
        pairs = list(zip(state[0], state[0][1:], strict=False))
        return sum(a <= b for a, b in pairs) / max(1, len(pairs))


def model(parts, reversed_samples=(), mute=()):
    """Splits into `parts` and sorts, but returns some samples reversed; silent in some roles."""

    def reply(prompt, seed, k):
        role, _, state = prompt.partition("\n")
        lists = literal_eval(state)
        if role in mute:
            return ""
        if role == "split":
            size = len(lists) // parts
            chunks = [lists[i : i + size] for i in range(0, len(lists), size)]
        else:
            chunks = [sorted(sum(lists, ()) if role == "merge" else lists)]
            if k in reversed_samples:
                chunks[0].reverse()
        return "\n".join(" ".join(map(str, chunk)) for chunk in chunks)

    return MockEngine(reply)


@pytest.fixture
def sort(run):
    def sorted_by(policy, engine, **context):
        parts = {"task": Sorting(), "expander": Choose(), "evaluator": Heuristic()}
        outcome = run(policy, engine=engine, **parts, **context)
        assert outcome.error is None
        return outcome

    return sorted_by


@pytest.mark.parametrize(
    ("parts", "batches"),
    [
        (1, ["split 1", "solve 2"]),
        (2, ["split 1", "solve 2, solve 2", "merge 3"]),  # then the merged is terminal
        (3, ["split 1", "solve 2, solve 2, solve 2", "merge 3", "improve 4", "merge 3"]),
    ],
)
def test_parts_are_solved_together_and_merged_in_pairs(parts, batches, sort, recording):
    engine = recording(model(parts))
    outcome = sort(GoT(2, 3, 4), engine)
    assert batches == [
        ", ".join(f"{request.prefix_segments[0].strip()} {request.n}" for request in batch)
        for batch in engine.batches
    ]
    assert {node.state for node in outcome.ranked} == {(tuple(sorted(NUMBERS)), True)}


def test_the_best_goes_on(sort):
    (winner,) = sort(GoT(2, 2, 0), model(2, reversed_samples={0})).ranked
    assert winner.state == ((1, 2, 3, 5, 8, 9), True)
    assert [parent.state[0] for parent in winner.parents] == [(3, 5, 8), (1, 2, 9)]
    assert [parent.position for parent in winner.parents] == [1, 1]  # sample 0 was worse
    assert all(winner in parent.children for parent in winner.parents)


def test_a_merged_thought_is_improved(sort):
    """Of three parts the first two are merged in the wrong order, which the second try mends."""
    outcome = sort(GoT(1, 1, 2), model(3, reversed_samples={0}))
    merged = [node for node in outcome.graph if len(node.parents) == 2]
    assert merged[0].state[0] == (8, 5, 3, 1)
    assert [child.state[0] for child in merged[0].children] == [(8, 5, 3, 1), (1, 3, 5, 8)]
    assert merged[1].parents[0].state[0] == (1, 3, 5, 8)


@pytest.mark.parametrize(("role", "depth"), [("split", 0), ("solve", 1), ("merge", 2)])
def test_without_a_readable_reply_the_search_ends(role, depth, sort):
    outcome = sort(GoT(2, 2, 2), model(2, mute={role}))
    assert max(node.depth for node in outcome.graph) == depth
    assert outcome.parse_failures in (1, 2, 4)
    assert outcome.ranked


def test_the_task_must_merge(run):
    outcome = run(GoT(), task=Drawn(), expander=Choose(), evaluator=Heuristic())
    assert "needs a task that is HasMerge: task 'drawn' has no parse_merge" in str(outcome.error)
