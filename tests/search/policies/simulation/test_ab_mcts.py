from random import Random
from statistics import fmean, pvariance

import pytest
from drawn_tree import Drawn, drawing, search

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.evaluators.prompted import Heuristic, LogProb
from treeshare.search.expanders import Sample
from treeshare.search.graph import SearchGraph
from treeshare.search.policies.simulation.ab_mcts import (
    ABMCTS,
    Arm,
    Belief,
    arms,
    beta_posterior,
    draw_beta,
    draw_gaussian,
    exhaust,
    gaussian_posterior,
    node_to_widen,
)

TWO = Arm(2, 0.8 + 0.4, 0.64 + 0.16)


def test_gaussian_posterior():
    assert gaussian_posterior(Arm()) == (0.0, 1.0, 1.0, 0.1)
    # n = 2, mean 0.6, Σ(r - 0.6)² = 0.08: (0.1 + 0.08 + 2/3·0.36) / 3 = 0.42 / 3
    assert gaussian_posterior(TWO) == pytest.approx((0.4, 3, 3, 0.14))
    # m = 1: 2/3·0.16 = 0.106667; (2·0.2 + 0.08 + 0.106667·...) with κ = 4: 8/6·0.16 = 0.213333
    assert gaussian_posterior(TWO, 1.0, 4.0, 2.0, 0.2) == pytest.approx(
        (5.2 / 6, 6, 4, (0.4 + 0.08 + 0.2133333) / 4)
    )


def test_beta_posterior():
    assert beta_posterior(Arm()) == (0.5, 0.5)
    assert beta_posterior(TWO) == pytest.approx((1.7, 1.3))


def test_draws_have_the_posterior_s_moments():
    many = Arm(20, 12.0, 8.0)
    draw = Random(0)
    m, kappa, nu, tau2 = gaussian_posterior(many)
    drawn = [draw_gaussian(draw, many) for _ in range(20_000)]
    assert fmean(drawn) == pytest.approx(m, abs=0.01)
    assert pvariance(drawn) == pytest.approx(tau2 / kappa * nu / (nu - 2), rel=0.05)  # Student's t
    a, b = beta_posterior(many)
    drawn = [draw_beta(draw, many) for _ in range(20_000)]
    assert fmean(drawn) == pytest.approx(a / (a + b), abs=0.01)
    assert pvariance(drawn) == pytest.approx(a * b / (a + b) ** 2 / (a + b + 1), rel=0.05)


@pytest.fixture
def family():
    """A root with children a, b, c, and d below b."""
    graph = SearchGraph("")
    nodes = {"": graph.root}
    for parent, name in [("", "a"), ("", "b"), ("", "c"), ("b", "d")]:
        nodes[name] = graph.add(nodes[parent], name, name, is_terminal=False)
    return nodes, {node: Belief() for node in nodes.values()}


def test_a_score_is_observed_by_gen_once_and_by_cont_and_child_on_the_way(family):
    nodes, beliefs = family
    root, b = beliefs[nodes[""]], beliefs[nodes["b"]]
    assert arms(nodes[""], beliefs) == [root.gen] and arms(nodes[""], beliefs)[0] is root.gen
    d = beliefs[nodes["d"]]
    observing = arms(nodes["d"], beliefs)
    assert [id(arm) for arm in observing] == list(
        map(id, (d.gen, root.cont, b.child, b.cont, d.child))
    )


def test_select_follows_the_highest_draw(family):
    nodes, beliefs = family
    root, b = beliefs[nodes[""]], beliefs[nodes["b"]]

    def selected(**draws):
        values = {
            id(root.gen): draws.get("gen", 0.0),
            id(root.cont): draws.get("cont", 0.0),
            id(b.child): draws.get("b", 0.0),
            id(b.cont): draws.get("b_cont", 0.0),
        }
        return node_to_widen(nodes[""], beliefs, lambda arm: values.get(id(arm), 0.1)).text

    assert selected(gen=0.5, cont=0.4) == ""
    assert selected() == ""  # a tie widens
    assert selected(cont=0.4) == "a"  # of equal children the first; without children, GEN
    assert selected(cont=0.4, b=0.2) == "b"
    assert selected(cont=0.4, b=0.2, b_cont=0.2) == "d"
    exhaust(nodes["a"], beliefs)
    assert selected(cont=0.4) == "c"  # a is closed
    exhaust(nodes["b"], beliefs)
    assert not b.is_closed and selected(cont=0.4, b=0.2) == "d"
    exhaust(nodes["d"], beliefs)
    assert b.is_closed and selected(cont=0.4, b=0.2) == "c"
    exhaust(nodes[""], beliefs)
    exhaust(nodes["c"], beliefs)
    assert root.is_closed


