"""The operations that the variants of Monte-Carlo tree search share, on small graphs."""

import pytest

from treeshare.search.graph import SearchGraph
from treeshare.search.policies.simulation.mcts import MCTS
from treeshare.search.policies.simulation.tree_operations import (
    backup,
    batches,
    most_visited,
    select,
)


@pytest.mark.parametrize(
    ("num_simulations", "batch_size", "sizes"),
    [(5, 1, [1, 1, 1, 1, 1]), (5, 2, [2, 2, 1]), (4, 2, [2, 2]), (3, 8, [3]), (0, 4, [])],
)
def test_batches_hold_every_simulation_once(num_simulations, batch_size, sizes):
    found = list(batches(num_simulations, batch_size))
    assert [len(batch) for batch in found] == sizes
    assert [index for batch in found for index in batch] == list(range(num_simulations))


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
    policy = MCTS(selection=selection)
    assert policy.best_child(root) is a
    a.prior, b.prior, c.prior = 0.2, 0.4, 0.4
    assert policy.best_child(root) is b


def test_missing_priors_are_uniform(family):
    root, a, b, c, _ = family
    root.visits = 9
    a.visits, b.visits, c.visits = 4, 4, 1
    a.value_sum, b.value_sum, c.value_sum = 2.0, 2.4, 0.1
    # 0.5 + 1/3·3/5, 0.6 + 1/3·3/5, 0.1 + 1/3·3/2
    assert MCTS(c=1.0).best_child(root) is b
    assert MCTS(c=2.0).best_child(root) is c


def test_select_and_backup(family):
    root, a, b, c, d = family
    root.visits, a.visits, c.visits = 2, 1, 1
    path = select(root, MCTS(selection="uct").best_child)
    assert path == [root, b, d]
    backup(path, 0.5)
    backup(path, 0.25)
    assert [node.value_sum for node in (root, a, b, c, d)] == [0.75, 0, 0.75, 0, 0.75]
    assert [node.visits for node in path] == [2, 0, 0]


def test_most_visited_ties_go_to_the_earlier_child(family):
    root, _, b, c, d = family
    assert most_visited(root) is root
    b.visits, c.visits, d.visits = 2, 2, 1
    assert most_visited(root) is d
