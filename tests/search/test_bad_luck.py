"""Every policy ends well where no reply can be read, where a tree ends at once, and whatever the
evaluator's numbers are."""

import itertools
import json

import numpy as np
import pytest
import torch
from any_of import AnyOf

import treeshare.search
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.budget import Budget
from treeshare.search.evaluators.prompted import (
    Heuristic,
    SelfEvaluation,
    ValuePrompt,
    Vote,
)
from treeshare.search.expanders import Choose, Propose, Sample
from treeshare.search.policies.catalog import describe
from treeshare.search.policies.particle import systematic
from treeshare.search.policies.simulation.treequest_adapter import AskTell
from treeshare.tasks.task import Step

ARGUMENTS = {"AskTell": {"algorithm": AnyOf(), "trials": 6}, "MCTS": {"num_simulations": 20}}
MORE = {
    "mcts puct": treeshare.search.MCTS(20, selection="puct", batch_size=3),
    "rap parallel": treeshare.search.RAP(batch_size=4),
    "gumbel rescaled": treeshare.search.GumbelMCTS(9, rescale=True, batch_size=3),
    "got alone": treeshare.search.GoT(1, 1, 0),
    "self-refine io": treeshare.search.SelfRefine(role="io"),
    "ask_tell parallel": AskTell(AnyOf(), trials=7, batch_size=3, actions=["step", "cot"]),
    "beam prod": treeshare.search.Beam(aggregate="prod"),
    "particle logits": treeshare.search.ParticleFilter(5, values="logit", temperature=1e-6),
    "particle systematic": treeshare.search.ParticleFilter(
        5, resampling="systematic", resample_finished=False
    ),
    "rebase sharp": treeshare.search.REBASE(6, temperature=1e-6, depth=5),
    "astar logprob": treeshare.search.AStar(cost="logprob"),
    "dvts best": treeshare.search.DVTS(answers="best", depth=5),
}
POLICIES = {
    row.policy: getattr(treeshare.search, row.policy)(**ARGUMENTS.get(row.policy, {}))
    for row in describe()
} | MORE

SILENT = ["", " ", "I do not know", "\n\n", "?" * 300]


@pytest.fixture(params=POLICIES)
def policy(request):
    return POLICIES[request.param]


EVALUATORS = [ValuePrompt(), Vote(), Heuristic(), SelfEvaluation()]


@pytest.mark.parametrize("budget", [None, Budget(nodes=1), Budget(tokens=40), Budget(depth=0)])
def test_no_reply_can_be_read(policy, budget, run):
    for expander, evaluator in itertools.product([Propose(), Sample()], EVALUATORS):
        check_unreadable(run, policy, expander, evaluator, budget)


def check_unreadable(run, policy, expander, evaluator, budget):
    outcome = run(
        policy,
        engine=MockEngine(SILENT),
        expander=expander,
        evaluator=evaluator,
        budget=budget,
    )
    assert outcome.error is None
    assert outcome.ranked in ([], [outcome.graph.root])
    assert len(outcome.graph) == 1
    if budget is None:
        assert outcome.parse_failures > 0
    json.loads(outcome.graph.to_json())


@pytest.mark.parametrize("readable", [1, 2, 5, 9])
def test_replies_can_be_read_no_longer(policy, readable, run):
    count = itertools.count()

    def reply(prompt, seed, k):
        return "1 2 3" if next(count) < readable else "I do not know"

    outcome = run(policy, engine=MockEngine(reply), expander=Sample())
    assert outcome.error is None
    assert set(outcome.ranked) <= set(outcome.graph)


class Ends:
    """Every step of the root ends the search, or nothing can be done at all."""

    def __init__(self, digits, moves):
        self.digits = digits
        self.num_moves = moves

    def __getattr__(self, name):
        return getattr(self.digits, name)

    def moves(self, state):
        return [Step(str(i), (*state, str(i))) for i in range(self.num_moves)]

    def is_terminal(self, state):
        return len(state) > 1


