"""Against mctx: the same visits on the same trees, Gumbel MCTS and PUCT."""

import random
from importlib.util import find_spec

import pytest
from mctx_reference import Table, mctx_visits, raw_values

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.context import Context
from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.expanders import Choose
from treeshare.search.policies.simulation import gumbel
from treeshare.search.policies.simulation.gumbel import GumbelMCTS
from treeshare.search.policies.simulation.mcts import MCTS
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.task import Problem

needs_mctx = pytest.mark.skipif(find_spec("mctx") is None, reason="mctx is not installed")


def visits(policy, table, root_visits=0):
    ctx = Context(table, Problem("p", None), Choose(), Heuristic())
    ctx.root.visits = root_visits
    (outcome,) = Scheduler(MockEngine(score=table.score)).run([(policy, ctx)])
    assert outcome.error is None
    return {node.state: node.visits for node in outcome.graph if node.visits}


def gumbel_visits(table, noise, monkeypatch, *parameters, **more):
    def given(ctx, count):
        return [noise[int(step.text)] for step in ctx.root.children]

    monkeypatch.setattr(gumbel, "gumbel_noise", given)
    found = visits(GumbelMCTS(*parameters, **more), table)
    return found | {(): found[()] + 1}  # mctx counts the root's own evaluation


# (logits, values, value of the root, noise) of bandits, and mctx's visits by (simulations,
# c_scale, rescale). Made with `mctx_visits` by mctx 0.0.71, jax 0.10.2, 64-bit floats.
BANDITS = [
    (
        ([0.3, -0.2, 0.9, -1.1], [0.55, 0.7, 0.35, 0.9], 0.5),
        [0.4, 1.3, -0.6, 0.8],
        {
            (8, 1.0, False): [1, 3, 1, 3],
            (16, 0.1, True): [2, 6, 2, 6],
            (50, 1.0, False): [6, 19, 6, 19],
        },
    ),
    (
        ([1.2, 0.0, -0.4, 0.6, -0.9, 0.1], [0.2, 0.45, 0.65, 0.3, 0.8, 0.5], 0.4),
        [-0.3, 2.1, 0.7, 0.2, 1.5, -0.8],
        {
            (8, 1.0, False): [1, 1, 2, 1, 2, 1],
            (8, 0.1, True): [1, 2, 1, 1, 2, 1],
            (16, 1.0, False): [1, 2, 5, 1, 6, 1],
            (16, 0.1, False): [1, 5, 2, 1, 6, 1],
            (50, 0.1, True): [2, 7, 18, 2, 19, 2],
            (50, 0.1, False): [2, 18, 7, 2, 19, 2],
        },
    ),
]


@pytest.mark.parametrize(
    ("bandit", "noise", "settings", "expected"),
    [(b, g, s, e) for b, g, table in BANDITS for s, e in table.items()],
)
def test_bandits_get_the_visits_mctx_gave(bandit, noise, settings, expected, monkeypatch):
    simulations, c_scale, rescale = settings
    found = gumbel_visits(
        Table.bandit(*bandit), noise, monkeypatch, simulations, value_scale=c_scale, rescale=rescale
    )
    assert [found.get((i,), 0) for i in range(len(noise))] == expected


# Visits by state of `Table.drawn(1, steps=3, depth=3)`, 40 simulations, made likewise.
GUMBEL_TREE = {
    "": 41,
    "0": 17, "01": 1, "02": 15, "020": 13, "021": 1,
    "1": 17, "10": 2, "101": 1, "11": 1, "12": 13, "121": 11, "122": 1,
    "2": 6, "21": 1, "22": 4, "220": 3,
}  # fmt: skip
PUCT_TREE = {
    "": 41,
    "1": 36, "10": 4, "101": 3, "11": 31, "110": 22, "111": 7, "112": 1,
    "2": 4, "21": 3, "210": 2,
}  # fmt: skip


def by_text(found):
    return {"".join(map(str, state)): count for state, count in found.items()}


def test_a_tree_gets_the_visits_mctx_gave(monkeypatch):
    table = Table.drawn(1, 3, 3)
    more = {"value_scale": 0.1, "rescale": True}
    found = gumbel_visits(table, [0.1, 0.5, -0.2], monkeypatch, 40, **more)
    assert by_text(found) == GUMBEL_TREE
    # mctx counts the root's own evaluation in N, which MCTS does not make
    policy = MCTS(40, selection="puct", c=1.25, first_play_urgency=0)
    puct = visits(policy, table, root_visits=1)
    assert by_text(puct) == PUCT_TREE


@pytest.mark.parametrize("parallel", [2, 3, 16])
@pytest.mark.parametrize("simulations", [7, 16, 50])
def test_candidates_evaluated_together_get_as_many_visits(simulations, parallel, monkeypatch):
    (bandit, noise, _) = BANDITS[1]
    table = Table.bandit(*bandit)
    alone = gumbel_visits(table, noise, monkeypatch, simulations)
    together = gumbel_visits(table, noise, monkeypatch, simulations, parallel)
    assert sorted(together.values()) == sorted(alone.values())


SHAPES = [(2, 4), (3, 3), (6, 2), (17, 1)]


@needs_mctx
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize(("steps", "depth"), SHAPES)
@pytest.mark.filterwarnings("default")
def test_gumbel_against_mctx_itself(steps, depth, rescale, monkeypatch):
    import functools

    import mctx

    c_scale = 0.1 if rescale else 1.0
    transform = functools.partial(
        mctx.qtransform_completed_by_mix_value, value_scale=c_scale, rescale_values=rescale
    )
    tables = [Table.drawn(seed, steps, depth) for seed in range(20)]
    draw = random.Random(steps)
    noise = [[3 * draw.random() - 1 for _ in range(steps)] for _ in tables]
    for simulations in (5, 33, 64):
        more = {"value_scale": c_scale, "rescale": rescale}
        expected = mctx_visits(tables, simulations, noise=noise, qtransform=transform)
        for table, g, visits_by_state in zip(tables, noise, expected, strict=True):
            found = gumbel_visits(table, g, monkeypatch, simulations, **more)
            assert found == visits_by_state


@needs_mctx
@pytest.mark.parametrize("c", [0.5, 1.25])
@pytest.mark.parametrize(("steps", "depth"), SHAPES)
@pytest.mark.filterwarnings("default")
def test_puct_against_mctx_itself(steps, depth, c):
    constant = {"pb_c_base": 1e12, "qtransform": raw_values}  # c does not grow with N
    tables = [Table.drawn(seed, steps, depth) for seed in range(20)]
    expected = mctx_visits(tables, 60, pb_c_init=c, **constant)
    for table, visits_by_state in zip(tables, expected, strict=True):
        policy = MCTS(60, selection="puct", c=c, first_play_urgency=0)
        found = visits(policy, table, root_visits=1)
        assert found == visits_by_state
