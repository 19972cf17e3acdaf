"""Whole searches of one small tree, as drawings."""

import math

import pytest
from drawn_tree import Drawn, drawing, search

from treeshare.search.policies.beam import Beam
from treeshare.search.policies.best_first import BestFirst
from treeshare.search.policies.simulation.mcts import MCTS
from treeshare.search.policies.tot import ToTBFS, ToTDFS

GOLDEN = {
    "tot_bfs": (
        ToTBFS(breadth=2),
        """
a #1 0.6
    aa #6 0.2
    ab #7 0.5
        aba #8 0.4 *
        abb #9 0.3 *
b #2 0.8
    ba #4 0.4
    bb #5 0.9
c #3 0.4
""",
        "aba abb",
    ),
    "tot_bfs_wide": (
        ToTBFS(breadth=3),
        """
a #1 0.6
    aa #6 0.2
    ab #7 0.5
        aba #10 0.4 *
        abb #11 0.3 *
b #2 0.8
    ba #4 0.4
    bb #5 0.9
c #3 0.4
    ca #8 0.7 *
    cb #9 0.3
""",
        "ca aba abb",
    ),
    "tot_dfs": (
        ToTDFS(threshold=0.2, max_leaves=3),
        """
a #1 0.6
    aa #7 0.2
    ab #8 0.5
        aba #9 0.4 *
        abb #10 0.3 *
b #2 0.8
    ba #4 0.4
        baa #6 0.5 *
    bb #5 0.9
c #3 0.4
""",
        "baa aba abb",
    ),
    "beam": (
        Beam(width=2, aggregate="sum"),
        """
a #1 0.6
    aa #6 0.2
    ab #7 0.5
b #2 0.8
    ba #4 0.4
        baa #8 0.5 *
    bb #5 0.9
c #3 0.4
""",
        "baa",
    ),
    "best_first": (
        BestFirst(expansions=6, leaves=3),
        """
a #1 0.6
    aa #6 0.2
    ab #7 0.5
        aba #8 0.4 *
        abb #9 0.3 *
b #2 0.8
    ba #4 0.4
        baa #10 0.5 *
    bb #5 0.9
c #3 0.4
""",
        "baa aba abb",
    ),
    "mcts_uct": (
        MCTS(12, selection="uct", c=math.sqrt(2)),
        """
a #1 0.6 n=4 w=1.70
    aa #6 0.2 n=1 w=0.20
    ab #7 0.5 n=2 w=0.90
        aba #10 0.4 n=1 w=0.40 *
        abb #11 - *
b #2 0.8 n=4 w=2.10
    ba #4 0.4 n=1 w=0.40
    bb #5 0.9 n=2 w=0.90
c #3 0.4 n=4 w=2.10
    ca #8 0.7 n=2 w=1.40 *
    cb #9 0.3 n=1 w=0.30
""",
        "ca aba",
    ),
    "mcts_puct": (
        MCTS(12),
        """
a #1 0.6 n=2 w=0.80
    aa #6 0.2 n=1 w=0.20
    ab #7 -
b #2 0.8 n=5 w=2.60
    ba #4 0.4 n=2 w=0.90
        baa #10 0.5 n=1 w=0.50 *
    bb #5 0.9 n=2 w=0.90
c #3 0.4 n=5 w=2.80
    ca #8 0.7 n=3 w=2.10 *
    cb #9 0.3 n=1 w=0.30
""",
        "ca baa",
    ),
    "mcts_puct_parallel": (
        MCTS(12, batch_size=3, c=0.5, first_play_urgency=0),
        """
a #1 0.6 n=4 w=2.60
    aa #6 0.2 n=3 w=2.00
        aaa #11 0.9 n=2 w=1.80 *
    ab #7 -
b #2 0.8 n=4 w=2.20
    ba #4 0.4 n=3 w=1.40
        baa #10 0.5 n=2 w=1.00 *
    bb #5 -
c #3 0.4 n=4 w=2.50
    ca #8 0.7 n=3 w=2.10 *
    cb #9 -
""",
        "aaa ca baa",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_whole_search(name, run):
    policy, tree, ranking = GOLDEN[name]
    outcome = search(run, policy, Drawn())
    assert drawing(outcome.graph) == tree.strip()
    assert [node.text for node in outcome.ranked] == ranking.split()


FINISHES_EARLY = """
a 0.5
    aa 0.9 *
    ab 0.4
        aba 0.3
            abaa 0.1 *
        abb 0.3
            abba 0.8 *
b 0.2
"""


@pytest.mark.parametrize(
    ("policy", "ranking"),
    [
        (Beam(width=2, depth=4, aggregate="last"), "aa abaa"),  # aa holds abb's place
        (ToTBFS(breadth=2, depth=4), "aa abba"),
        (ToTBFS(breadth=3, depth=4), "aa abba abaa"),
        (Beam(width=2, depth=3, aggregate="last"), "aa"),
        (Beam(width=3, depth=4, aggregate="sum"), "abba aa abaa"),  # 2.0, 1.4, 1.3
    ],
)
def test_a_terminal_node_met_early_is_not_lost(policy, ranking, run):
    outcome = search(run, policy, Drawn(FINISHES_EARLY))
    assert [node.text for node in outcome.ranked] == ranking.split()


@pytest.mark.parametrize(
    ("policy", "ranking"),
    [
        (ToTDFS(depth=4), "aa"),
        (ToTDFS(depth=4, max_leaves=None), "aa abba abaa"),
        (ToTDFS(depth=4, max_leaves=None, width=1), "aa"),
        (ToTDFS(depth=4, max_leaves=None, threshold=0.4), "aa"),
        (ToTDFS(depth=1, max_leaves=None), "a b"),  # nothing reached: the deepest by value
        (ToTDFS(depth=4, max_leaves=1, threshold=0.5), "a"),
    ],
)
def test_depth_first_prunes_and_backtracks(policy, ranking, run):
    outcome = search(run, policy, Drawn(FINISHES_EARLY))
    assert [node.text for node in outcome.ranked] == ranking.split()


@pytest.mark.parametrize(
    ("tree", "made", "ranking"),
    [
        # x is terminal, but no better than what is open
        ("a 0.5\n    ab 0.4\n        abc 0.9 *\nx 0.1 *", " a x ab abc", "abc"),
        # of equal nodes the deeper one comes first
        ("a 0.5\n    ab 0.5\n        abc 0.5 *\nb 0.5\n    ba 0.5 *", " a b ab abc", "abc"),
    ],
)
def test_best_first_takes_the_best_open_node_and_of_equal_ones_the_deeper(tree, made, ranking, run):
    outcome = search(run, BestFirst(), Drawn(tree))
    assert [node.text for node in outcome.graph] == made.split(" ")
    assert [node.text for node in outcome.ranked] == [ranking]


def test_best_first_expands_several_nodes_together(run):
    outcome = search(run, BestFirst(width=2, expansions=4, leaves=9), Drawn())
    # the root; then b and a; then bb and, for it is the last, nothing with it
    assert [node.text for node in outcome.graph if node.children] == ["", "a", "b"]
    assert outcome.rounds == 2
