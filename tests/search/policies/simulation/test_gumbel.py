import math

import pytest
from drawn_tree import drawing, search

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.graph import SearchGraph
from treeshare.search.policies.simulation import gumbel
from treeshare.search.policies.simulation.gumbel import (
    GumbelMCTS,
    completed_values,
    considered_visits,
    gumbel_noise,
    improved_choice,
    logit,
)


@pytest.mark.parametrize(
    ("considered", "simulations", "visits"),
    [
        # two phases of 8: four steps twice, two steps four times
        (4, 16, [0] * 4 + [1] * 4 + [2, 2, 3, 3, 4, 4, 5, 5]),
        # three phases of 2: too few for a sweep over all, which is made nevertheless
        (5, 7, [0, 0, 0, 0, 0, 1, 1]),
        (2, 5, [0, 0, 1, 1, 2]),
        (1, 4, [0, 1, 2, 3]),
        (0, 4, []),
        (16, 3, [0, 0, 0]),
    ],
)
def test_considered_visits(considered, simulations, visits):
    assert considered_visits(considered, simulations) == visits


@pytest.fixture
def family():
    """A root of value 0.4 with children a (visited twice), b (once) and c (never)."""
    graph = SearchGraph(0)
    root = graph.root
    root.value = 0.4
    a, b, c = (graph.add(root, text, text, is_terminal=False) for text in "abc")
    a.prior, b.prior, c.prior = 0.5, 0.25, 0.25
    a.visits, a.value_sum = 2, 1.2
    b.visits, b.value_sum = 1, 0.9
    return root


def test_completed_values(family):
    # (0.4 + 3 · (0.5·0.6 + 0.25·0.9) / 0.75) / 4 = (0.4 + 3·0.7) / 4
    assert completed_values(family) == pytest.approx([0.6, 0.9, 0.625])
    for child in family.children:
        child.visits = 0
    assert completed_values(family) == [0.4, 0.4, 0.4]


def test_the_transformed_values(family):
    policy = GumbelMCTS(maxvisit_init=50, value_scale=1.0)
    assert policy.transformed_values(family) == pytest.approx([52 * 0.6, 52 * 0.9, 52 * 0.625])
    rescaled = GumbelMCTS(maxvisit_init=50, value_scale=0.1, rescale=True).transformed_values(
        family
    )
    assert rescaled == pytest.approx([0.0, 5.2, 5.2 * 0.025 / 0.3])


def test_below_the_root_visits_follow_the_improved_policy(family):
    policy = GumbelMCTS(maxvisit_init=0.0, value_scale=1.0)  # σ(q) = 2q
    _, b, c = family.children
    weights = [0.5 * math.exp(1.2), 0.25 * math.exp(1.8), 0.25 * math.exp(1.25)]
    improved = [weight / sum(weights) for weight in weights]
    lead = [improved[0] - 2 / 4, improved[1] - 1 / 4, improved[2] - 0 / 4]
    assert max(lead) == lead[2]
    assert improved_choice(family, policy.transformed_values(family)) is c
    c.visits, c.value_sum = 5, 0.0
    assert improved_choice(family, policy.transformed_values(family)) is b


def test_a_prior_of_zero_has_a_finite_logit(family):
    family.children[0].prior = 0.0
    assert -1000 < logit(family.children[0]) < -700
    assert logit(family.children[1]) == math.log(0.25)


def test_the_noise_is_gumbel_and_fixed_by_the_seed(make_context):
    draws = gumbel_noise(make_context(seed=3), 4000)
    assert draws == gumbel_noise(make_context(seed=3), 4000)
    assert draws != gumbel_noise(make_context(seed=4), 4000)
    assert sum(draws) / 4000 == pytest.approx(0.5772, abs=0.1)
    assert sum(draw < 0 for draw in draws) / 4000 == pytest.approx(math.exp(-1), abs=0.03)


def test_whole_search(run, monkeypatch):
    monkeypatch.setattr(gumbel, "gumbel_noise", lambda ctx, count: [2.0, 0.0, 1.0])
    outcome = search(run, GumbelMCTS(8, max_num_considered_actions=2))
    # a and c are considered, b of highest value is not; one phase of 8
    tree = """
a #1 0.6 n=4 w=1.70
    aa #4 0.2 n=1 w=0.20
    ab #5 0.5 n=2 w=0.90
        aba #8 0.4 n=1 w=0.40 *
        abb #9 - *
b #2 -
c #3 0.4 n=4 w=2.50
    ca #6 0.7 n=3 w=2.10 *
    cb #7 -
"""
    assert drawing(outcome.graph) == tree.strip()
    assert [node.text for node in outcome.ranked] == ["ca", "aba"]


def test_terminal_nodes_below_the_winner_come_first(run, monkeypatch):
    monkeypatch.setattr(gumbel, "gumbel_noise", lambda ctx, count: [90.0, 0.0, 0.0])
    outcome = search(run, GumbelMCTS(20))
    assert [node.text for node in outcome.ranked] == ["aba", "abb", "ca", "baa"]


def test_a_sweep_is_evaluated_in_one_batch(run, Digits):
    engine = {"engine": MockEngine(score=lambda prompt, text: -float(text))}
    alone = search(run, GumbelMCTS(64), Digits(base=8, length=4), **engine)
    together = search(run, GumbelMCTS(64, batch_size=8), Digits(base=8, length=4), **engine)
    assert together.graph.root.visits == alone.graph.root.visits == 64
    assert together.rounds < alone.rounds / 2


def test_without_a_terminal_node_the_winner_is_followed(run, Digits):
    class Endless(Digits):
        def is_terminal(self, state):
            return False

    outcome = search(run, GumbelMCTS(40), Endless())
    (node,) = outcome.ranked
    most = max(step.visits for step in outcome.graph.root.children)
    assert node.depth >= 2 and node.path[1].visits == most


@pytest.mark.parametrize("policy", [GumbelMCTS(5), GumbelMCTS(5, batch_size=5)])
def test_a_root_without_steps_is_the_answer(policy, run, Digits):
    class Stuck(Digits):
        def moves(self, state):
            return []

    assert search(run, policy, Stuck()).ranked[0].depth == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GumbelMCTS(0), "num_simulations=0 must be at least 1"),
        (
            lambda: GumbelMCTS(max_num_considered_actions=0),
            "max_num_considered_actions=0 must be at least 1",
        ),
        (lambda: GumbelMCTS(gumbel_scale=-1), "gumbel_scale=-1 must be at least 0"),
        (lambda: GumbelMCTS(value_scale=-1), "value_scale=-1 must be at least 0"),
    ],
)
def test_parameters_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
