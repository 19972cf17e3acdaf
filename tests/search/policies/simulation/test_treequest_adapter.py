"""The adapter alone, with a small algorithm of our own, and treequest's real ones if installed."""

import itertools
import random

import numpy as np
import pytest
from any_of import AnyOf

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.llm_backend.engines.replay import ReplayEngine
from treeshare.search.budget import Budget
from treeshare.search.evaluators.prompted import Heuristic, LogProb
from treeshare.search.policies.simulation.treequest_adapter import AskTell
from treeshare.search.scheduler import Scheduler

PARTS = {"evaluator": Heuristic()}


class InTurn(AnyOf):
    """Asks for a child of the newest state; ends after `stop` trials. Keeps its last state."""

    def __init__(self, stop=100):
        self.stop = stop

    def ask_batch(self, state, batch_size, actions):
        self.last = state
        state["known"] = state["known"][-1:]
        return super().ask_batch(state, min(batch_size, self.stop - len(state["results"])), actions)


def algorithms():
    treequest = pytest.importorskip("treequest", reason="needs the extra `treequest`")
    best_first = pytest.importorskip("treequest.algos.best_first_search")
    bandit = pytest.importorskip("treequest.algos.multi_armed_bandit_ucb")
    return {
        "StandardMCTS": treequest.StandardMCTS(samples_per_action=3),
        "TreeOfThoughtsBFS": treequest.TreeOfThoughtsBFSAlgo(breadth_limit=2, size_limit=3),
        "BestFirst": best_first.BestFirstSearchAlgo(num_samples=2),
        "MultiArmedBandit": bandit.MultiArmedBanditUCBAlgo(),
        "ABMCTSA": treequest.ABMCTSA(),
        "ABMCTSA-beta": treequest.ABMCTSA(dist_type="beta"),
    }


NAMES = ["StandardMCTS", "TreeOfThoughtsBFS", "BestFirst", "MultiArmedBandit", "ABMCTSA"]
NAMES += ["ABMCTSA-beta"]


@pytest.fixture(params=["AnyOf", *NAMES])
def algorithm(request):
    return AnyOf() if request.param == "AnyOf" else algorithms()[request.param]


@pytest.fixture
def digits():
    """An engine that answers 1, 2, 3, 1, ... whatever the prompt."""
    answers = itertools.cycle("123")
    return MockEngine(lambda prompt, seed, k: next(answers))


def test_children_are_told_with_their_values_to_where_they_were_drawn(run, digits):
    algorithm = InTurn()
    outcome = run(AskTell(algorithm, trials=3), engine=digits, **PARTS)
    root, *children = outcome.graph
    assert [node.text for node in children] == ["1", "2", "3"]
    assert algorithm.last["results"] == [
        (None, children[0], children[0].value),
        (children[0], children[1], children[1].value),
        (children[1], children[2], children[2].value),
    ]
    assert [node.parent for node in children] == [root, *children[:2]]


def test_a_terminal_parent_stands_in_for_its_child_and_the_model_is_not_asked(run, digits):
    algorithm = InTurn()
    outcome = run(AskTell(algorithm, trials=6), engine=digits, **PARTS)
    leaf = outcome.graph.nodes[-1]
    assert (len(outcome.graph), outcome.requests, leaf.is_terminal) == (4, 3, True)
    assert algorithm.last["results"][3:] == [(leaf, leaf, leaf.value)] * 3
    assert outcome.ranked == [leaf]


def test_a_reply_that_cannot_be_read_gives_the_parent_the_value_0(run):
    algorithm = InTurn()
    outcome = run(AskTell(algorithm, trials=2), engine=MockEngine(["what?"]), **PARTS)
    assert (outcome.parse_failures, len(outcome.graph)) == (2, 1)
    root = outcome.graph.root
    assert algorithm.last["results"] == [(None, root, 0.0), (root, root, 0.0)]


def test_trials_of_a_batch_go_out_together_and_equal_ones_stay_apart(run, recording):
    engine = recording(MockEngine(["1"]))
    outcome = run(AskTell(AnyOf(), trials=7, batch_size=3), engine=engine, **PARTS)
    assert [len(batch) for batch in engine.batches] == [3, 3, 1]
    assert len(outcome.graph) == 8


