import math

import pytest

from treeshare.search.aggregation import path_score, rank_answers, rank_finished
from treeshare.search.graph import SearchGraph

VALUED = [("3", 0.5), ("10", 0.9), ("20", 0.3), ("10", 0.2), ("20", 0.7), ("30", 1.0), ("20", 0.1)]


@pytest.fixture
def solutions(make_context):
    """Below the root: digits with their values; the first is no finished solution."""
    ctx = make_context()
    for digits, value in VALUED:
        state = ("p", *digits)
        is_terminal = ctx.task.is_terminal(state)
        ctx.graph.add(ctx.root, digits, state, is_terminal=is_terminal).value = value
    return ctx


@pytest.mark.parametrize(
    ("rule", "ranking"),
    [
        ("majority", [5, 2, 6]),  # 3, 2 and 1 votes
        ("weighted", [2, 5, 6]),  # 0.9 + 0.2 = 0.3 + 0.7 + 0.1, seen later; 1.0
        ("best", [6, 2, 5]),  # 1.0, 0.9, 0.7
    ],
)
def test_one_node_stands_for_each_answer(rule, ranking, solutions):
    ranked = rank_answers(solutions, solutions.root.children, rule)
    assert [node.id for node in ranked] == ranking
    assert rank_finished(solutions, rule) == ranked


def test_a_node_listed_twice_votes_twice(solutions):
    first, second = solutions.graph.nodes[6], solutions.graph.nodes[2]
    assert rank_answers(solutions, [second, first, first], "majority") == [first, second]
    assert rank_answers(solutions, [first, second, second], "weighted") == [second, first]


def test_nodes_without_a_score(solutions):
    nodes = solutions.graph.nodes
    nodes[5].value = None
    assert rank_answers(solutions, nodes, "weighted")[0] is nodes[2]  # 1.1, 1.0, 0.4
    assert rank_answers(solutions, nodes, "majority")[0] is nodes[3]  # but it votes
    assert rank_finished(solutions, "majority")[0] is nodes[2]  # not where others have one
    for node in nodes:
        node.value = None
    assert rank_finished(solutions, "majority")[0] is nodes[3]
    assert rank_finished(solutions, "best") == [nodes[2], nodes[3], nodes[6]]


def test_without_an_answer_the_default_ranking(make_context):
    ctx = make_context()
    a = ctx.graph.add(ctx.root, "1", ("p", "1"), is_terminal=False)
    b = ctx.graph.add(ctx.root, "2", ("p", "2"), is_terminal=False)
    b.value = 0.5
    assert rank_answers(ctx, [a, b], "majority") == []
    assert rank_finished(ctx, "majority", lambda node: path_score(node, "last")) == [b, a]


def test_votes_for_equal_answers_are_counted_together(make_context, solutions):
    class Ends(type(solutions.task)):
        """Answers are the same if they end in the same digit."""

        def answer_keys(self, answers):
            return [answer[-1] for answer in answers]

    plain, ctx = make_context(), make_context(task=Ends())
    for context in (plain, ctx):
        for digits in ("20", "20", "311", "321", "331"):
            state = ("p", *digits)
            context.graph.add(context.root, digits, state, is_terminal=True).value = 0.5
    assert [node.id for node in rank_answers(ctx, ctx.root.children, "majority")] == [3, 1]
    assert [node.id for node in rank_answers(ctx, ctx.root.children, "weighted")] == [3, 1]
    assert rank_answers(plain, plain.root.children, "majority")[0].id == 1


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