@pytest.mark.parametrize("moves", [0, 1, 3])
def test_a_tree_that_ends_at_once(policy, moves, run, Digits):
    outcome = run(policy, task=Ends(Digits(), moves), expander=Choose())
    assert outcome.error is None
    assert max(node.depth for node in outcome.graph) <= 1


class Values:
    """Node `i` has the value `of(i)`."""

    def __init__(self, of):
        self.of = of

    async def evaluate(self, ctx, nodes):
        return [self.of(node.id) for node in nodes]


KINDS = [
    0.5,
    1,
    True,
    np.float32(0.1),
    np.float16(0.25),
    np.int64(1),
    np.bool_(False),
    np.array(0.5),
    torch.tensor(0.5),
    torch.tensor(0.5, dtype=torch.bfloat16),
    torch.tensor(0.5, requires_grad=True),
    torch.nn.Parameter(torch.tensor(0.25)),
]
NUMBERS = {
    "zero": lambda i: 0.0,
    "equal": lambda i: 0.5,
    "negative": lambda i: -1.0 - i,
    "both signs": lambda i: (-1) ** i * 3.0,
    "large": lambda i: 1e100,
    "very negative": lambda i: -1e100,
    "tiny": lambda i: 5e-324,
    "of every kind": lambda i: KINDS[i % len(KINDS)],
}


@pytest.mark.parametrize("numbers", NUMBERS)
def test_any_finite_numbers_do(policy, numbers, run):
    for expander in (Choose(), Sample()):
        check_values(run, policy, expander, Values(NUMBERS[numbers]))


def check_values(run, policy, expander, evaluator):
    outcome = run(policy, expander=expander, evaluator=evaluator)
    if isinstance(policy, treeshare.search.AStar) and policy.cost == "logprob":
        assert outcome.error is None or "log-probability" in str(outcome.error)
    else:
        assert outcome.error is None
    assert all(type(node.value) in (float, type(None)) for node in outcome.graph)
    json.loads(outcome.graph.to_json(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    "array", [np.asarray, torch.tensor, tuple], ids=["numpy", "torch", "tuple"]
)
def test_values_may_come_as_one_array(array, run):
    class Arrays:
        async def evaluate(self, ctx, nodes):
            return array([0.25] * len(nodes))

    outcome = run(treeshare.search.ToTBFS(), evaluator=Arrays())
    assert outcome.error is None
    assert {node.value for node in outcome.ranked} == {0.25}
    assert all(type(node.value) is float for node in outcome.ranked)


def test_priors_of_numpy_and_torch_become_floats(run):
    class Mine:
        async def expand(self, ctx, node, n):
            children = ctx.add(node, [(Step(t, (*node.state, t)), np.float32(-1)) for t in "12"])
            children[0].prior, children[1].prior = np.float64(0.5), torch.tensor(0.5)
            children[1].logprob = torch.tensor(float("-inf"))
            return children

    outcome = run(treeshare.search.RAP(), expander=Mine())
    assert outcome.error is None
    found = [node for node in outcome.graph if node.parent]
    assert {(type(node.prior), type(node.logprob)) for node in found} == {(float, float)}
    json.loads(outcome.graph.to_json(), parse_constant=pytest.fail)


def test_weights_that_are_all_zero_count_alike(make_context):
    draw = make_context().random("weights")
    assert systematic([0.0, 0.0, 0.0], 3, draw) == [0, 1, 2]


def test_impossible_moves_are_alike(run):
    outcome = run(
        treeshare.search.ToTBFS(),
        engine=MockEngine(score=lambda prompt, text: float("-inf")),
        expander=Choose(),
        evaluator=Heuristic(),
    )
    assert outcome.error is None
    assert {node.prior for node in outcome.graph.root.children} == {0.25}
    json.loads(outcome.graph.to_json(), parse_constant=pytest.fail)
