"""Whole searches of one small tree, as drawings."""

import pytest

from treeshare.llm_backend.mock import MockEngine
from treeshare.search.beam import Beam
from treeshare.search.best_first import BestFirst
from treeshare.search.evaluators import Heuristic
from treeshare.search.expanders import Choose
from treeshare.search.mcts import MCTS
from treeshare.search.tot import ToTBFS, ToTDFS
from treeshare.tasks.task import Step

# The whole tree: a step, its value, and * if it ends the problem. bb is a dead end.
TREE = """
a 0.6
    aa 0.2
        aaa 0.9 *
    ab 0.5
        aba 0.4 *
        abb 0.3 *
b 0.8
    ba 0.4
        baa 0.5 *
    bb 0.9
c 0.4
    ca 0.7 *
    cb 0.3
        cba 0.8 *
"""


class Drawn:
    """Such a tree as a task; a state is a node's name."""

    name = "drawn"
    sampling = {}  # noqa: RUF012

    def __init__(self, tree=TREE):
        lines = [line.split() for line in tree.strip().splitlines()]
        self.values = {name: float(value) for name, value, *_ in lines}
        self.terminal = {name for name, _, *star in lines if star}

    def root(self, problem):
        return ""

    def prompt(self, role, state):
        return (role, state)

    def is_terminal(self, state):
        return state in self.terminal

    def answer(self, state):
        return state

    def moves(self, state):
        return [Step(n, n) for n in self.values if n.startswith(state) and len(n) == len(state) + 1]

    def heuristic(self, state):
        return self.values[state]


def drawing(graph):
    """The tree that was searched: per node its order of creation, value and visits."""
    lines = []
    nodes = graph.root.children[::-1]
    while nodes:
        node = nodes.pop()
        visits = f" n={node.visits} w={node.value_sum:.1f}" if node.visits else ""
        star = " *" if node.is_terminal else ""
        value = "-" if node.value is None else f"{node.value:.1f}"
        lines.append(f"{'    ' * (node.depth - 1)}{node.text} #{node.id} {value}{visits}{star}")
        nodes += node.children[::-1]
    return "\n".join(lines)


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
    bb #5 0.9
c #3 0.4
    ca #10 0.7 *
    cb #11 0.3
""",
        "ca aba abb",
    ),
    "mcts": (
        MCTS(12),
        """
a #1 0.6 n=4 w=1.7
    aa #6 0.2 n=1 w=0.2
    ab #7 0.5 n=2 w=0.9
        aba #10 0.4 n=1 w=0.4 *
        abb #11 - *
b #2 0.8 n=4 w=2.1
    ba #4 0.4 n=1 w=0.4
    bb #5 0.9 n=2 w=0.9
c #3 0.4 n=4 w=2.1
    ca #8 0.7 n=2 w=1.4 *
    cb #9 0.3 n=1 w=0.3
""",
        "ca aba",
    ),
    "mcts_parallel": (
        MCTS(12, parallel=3, selection="puct", c=0.5),
        """
a #1 0.6 n=4 w=2.6
    aa #6 0.2 n=3 w=2.0
        aaa #11 0.9 n=2 w=1.8 *
    ab #7 -
b #2 0.8 n=4 w=2.2
    ba #4 0.4 n=3 w=1.4
        baa #10 0.5 n=2 w=1.0 *
    bb #5 -
c #3 0.4 n=4 w=2.5
    ca #8 0.7 n=3 w=2.1 *
    cb #9 -
""",
        "aaa ca baa",
    ),
}


def search(run, policy, task):
    outcome = run(
        policy,
        engine=MockEngine(score=lambda prompt, text: -1.0),
        task=task,
        expander=Choose(),
        evaluator=Heuristic(),
    )
    assert outcome.error is None
    return outcome


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


def test_best_first_expands_several_nodes_together(run):
    outcome = search(run, BestFirst(width=2, expansions=4, leaves=9), Drawn())
    # the root; then b and a; then bb and, for it is the last, nothing with it
    assert [node.text for node in outcome.graph if node.children] == ["", "a", "b"]
    assert outcome.rounds == 2
