"""What every policy promises, whatever it does."""

import inspect
from collections import Counter

import pytest
from any_of import AnyOf

from treeshare.llm_backend.engines.replay import ReplayEngine
from treeshare.search.budget import Budget
from treeshare.search.evaluators.prompted import Heuristic, LogProb, ValuePrompt, Vote
from treeshare.search.evaluators.reward_models import OutcomeReward, ProcessReward
from treeshare.search.expanders import Choose, Propose, Sample
from treeshare.search.policies import catalog
from treeshare.search.policies.astar import AStar
from treeshare.search.policies.beam import Beam
from treeshare.search.policies.best_first import BestFirst
from treeshare.search.policies.dvts import DVTS
from treeshare.search.policies.got import GoT
from treeshare.search.policies.one_shot import (
    IO,
    BestOfN,
    CoT,
    SelfConsistency,
    WeightedSelfConsistency,
)
from treeshare.search.policies.particle import ParticleFilter
from treeshare.search.policies.rebase import REBASE
from treeshare.search.policies.self_refine import SelfRefine
from treeshare.search.policies.simulation.ab_mcts import ABMCTS
from treeshare.search.policies.simulation.gumbel import GumbelMCTS
from treeshare.search.policies.simulation.lats import LATS
from treeshare.search.policies.simulation.mcts import MCTS
from treeshare.search.policies.simulation.rap import RAP
from treeshare.search.policies.simulation.treequest_adapter import AskTell
from treeshare.search.policies.tot import ToTBFS, ToTDFS
from treeshare.search.scheduler import Scheduler

POLICIES = {
    "io": IO(),
    "cot": CoT(),
    "self_consistency": SelfConsistency(6),
    "weighted_self_consistency": WeightedSelfConsistency(6),
    "best_of_n": BestOfN(6),
    "tot_bfs": ToTBFS(breadth=3, num_samples=2),
    "tot_dfs": ToTDFS(num_samples=2, width=2, max_leaves=3),
    "tot_dfs_all": ToTDFS(max_leaves=None),
    "beam": Beam(width=3, num_samples=2),
    "beam_min": Beam(width=2, aggregate="min"),
    "best_first": BestFirst(num_samples=2, expansions=8, leaves=3),
    "best_first_wide": BestFirst(width=3, expansions=7, leaves=5),
    "astar": AStar(num_samples=2, width=2, expansions=8),
    "rap": RAP(8, num_samples=2),
    "rap_parallel": RAP(9, batch_size=4, num_samples=2),
    "lats": LATS(8, num_samples=2, threshold=0.9),
    "lats_parallel": LATS(9, batch_size=4, num_samples=2, threshold=1.0),
    "gumbel": GumbelMCTS(15, num_samples=2),
    "gumbel_parallel": GumbelMCTS(16, batch_size=4, num_samples=2, max_num_considered_actions=4),
    "mcts_uct": MCTS(15, selection="uct"),
    "mcts_uct_parallel": MCTS(16, batch_size=5, num_samples=2, selection="uct"),
    "mcts_puct": MCTS(15, selection="puct", c=1.25),
    "mcts_puct_parallel": MCTS(16, batch_size=16, selection="puct", depth=2),
    "dvts": DVTS(subtrees=2, num_samples=3, answers="best"),
    "rebase": REBASE(width=6, answers="best"),
    "particle": ParticleFilter(6),
    "particle_systematic": ParticleFilter(5, resampling="systematic", resample_finished=False),
    "ab_mcts": ABMCTS(12),
    "ab_mcts_parallel": ABMCTS(12, batch_size=4, patience=1, depth=3),
    "self_refine": SelfRefine(3, role="io"),
    "got": GoT(3, 3, 2),
    "ask_tell": AskTell(AnyOf(), trials=10),
    "ask_tell_parallel": AskTell(AnyOf(), trials=11, batch_size=4),
}

PARTS = {
    "propose-value": {"expander": Propose(), "evaluator": ValuePrompt()},
    "sample-vote": {"expander": Sample(), "evaluator": Vote(3)},
    "choose-score": {"expander": Choose(3), "evaluator": ValuePrompt(mode="score")},
    "sample-logprob": {"expander": Sample(), "evaluator": LogProb()},
    "sample-process": {"expander": Sample(), "evaluator": ProcessReward()},
    "choose-outcome": {"expander": Choose(2), "evaluator": OutcomeReward()},
    "choose-heuristic": {"expander": Choose(), "evaluator": Heuristic()},
}

WITH_DEPTH = [
    policy for policy in catalog.POLICIES if "depth" in inspect.signature(policy).parameters
]