@pytest.mark.parametrize("posterior", ["gaussian", "beta"])
@pytest.mark.parametrize("parallel", [1, 3, 8])
def test_visits_are_conserved(parallel, posterior, run):
    policy = ABMCTS(40, parallel, posterior)
    outcome = run(policy, expander=Sample(), evaluator=Heuristic())
    assert outcome.error is None
    for node in outcome.graph:
        family = [below for below in outcome.graph if node in below.path and below.depth]
        assert node.visits == len(family)
        assert node.value_sum == pytest.approx(sum(below.value for below in family))
    assert len(outcome.graph) > 10


def test_parallel_simulations_share_a_batch_and_a_request(run, recording):
    engine = recording()
    run(ABMCTS(12, batch_size=4), engine=engine, expander=Sample(), evaluator=Heuristic())
    asked = [sum(request.n for request in batch) for batch in engine.batches]
    assert asked == [4, 4, 4]
    assert len(engine.batches[0]) == 1  # at first all four meet at the root


def test_a_simulation_in_flight_counts_as_zero():
    known, in_flight = Arm(4, 2.4, 1.6), Arm(5, 2.4, 1.6)
    assert gaussian_posterior(in_flight) == gaussian_posterior(Arm(5, 2.4 + 0.0, 1.6 + 0.0**2))
    assert gaussian_posterior(in_flight)[0] < gaussian_posterior(known)[0]
    assert beta_posterior(in_flight) == (2.9, 3.1)


@pytest.mark.parametrize("patience", [1, 3])
def test_gen_is_exhausted(patience, run, recording):
    """Of one legal step a node the tree is a line; every other call finds nothing new."""
    engine = recording(MockEngine(["0"]))
    outcome = run(
        ABMCTS(patience=patience), engine=engine, expander=Sample(), evaluator=Heuristic()
    )
    assert len(outcome.graph) == 2
    assert len(engine.requests) == 1 + patience


def test_nothing_readable(run):
    outcome = run(ABMCTS(), engine=MockEngine(["?"]), expander=Sample())
    assert outcome.ranked == [outcome.graph.root]
    assert outcome.requests == 3


def test_beta_wants_values_from_0_to_1(run):
    outcome = run(ABMCTS(posterior="beta"), expander=Sample(), evaluator=LogProb())
    assert "posterior='beta' needs values in [0, 1], and node 1" in str(outcome.error)


def test_one_value_above_1_is_refused_though_the_sum_would_do(run):
    class Mostly:
        async def evaluate(self, ctx, nodes):
            return [1.5 if node.id == 4 else 0.1 for node in nodes]

    outcome = run(ABMCTS(posterior="beta"), expander=Sample(), evaluator=Mostly())
    assert "node 4" in str(outcome.error) and "has 1.5" in str(outcome.error)


def test_whole_search(run):
    outcome = search(run, ABMCTS(7), Drawn())
    assert drawing(outcome.graph) == GOLDEN.strip()


GOLDEN = """
a #1 0.6 n=3 w=1.30
    aa #9 0.2 n=1 w=0.20
    ab #10 0.5 n=1 w=0.50
b #2 0.8 n=4 w=2.60
    ba #4 0.4 n=2 w=0.90
        baa #11 0.5 n=1 w=0.50 *
    bb #5 0.9 n=1 w=0.90
c #3 0.4 n=4 w=2.20
    ca #6 0.7 n=1 w=0.70 *
    cb #7 0.3 n=2 w=1.10
        cba #8 0.8 n=1 w=0.80 *
"""


def test_the_whole_tree_ends_the_search(run):
    outcome = search(run, ABMCTS(), Drawn())
    assert len(outcome.graph) == 15
    assert [node.text for node in outcome.ranked] == ["aaa", "cba", "ca", "baa", "aba", "abb"]
    assert outcome.requests == 8  # each node that has children once, the root included