def test_ends_when_the_algorithm_asks_for_nothing(run, digits):
    assert run(AskTell(InTurn(stop=2)), engine=digits, **PARTS).requests == 2


def test_actions_are_roles(run, recording, long):
    engine = recording(by_seed())
    run(AskTell(AnyOf(), actions=["step", "cot"]), engine=engine, **long)
    assert {r.prefix_segments[0] for r in engine.requests} == {"step\n", "cot\n"}


def test_the_global_generators_are_left_as_they_were(run):
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    run(AskTell(AnyOf()), **PARTS)
    assert (random.random(), np.random.random()) == expected


def by_seed():
    return MockEngine(lambda prompt, seed, k: "123"[seed % 3])


@pytest.fixture
def long(Digits):
    return {"task": Digits(length=30), **PARTS}


@pytest.mark.parametrize("parallel", [1, 4])
def test_neighbours_and_the_state_of_the_process_change_nothing(
    algorithm, parallel, run, long, make_context, snapshot
):
    policy = AskTell(algorithm, trials=25, batch_size=parallel)
    alone = run(policy, engine=by_seed(), **long)
    assert (alone.error, len(alone.graph)) == (None, 26)
    np.random.seed(7)
    searches = [(policy, make_context(name, **long)) for name in ("a", "p", "b")]
    outcomes = {o.problem_id: o for o in Scheduler(by_seed()).run(searches)}
    assert snapshot(outcomes["p"].graph) == snapshot(alone.graph)


def test_a_resumed_search_equals_an_uninterrupted_one(
    algorithm, run, long, recording, snapshot, tmp_path
):
    policy = AskTell(algorithm, trials=20, batch_size=2)
    whole = run(policy, engine=by_seed(), **long)
    replay = ReplayEngine(tmp_path / "log", recording(by_seed(), fail_at=5))
    with pytest.raises(KeyboardInterrupt):
        run(policy, engine=replay, **long)
    replay.close()
    replay = ReplayEngine(tmp_path / "log", by_seed())
    resumed = run(policy, engine=replay, **long)
    replay.close()
    assert snapshot(resumed.graph) == snapshot(whole.graph)


def test_budgets_hold(algorithm, run, long):
    policy = AskTell(algorithm, trials=20, batch_size=3)
    for limit in (1, 2, 5):
        outcome = run(policy, engine=by_seed(), budget=Budget(nodes=limit), **long)
        assert (len(outcome.graph), outcome.budget_hit) == (limit, "nodes") and outcome.ranked
    outcome = run(policy, engine=by_seed(), budget=Budget(requests=4), **long)
    assert (outcome.requests <= 4, outcome.budget_hit) == (True, "requests") and outcome.ranked


@pytest.mark.parametrize("name", NAMES)
def test_treequest_grows_the_tree_it_grows_by_itself(name, run, digits, make_context, Digits):
    """The reference is the package's own loop over `step`, with its own generate function."""
    algorithm = algorithms()[name]
    outcome = run(AskTell(algorithm, trials=40), engine=digits, **PARTS)

    task, answers = Digits(), itertools.cycle("123")

    def generate(state):
        state = state or ("p",)
        child = state if task.is_terminal(state) else (*state, next(answers))
        return child, task.heuristic(child)

    np.random.seed(make_context().random("ask_tell").getrandbits(32))
    state = algorithm.init_tree()
    for _ in range(40):
        state = algorithm.step(state, {"step": generate}, inplace=True)
    pairs = algorithm.get_state_score_pairs(state)
    grown = [(node.state, node.value) for node in list(outcome.graph)[1:]]
    drawn = [
        pair
        for node, pair in zip(state.tree.get_nodes()[1:], pairs, strict=True)
        if node.parent.state is None or not task.is_terminal(node.parent.state)
    ]
    assert outcome.error is None
    assert grown == drawn


def test_treequest_refuses_values_outside_its_scale(run):
    outcome = run(AskTell(algorithms()["StandardMCTS"]), evaluator=LogProb())
    assert "between 0 and 1" in str(outcome.error)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AskTell(AnyOf(), trials=0), "trials=0 must be at least 1"),
        (lambda: AskTell(AnyOf(), batch_size=0), "batch_size=0 must be at least 1"),
        (lambda: AskTell(AnyOf(), actions=[]), "actions must not be empty"),
    ],
)
def test_parameters_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