# Every policy meets one set of parts, the one with the most ways to go wrong: sampled proposals and
# sampled verdicts, both of which may be unreadable. Every other set meets two policies, and those
# policies that treat it in a way of their own.
PAIRS = [
    *((policy, "propose-value") for policy in POLICIES),
    *(
        (policy, parts)
        for parts in PARTS
        if parts != "propose-value"
        for policy in ("tot_bfs", "mcts_puct_parallel")
    ),
    ("weighted_self_consistency", "sample-vote"),
    ("tot_dfs_all", "sample-vote"),
    ("rebase", "choose-score"),
    ("beam", "sample-logprob"),
    ("particle", "sample-logprob"),
    ("lats_parallel", "sample-process"),
    ("gumbel_parallel", "choose-outcome"),
    ("ab_mcts_parallel", "choose-heuristic"),
    ("dvts", "choose-heuristic"),
]

# The others rank terminal nodes by their own value.
RANKED_BY_PATH = (AStar, Beam, GumbelMCTS, ParticleFilter, RAP)


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request):
    """The names of a policy and of its parts."""
    return request.param


@pytest.fixture
def policy(pair):
    return POLICIES[pair[0]]


@pytest.fixture
def parts(pair):
    return PARTS[pair[1]]


@pytest.fixture(scope="module")
def whole(pair, run, recording):
    """The search without limits: its outcome and its engine."""
    engine = recording()
    outcome = run(POLICIES[pair[0]], engine=engine, **PARTS[pair[1]])
    assert outcome.error is None
    assert outcome.budget_hit is None
    return outcome, engine


def test_every_set_of_parts_meets_two_policies():
    assert {policy for policy, _ in PAIRS} == set(POLICIES)
    met = Counter(parts for _, parts in PAIRS)
    assert set(met) == set(PARTS) and min(met.values()) >= 2
    assert len(set(PAIRS)) == len(PAIRS)


def test_requests_stay_within_the_budget(policy, parts, whole, run, recording):
    needed = whole[0].requests
    for limit in {*range(min(needed + 1, 9)), needed - 1, needed}:
        engine = recording()
        outcome = run(policy, engine=engine, budget=Budget(requests=limit), **parts)
        assert outcome.error is None
        assert outcome.requests == len(engine.requests) <= limit
        assert outcome.budget_hit == (None if limit == needed else "requests")


def test_nodes_stay_within_the_budget(policy, parts, whole, run):
    needed = len(whole[0].graph)
    for limit in {*range(1, min(needed + 1, 9)), needed}:
        outcome = run(policy, budget=Budget(nodes=limit), **parts)
        assert outcome.error is None
        assert len(outcome.graph) == limit
        if limit < needed:
            assert outcome.budget_hit == "nodes"


def test_depth_stays_within_the_budget(policy, parts, whole, run):
    needed = max(node.depth for node in whole[0].graph)
    for limit in range(4):
        outcome = run(policy, budget=Budget(depth=limit), **parts)
        assert outcome.error is None
        assert max(node.depth for node in outcome.graph) <= min(limit, needed)


def test_nothing_is_sent_once_the_tokens_are_spent(policy, parts, whole, run, recording):
    spent = [
        sum(usage.prompt_tokens + usage.completion_tokens for usage in usages)
        for usages in whole[1].usages
    ]
    for batches in range(len(spent)):
        limit = sum(spent[:batches])
        engine = recording()
        outcome = run(policy, engine=engine, budget=Budget(tokens=limit), **parts)
        assert outcome.budget_hit == "tokens"
        assert engine.batches == whole[1].batches[:batches]


def test_a_stopped_search_returns_the_best_so_far(policy, parts, whole, run):
    for limit in range(whole[0].requests):
        outcome = run(policy, budget=Budget(requests=limit), **parts)
        assert outcome.ranked
        valued = [node for node in outcome.graph if node.is_terminal and node.value is not None]
        if valued and not isinstance(policy, ToTDFS):
            assert outcome.ranked[0].is_terminal
            if not isinstance(policy, RANKED_BY_PATH):
                assert outcome.ranked[0].value == max(node.value for node in valued)


def test_terminal_nodes_come_first_and_none_comes_twice(whole):
    outcome, _ = whole
    terminal = [node.is_terminal for node in outcome.ranked]
    assert terminal == sorted(terminal, reverse=True)
    assert len(set(outcome.ranked)) == len(outcome.ranked)
    assert set(outcome.ranked) <= set(outcome.graph)


def test_same_seed_same_tree_and_another_seed_other_requests(
    policy, parts, whole, run, recording, snapshot
):
    outcome, engine = whole
    again = recording()
    assert snapshot(run(policy, engine=again, **parts).graph) == snapshot(outcome.graph)
    assert again.batches == engine.batches
    other = recording()
    run(policy, engine=other, seed=1, **parts)
    if engine.has_seeds:
        assert other.requests != engine.requests


