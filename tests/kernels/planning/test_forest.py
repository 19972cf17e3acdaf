"""Depth-first order of forests against a recursive one, and input that a forest refuses."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from trees import SHAPES, make_tree, node_lists

from treeshare.kernels.planning.forest import Forest, stable_order


def recursive_order(nodes):
    """Find (lo, hi, end) of each node by recursion."""
    found = [None] * len(nodes)
    count = 0

    def visit(node, above):
        nonlocal count
        _, length, num_queries = nodes[node]
        lo, end = count, above + length
        count += num_queries
        for child, (parent, _, _) in enumerate(nodes):
            if parent == node:
                visit(child, end)
        found[node] = (lo, count, end)

    for root, (parent, _, _) in enumerate(nodes):
        if parent < 0:
            visit(root, 0)
    return found


def packed(nodes):
    return Forest.packed(*np.array(nodes).reshape(-1, 3).T)


@pytest.mark.parametrize("shape", SHAPES)
def test_depth_first_of_shapes(shape):
    nodes = SHAPES[shape]
    assert list(zip(*packed(nodes).depth_first(), strict=True)) == recursive_order(nodes)


@settings(max_examples=200, deadline=None)
@given(node_lists(max_nodes=40))
def test_depth_first_of_random_forests(nodes):
    assert list(zip(*packed(nodes).depth_first(), strict=True)) == recursive_order(nodes)


def test_depth_first_of_a_long_chain():
    nodes = [(i - 1, 1, i % 2) for i in range(1001)]
    lo, hi, end = packed(nodes).depth_first()
    assert lo.tolist() == [i // 2 for i in range(1001)]
    assert set(hi.tolist()) == {500}
    assert end.tolist() == list(range(1, 1002))


def test_depth_first_does_not_depend_on_the_order_of_unrelated_nodes():
    """Two trees are given node by node in turn, and one after the other."""
    in_turn = [(-1, 5, 0), (-1, 7, 1), (0, 2, 1), (1, 3, 2), (0, 4, 1), (1, 1, 1)]
    apart = [(-1, 5, 0), (0, 2, 1), (0, 4, 1), (-1, 7, 1), (3, 3, 2), (3, 1, 1)]
    a, b = packed(in_turn).depth_first(), packed(apart).depth_first()
    to = [0, 2, 4, 1, 3, 5]
    for column, expected in zip(a, b, strict=True):
        assert column[to].tolist() == expected.tolist()


def test_nodes_without_queries_have_empty_intervals():
    lo, hi, _ = packed(SHAPES["dead_branch"]).depth_first()
    assert (hi - lo).tolist() == [1, 0, 1, 0, 0]


def test_packed_entries_follow_one_another():
    forest = Forest.packed([-1, 0, 0], [5, 0, 3], [0, 1, 1])
    assert forest.start.tolist() == [0, 5, 5]


@pytest.mark.parametrize("top", [100, 1 << 16, 1 << 40], ids=["16bit", "17bit", "41bit"])
def test_stable_order(top):
    keys = np.random.default_rng(0).integers(0, 7, 1001) * (top // 7)
    order = stable_order(keys).tolist()
    assert order == sorted(range(1001), key=lambda i: (keys[i], i))


def test_stable_order_of_nothing():
    assert stable_order(np.empty(0, dtype=np.int64)).tolist() == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([], [], [], []), "a forest of no nodes"),
        (([-1, 0], [1], [0, 1], [0, 1]), "length has 1 entries, parent has 2"),
        (([-1, 0], [1, 1], [1], [0, 1]), "num_queries has 1 entries, parent has 2"),
        (([-1, 0], [1, 1], [0, 1], [0, 1, 2]), "start has 3 entries, parent has 2"),
        (([-1, 0], [1, -4], [0, 0], [0, 1]), "length[1]=-4 is negative"),
        (([-1, 0], [1, 1], [-2, 0], [0, 1]), "num_queries[0]=-2 is negative"),
        (([-1, 0], [1, 1], [0, 1], [0, -7]), "start[1]=-7 is negative"),
        (([-1, 1], [1, 1], [0, 1], [0, 1]), "parent[1]=1 must be -1 or lie before 1"),
        (([2, -1, 0], [1, 1, 1], [0, 0, 1], [0, 1, 2]), "parent[0]=2 must be -1 or lie before 0"),
        (([-1, -3], [1, 1], [0, 1], [0, 1]), "parent[1]=-3 must be -1 or lie before 1"),
        (([-1, 0], [4, 2], [0, 3], [0, 4]), "node 1 has 3 queries and only 2 entries"),
    ],
    ids=[
        "nothing",
        "lengths",
        "queries",
        "starts",
        "negative_length",
        "negative_queries",
        "negative_start",
        "own_parent",
        "later_parent",
        "parent_below",
        "more_queries_than_entries",
    ],
)
def test_refuses(columns, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Forest(*map(np.array, columns))


def test_empty_node_may_have_queries():
    tree = make_tree([(-1, 3, 0), (0, 0, 2)], seed=0)
    assert [len(path) for path in tree.paths] == [3, 3]
