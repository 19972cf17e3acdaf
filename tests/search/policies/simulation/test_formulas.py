"""Formulas against values worked by hand."""

import math

import pytest

from treeshare.search.graph import SearchGraph
from treeshare.search.policies.beam import path_score
from treeshare.search.policies.simulation.mcts import (
    backup,
    best_child,
    puct_score,
    select,
    uct_score,
)


def test_uct_score():
    # 3/4 + 1·√(ln 16 / 4) = 0.75 + √0.693147 = 0.75 + 0.832555
    assert uct_score(3.0, 4, 16, 1.0) == pytest.approx(1.582555, abs=1e-6)
    assert uct_score(3.0, 4, 16, 0.0) == 0.75
    assert uct_score(0.5, 1, 1, 5.0) == 0.5
    assert uct_score(0.0, 0, 16, 1.0) == math.inf


def test_puct_score():
    # 3/4 + 2·0.3·√25 / (1 + 4) = 0.75 + 0.6
    assert puct_score(3.0, 4, 25, 0.3, 2.0) == pytest.approx(1.35)
    # unvisited: 0 + 2·0.3·√25 / 1
    assert puct_score(0.0, 0, 25, 0.3, 2.0) == pytest.approx(3.0)


@pytest.fixture
def family():
    """A root with children a, b, c, and d below b."""
    graph = SearchGraph(0)
    children = [graph.add(graph.root, text, text, is_terminal=False) for text in "abc"]
    graph.add(children[1], "d", "d", is_terminal=True)
    return graph


@pytest.mark.parametrize("selection", ["uct", "puct"])
def test_ties_go_to_the_higher_prior_then_to_the_earlier_child(selection, family):
    root, a, b, c, _ = family
    assert best_child(root, selection, 1.0) is a
    a.prior, b.prior, c.prior = 0.2, 0.4, 0.4
    assert best_child(root, selection, 1.0) is b


def test_missing_priors_are_uniform(family):
    root, a, b, c, _ = family
    root.visits = 9
    a.visits, b.visits, c.visits = 4, 4, 1
    a.value_sum, b.value_sum, c.value_sum = 2.0, 2.4, 0.1
    # 0.5 + 1/3·3/5, 0.6 + 1/3·3/5, 0.1 + 1/3·3/2
    assert best_child(root, "puct", 1.0) is b
    assert best_child(root, "puct", 2.0) is c


def test_select_and_backup(family):
    root, a, b, c, d = family
    root.visits, a.visits, c.visits = 2, 1, 1
    path = select(root, lambda parent: best_child(parent, "uct", 1.0))
    assert path == [root, b, d]
    backup(path, 0.5)
    backup(path, 0.25)
    assert [node.value_sum for node in (root, a, b, c, d)] == [0.75, 0, 0.75, 0, 0.75]
    assert [node.visits for node in path] == [2, 0, 0]


@pytest.mark.parametrize(
    ("aggregate", "score"),
    [("sum", 1.4), ("last", 0.4), ("min", 0.2), ("prod", 0.8 * 0.2 * 0.4), ("mean", 1.4 / 3)],
)
def test_path_score(aggregate, score):
    graph = SearchGraph(0)
    node = graph.root
    for value in (0.8, 0.2, 0.4):
        node = graph.add(node, "", value, is_terminal=False)
        node.value = value
    assert path_score(node, aggregate) == pytest.approx(score)
    unvalued = graph.add(node, "", None, is_terminal=False)
    assert path_score(unvalued, aggregate) == -math.inf
    assert path_score(graph.root, aggregate) == -math.inf