@pytest.mark.parametrize("neighbours", [1, 12])
def test_neighbours_change_nothing(
    neighbours, policy, parts, whole, make_context, make_engine, snapshot
):
    problems = [f"neighbour{i}" for i in range(neighbours)]
    problems.insert(neighbours // 2, "p")
    searches = [(policy, make_context(problem, **parts)) for problem in problems]
    outcomes = {o.problem_id: o for o in Scheduler(make_engine()).run(searches)}
    assert snapshot(outcomes["p"].graph) == snapshot(whole[0].graph)
    assert [n.id for n in outcomes["p"].ranked] == [n.id for n in whole[0].ranked]
    assert outcomes["p"].usage == whole[0].usage


def test_a_resumed_search_equals_an_uninterrupted_one(
    policy, parts, whole, run, recording, snapshot, tmp_path
):
    outcome, engine = whole
    logged = recording()
    replay = ReplayEngine(tmp_path / "whole.jsonl", logged)
    run(policy, engine=replay, **parts)
    replay.close()
    num_batches = len(logged.batches)  # the log may answer a score that is asked for again
    for fail_at in {0, 1, num_batches // 2, num_batches - 1} & set(range(num_batches)):
        log = tmp_path / f"{fail_at}.jsonl"
        first, second = recording(fail_at=fail_at), recording()
        replay = ReplayEngine(log, first)
        with pytest.raises(KeyboardInterrupt):
            run(policy, engine=replay, **parts)
        replay.close()
        replay = ReplayEngine(log, second)
        resumed = run(policy, engine=replay, **parts)
        replay.close()
        assert snapshot(resumed.graph) == snapshot(outcome.graph)
        assert resumed.usage == outcome.usage
        assert set(first.requests).isdisjoint(second.requests)
        assert {*first.requests, *second.requests} == set(engine.requests)


@pytest.mark.parametrize("policy", WITH_DEPTH, ids=lambda policy: policy.__name__)
def test_the_depth_is_the_tasks_unless_the_policy_has_its_own(policy, run, Digits):
    class Endless(Digits):
        def max_steps(self, problem):
            return 5

        def moves(self, state):
            return super().moves(state)[1:2]

        def is_terminal(self, state):
            return False

    for parameters, deepest in (({}, 5), ({"depth": 2}, 2), ({"depth": 7}, 7)):
        outcome = run(
            policy(**parameters), task=Endless(), expander=Choose(), evaluator=Heuristic()
        )
        assert outcome.error is None
        assert max(node.depth for node in outcome.graph) == deepest


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelfConsistency(0), "num_samples=0 must be at least 1"),
        (lambda: WeightedSelfConsistency(0), "num_samples=0 must be at least 1"),
        (lambda: BestOfN(-3), "num_samples=-3 must be at least 1"),
        (lambda: ToTBFS(breadth=0), "breadth=0 must be at least 1"),
        (lambda: ToTBFS(num_samples=0), "num_samples=0 must be at least 1"),
        (lambda: ToTBFS(depth=0), "depth=0 must be at least 1"),
        (lambda: ToTDFS(width=0), "width=0 must be at least 1"),
        (lambda: ToTDFS(max_leaves=0), "max_leaves=0 must be at least 1"),
        (lambda: Beam(width=0), "width=0 must be at least 1"),
        (lambda: Beam(aggregate="max"), "aggregate='max' must be one of sum, last, min, prod"),
        (lambda: BestFirst(expansions=0), "expansions=0 must be at least 1"),
        (lambda: BestFirst(leaves=0), "leaves=0 must be at least 1"),
        (lambda: MCTS(0), "num_simulations=0 must be at least 1"),
        (lambda: MCTS(batch_size=0), "batch_size=0 must be at least 1"),
        (lambda: MCTS(c=-0.1), "c=-0.1 must be at least 0"),
        (lambda: MCTS(c=float("nan")), "c=nan must be a finite number"),
        (lambda: MCTS(depth=0), "depth=0 must be at least 1"),
        (lambda: MCTS(selection="best"), "selection='best' must be one of puct, uct"),
        (lambda: DVTS(subtrees=0), "subtrees=0 must be at least 1"),
        (lambda: DVTS(answers="vote"), "answers='vote' must be one of majority, weighted, best"),
        (lambda: REBASE(width=0), "width=0 must be at least 1"),
        (lambda: REBASE(temperature=0), "temperature=0 must be at least 1e-06"),
        (lambda: REBASE(aggregate="max"), "aggregate='max' must be one of sum, last, min, prod"),
        (lambda: ParticleFilter(0), "particles=0 must be at least 1"),
        (lambda: ParticleFilter(temperature=-1.0), "temperature=-1.0 must be at least 1e-06"),
        (lambda: ParticleFilter(resampling="none"), "must be one of multinomial, systematic"),
        (lambda: ParticleFilter(values="log"), "values='log' must be one of probability, logit"),
        (lambda: ABMCTS(patience=0), "patience=0 must be at least 1"),
        (lambda: ABMCTS(posterior="normal"), "posterior='normal' must be one of gaussian, beta"),
        (lambda: SelfRefine(-1), "iterations=-1 must be at least 0"),
        (lambda: GoT(merges=0), "merges=0 must be at least 1"),
        (lambda: GoT(improvements=-1), "improvements=-1 must be at least 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parameters_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
