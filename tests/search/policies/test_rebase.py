import math

import pytest
from drawn_tree import Drawn, drawing, search
from hypothesis import given
from hypothesis import strategies as st

from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.expanders import Sample
from treeshare.search.policies.rebase import REBASE, balanced_counts


@pytest.mark.parametrize(
    ("values", "total", "temperature", "counts"),
    [
        # ⌈4 / (1 + e^-0.2 + e^-0.4)⌉ = ⌈1.61⌉ = 2; of 2 left ⌈2 / (1 + e^-0.2)⌉ = ⌈1.10⌉ = 2
        ([0.6, 0.8, 0.4], 4, 1.0, [2, 2, 0]),
        # ⌈4 / (1 + e^-1 + e^-2)⌉ = ⌈2.66⌉ = 3; of 1 left ⌈1 / (1 + e^-1)⌉ = 1
        ([0.6, 0.8, 0.4], 4, 0.2, [1, 3, 0]),
        ([0.3, 0.3, 0.3], 6, 0.2, [2, 2, 2]),  # equal, and exact
        ([0.3, 0.3, 0.3], 7, 0.2, [3, 2, 2]),  # ⌈7/3⌉, ⌈4/2⌉
        ([0.3, 0.3, 0.3], 2, 0.2, [1, 1, 0]),
        ([-2000.0, 0.0], 5, 0.2, [0, 5]),
        ([0.0], 5, 0.2, [5]),
    ],
)
def test_balanced_counts(values, total, temperature, counts):
    assert balanced_counts(values, total, temperature) == counts


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12),
    st.integers(0, 300),
    st.floats(1e-3, 1e3),
)
def test_the_total_is_kept_and_a_better_node_gets_as_much(values, total, temperature):
    counts = balanced_counts(values, total, temperature)
    assert sum(counts) == total and min(counts) >= 0
    shares = [math.exp((value - max(values)) / temperature) for value in values]
    for count, share in zip(counts, shares, strict=True):
        assert abs(count - total * share / sum(shares)) < len(values)


def test_whole_search(run):
    outcome = search(run, REBASE(width=4, temperature=1.0), Drawn())
    # 2, 2, 0 as above; then by value bb 2, ab 1, ba 1, aa 0
    assert (
        drawing(outcome.graph)
        == """
a #1 0.6
    aa #4 0.2
    ab #5 0.5
        aba #8 0.4 *
        abb #9 0.3 *
b #2 0.8
    ba #6 0.4
        baa #10 0.5 *
    bb #7 0.9
c #3 0.4
""".strip()
    )
    assert [node.text for node in outcome.ranked] == ["baa", "aba", "abb"]
    assert outcome.rounds == 3


@pytest.mark.parametrize("problem", [f"p{i}" for i in range(8)])
def test_the_budget_shrinks_by_the_finished(problem, run, recording):
    engine = recording()
    outcome = run(
        REBASE(width=8), problem=problem, engine=engine, expander=Sample(), evaluator=Heuristic()
    )
    finished = [
        sum(node.is_terminal for node in outcome.graph if node.depth == depth)
        for depth in range(len(engine.batches))
    ]
    asked = [sum(request.n for request in batch) for batch in engine.batches]
    assert asked == [8 - sum(finished[: depth + 1]) for depth in range(len(asked))]
    assert asked[0] == 8 and len(asked) > 1


def test_depth_ends_the_search(run):
    outcome = search(run, REBASE(depth=2), Drawn())
    assert max(node.depth for node in outcome.graph) == 2
    assert outcome.ranked[0].text == "ca"
