import math
import random

import pytest
from drawn_tree import drawing, search

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.policies.astar import AStar, cost_to_go


def logprob(prompt, text):
    return -3 * random.Random(f"{prompt} -> {text}").random()


def least_costs(task, state, cost):
    """Cost to go of every state below, by trying all paths; ∞ where none ends the problem."""
    if task.is_terminal(state):
        return {state: 0.0}
    prompt = "".join(task.prompt("choose", state))
    costs, least = {}, math.inf
    for move in task.moves(state):
        costs |= least_costs(task, move.state, cost)
        step = 1.0 if cost == "step" else -logprob(prompt, move.text)
        least = min(least, step + costs[move.state])
    return costs | {state: least}


def total_cost(node, cost):
    return node.depth if cost == "step" else -sum(step.logprob for step in node.path[1:])


class Guide:
    """Values whose cost to go is `share` of the true one."""

    def __init__(self, costs, share):
        self.costs = costs
        self.share = share

    async def evaluate(self, ctx, nodes):
        return [math.exp(-self.share * min(13.0, self.costs[node.state])) for node in nodes]


def test_cost_to_go():
    assert cost_to_go(1.0) == 0.0
    assert cost_to_go(0.5) == pytest.approx(math.log(2))
    assert cost_to_go(1.5) == 0.0
    assert cost_to_go(0.0) == cost_to_go(-3.0) == pytest.approx(13.815511)


def test_whole_search(run):
    outcome = search(run, AStar())
    # f: b 1 + 0.22, a 1 + 0.51, c 1 + 0.92, bb 2 + 0.11, ca 2 + 0.36, ab 2 + 0.69
    tree = """
a #1 0.6
    aa #6 0.2
    ab #7 0.5
b #2 0.8
    ba #4 0.4
    bb #5 0.9
c #3 0.4
    ca #8 0.7 *
    cb #9 0.3
"""
    assert drawing(outcome.graph) == tree.strip()
    assert [node.text for node in outcome.ranked] == ["ca"]
    assert (
        outcome.requests == 4
    )  # the root, b, a and c: bb is found to be a dead end without asking


def test_nodes_expanded_together_share_a_batch_and_the_outcome(run):
    alone, together = search(run, AStar()), search(run, AStar(width=3))
    assert drawing(together.graph) == drawing(alone.graph)
    assert (alone.rounds, together.rounds) == (4, 2)


def test_out_of_expansions_the_deepest_open_node_of_least_f_leads(run):
    outcome = search(run, AStar(expansions=2))
    assert [node.text for node in outcome.ranked] == ["bb", "ba"]


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("cost", ["step", "logprob"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_heuristic_that_never_overestimates_finds_the_cheapest_path(
    share, cost, width, run, RandomTree
):
    task = RandomTree(length=4)
    costs = least_costs(task, ("p",), cost)
    outcome = search(
        run,
        AStar(width=width, cost=cost, expansions=1000),
        task,
        engine=MockEngine(score=logprob),
        evaluator=Guide(costs, share),
    )
    assert total_cost(outcome.ranked[0], cost) == pytest.approx(costs["p",])
    if share == 1.0 and width == 1:  # a perfect one goes straight there
        expanded = {node for node in outcome.graph if node.children}
        assert expanded == set(outcome.ranked[0].path[:-1])


def test_weight_0_is_uniform_cost_search(run, RandomTree):
    task = RandomTree(length=4)
    engine = MockEngine(score=logprob)
    policy = AStar(cost="logprob", weight=0.0, expansions=1000)
    outcome = search(run, policy, task, engine=engine)
    costs = least_costs(task, ("p",), "logprob")
    assert total_cost(outcome.ranked[0], "logprob") == pytest.approx(costs["p",])
    limit = total_cost(outcome.ranked[0], "logprob")
    assert all(total_cost(n, "logprob") <= limit for n in outcome.graph if n.children)


def test_a_step_without_log_probability_has_no_cost(run):
    outcome = run(AStar(cost="logprob"))  # the expander is Propose
    assert isinstance(outcome.error, ValueError)
    assert "has no log-probability" in str(outcome.error)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AStar(width=0), "width=0 must be at least 1"),
        (lambda: AStar(weight=-1), "weight=-1 must be at least 0"),
        (lambda: AStar(cost="time"), "cost='time' must be one of step, logprob"),
    ],
)
def test_parameters_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
