"""Policies, expanders, evaluators and tasks that misbehave: one clear line, and no other search
notices."""

import asyncio
import math
import re
import sys

import numpy as np
import pytest
import torch

from treeshare.llm_backend.api import Score
from treeshare.search.evaluators.composite import Combined, Memo
from treeshare.search.evaluators.prompted import Heuristic, ValuePrompt, Vote
from treeshare.search.expanders import Choose
from treeshare.search.graph import Node, SearchGraph
from treeshare.search.policies.simulation.lats import LATS
from treeshare.search.policies.simulation.mcts import MCTS
from treeshare.search.policies.tot import ToTBFS, ToTDFS
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.task import Step


def policy(body):
    """A policy whose search is `body(ctx)`."""

    class Mine:
        async def search(self, ctx):
            return await body(ctx)

    return {"policy": Mine()}


def expander(body):
    class Mine:
        async def expand(self, ctx, node, n):
            return await body(ctx, node)

    return {"expander": Mine()}


def evaluator(values):
    """An evaluator that returns `values(nodes)`."""

    class Mine:
        async def evaluate(self, ctx, nodes):
            return values(nodes)

    return {"evaluator": Mine()}


def returns(result):
    async def search(ctx):
        await ctx.expand(ctx.root)
        return result(ctx)

    return policy(search)


def raises(error):
    async def search(ctx):
        await ctx.expand(ctx.root)
        raise error

    return policy(search)


def sets_best(best):
    async def search(ctx):
        ctx.best = best(ctx)
        return [ctx.root]

    return policy(search)


def does(action):
    async def search(ctx):
        await ctx.expand(ctx.root)
        action(ctx)
        return [ctx.root]

    return policy(search)


def awaits(action):
    async def search(ctx):
        await action(ctx)
        return [ctx.root]

    return policy(search)


def grows(action):
    """An expander that adds a child and returns `action(ctx, node, child)`."""

    async def expand(ctx, node):
        await ctx.generate(node, "step")
        (child,) = ctx.add(node, [(Step("1", (*node.state, str(len(ctx.graph)))), -1.0)])
        return action(ctx, node, child)

    return expander(expand)


def marked(**fields):
    def action(ctx, node, child):
        for name, value in fields.items():
            setattr(child, name, value)
        return [child]

    return grows(action)


def stranger():
    return SearchGraph(("p",)).root


class NotAsync:
    def search(self, ctx):
        return [ctx.root]

    def expand(self, ctx, node, n):
        return []

    def evaluate(self, ctx, nodes):
        return [0.0] * len(nodes)


class Bomb:
    def __float__(self):
        raise ZeroDivisionError("in __float__")


class ExitsInFinally:
    async def search(self, ctx):
        try:
            await ctx.gather(ctx.expand(ctx.root), fail(ctx))
        finally:
            sys.exit(4)


async def fail(ctx):
    await ctx.generate(ctx.root, "step")
    raise LookupError("mine")


async def swallow_everything(ctx):
    try:
        await ctx.generate(ctx.root, "step")
        raise SystemExit
    finally:
        await ctx.generate(ctx.root, "step")
        raise ValueError("again")


async def nothing(ctx):
    pass


def endless(step):
    async def search(ctx):
        while True:
            await step(ctx)

    return policy(search)


async def nest(ctx):
    await ctx.gather(nest(ctx))


async def spread(ctx):
    await ctx.gather(spread(ctx), spread(ctx))


BAD_EVALUATORS = {
    "too few": (evaluator(lambda nodes: [0.5]), r"Mine.evaluate returned 1 values for \d+ nodes"),
    "too many": (
        evaluator(lambda nodes: [0.5] * 99),
        r"Mine.evaluate returned 99 values for \d+ n",
    ),
    "none at all": (
        evaluator(lambda nodes: None),
        r"Mine.evaluate returned None, not a list of num",
    ),
    "a number": (evaluator(lambda nodes: 0.5), r"returned the float 0.5, not a list of numbers"),
    "a dict": (
        evaluator(dict.fromkeys),
        r"Mine.evaluate returned the dict .* not a list of numbers",
    ),
    "a text": (
        evaluator(lambda nodes: "9" * len(nodes)),
        r"Mine.evaluate returned the str '9+', not",
    ),
    "a generator": (
        evaluator(lambda nodes: (0.5 for _ in nodes)),
        r"returned the generator .* not a",
    ),
    "a 0-d array": (
        evaluator(lambda nodes: np.array(0.5)),
        r"returned the ndarray .*, not a list of",
    ),
    "texts": (
        evaluator(lambda nodes: ["0.5"] * len(nodes)),
        r"Mine.evaluate: the value of node \d+ \('.+'\) is the str '0.5', not a number",
    ),
    "Nones": (
        evaluator(lambda nodes: [None] * len(nodes)),
        r"node \d+ \('.+'\) is None, not a numb",
    ),
    "NaN": (
        evaluator(lambda nodes: [math.nan] * len(nodes)),
        r"node \d+ \('.+'\) is nan; it must be a number from -1e\+100 to 1e\+100",
    ),
    "one NaN": (
        evaluator(lambda nodes: [0.5] * (len(nodes) - 1) + [np.float32("nan")]),
        r"is nan; ",
    ),
    "infinite": (evaluator(lambda nodes: [math.inf] * len(nodes)), r"is inf; it must be a number"),
    "-infinite": (
        evaluator(lambda nodes: [-math.inf] * len(nodes)),
        r"is -inf; it must be a number",
    ),
    "too large": (
        evaluator(lambda nodes: [1e308] * len(nodes)),
        r"is 1e\+308; it must be a number",
    ),
    "a huge int": (evaluator(lambda nodes: [10**400] * len(nodes)), r"is inf; it must be a number"),
    "complex": (evaluator(lambda nodes: [1j] * len(nodes)), r"is the complex 1j, not a number"),
    "complex array": (
        evaluator(lambda nodes: np.array([1j] * len(nodes))),
        r"complex128 .* not a n",
    ),
    "lists": (evaluator(lambda nodes: [[0.5]] * len(nodes)), r"is the list \[0.5\], not a number"),
    "rows": (evaluator(lambda nodes: np.ones((len(nodes), 1))), r"is the ndarray .*, not a number"),
    "torch rows": (
        evaluator(lambda nodes: torch.ones(len(nodes), 1)),
        r"is the Tensor .* not a num",
    ),
    "nodes": (evaluator(list), r"is node \d+ \('.+'\), not a number"),
    "a bomb": (evaluator(lambda nodes: [Bomb()] * len(nodes)), r"in __float__"),
    "not async": (
        {"evaluator": NotAsync()},
        r"NotAsync.evaluate returned .* must be an `async def`",
    ),
    "no method": ({"evaluator": object()}, r"'object' object has no attribute 'evaluate'"),
    "exits": (evaluator(lambda nodes: sys.exit("bye")), r"the search raised SystemExit\('bye'\)"),
    "raises": (evaluator(lambda nodes: 1 / 0), r"division by zero"),
}

BAD_EXPANDERS = {
    "none at all": (
        grows(lambda ctx, node, child: None),
        r"what Mine.expand returned is None, not a l",
    ),
    "a node": (
        grows(lambda ctx, node, child: child),
        r"is node \d+ \('1'\), not a list of nodes: wri",
    ),
    "texts": (
        grows(lambda ctx, node, child: ["a"]),
        r"item 0 of what Mine.expand returned is the str",
    ),
    "steps": (
        grows(lambda *_: [Step("a", 1)]),
        r"item 0 of what Mine.expand returned is the Step .*",
    ),
    "the node": (
        grows(lambda ctx, node, child: [node]),
        r"Mine.expand of node \d+ \('.*'\) returned node \d+ \('.*'\), which is the node itself",
    ),
    "an ancestor": (
        grows(lambda ctx, node, child: [child] if node is ctx.root else [ctx.root]),
        r"Mine.expand of node \d+ \('1'\) returned node 0 \(''\), which is no child of it",
    ),
    "a stranger": (
        grows(lambda *_: [stranger()]),
        r"item 0 of what Mine.expand returned is node 0 \(''\), which is no node of this search's",
    ),
    "twice": (grows(lambda ctx, node, child: [child] * 2), r"returned node \d+ \('1'\) twice"),
    "NaN prior": (
        marked(prior=math.nan),
        r"Mine.expand: the prior of node \d+ \('1'\) is nan; it mus",
    ),
    "negative prior": (marked(prior=-0.1), r"is -0.1; it must be a number from 0 to 1e\+100"),
    "text as prior": (
        marked(prior="0.1"),
        r"the prior of node \d+ \('1'\) is the str '0.1', not a",
    ),
    "NaN logprob": (marked(logprob=math.nan), r"the log-probability of node \d+ \('1'\) is nan"),
    "text as logprob": (
        marked(logprob="-1"),
        r"the log-probability of node \d+ \('1'\) is the str",
    ),
    "list as state": (
        expander(lambda ctx, node: fail_to_add(ctx, Step("a", ["p", "a"]))),
        r"the state of step 'a' is the list \['p', 'a'\], which cannot be hashed; a tuple would do",
    ),
    "text not text": (
        expander(lambda ctx, node: fail_to_add(ctx, Step(7, ("p", "7")))),
        r"ctx.add: a step's text is the int 7, not text",
    ),
    "no step": (
        expander(lambda ctx, node: fail_to_add(ctx, "a")),
        r"ctx.add: a step is the str 'a', not a Step",
    ),
    "unknown role": (
        expander(lambda ctx, node: ctx.generate(node, "value ")),
        r"digits has no role 'value '",
    ),
    "negative n": (
        expander(lambda ctx, node: ctx.generate(node, "step", -1)),
        r"n=-1 must be at l",
    ),
    "half an n": (
        expander(lambda ctx, node: ctx.generate(node, "step", 0.5)),
        r"n=0.5 must be a wh",
    ),
    "not async": ({"expander": NotAsync()}, r"NotAsync.expand returned .* must be an `async def`"),
    # wandb replaces sys.exit in a process that has used it; its code is 0 where none is given
    "exits": (grows(lambda *_: sys.exit()), r"the search raised SystemExit\(0?\)"),
    "cancelled": (grows(lambda *_: cancel()), r"the search raised CancelledError\(\)"),
}


async def fail_to_add(ctx, step):
    return ctx.add(ctx.root, [(step, None)])


def cancel():
    raise asyncio.CancelledError


BAD_POLICIES = {
    "returns None": (
        returns(lambda ctx: None),
        r"what Mine.search returned is None, not a list of n",
    ),
    "returns a node": (
        returns(lambda ctx: ctx.root),
        r"what Mine.search returned is node 0 \(''\), not a list of nodes: write \[node\]",
    ),
    "returns texts": (
        returns(lambda ctx: ["24"]),
        r"item 0 of what Mine.search returned is the str",
    ),
    "returns a set": (
        returns(lambda ctx: {ctx.root}),
        r"returned is the set .*, not a list of nodes",
    ),
    "returns a stranger": (
        returns(lambda ctx: [ctx.root, stranger()]),
        r"item 1 of what Mine.search returned is node 0 \(''\), which is no node of",
    ),
    "returns a copy": (
        returns(lambda ctx: [Node(0, "", ("p",), False)]),
        r"is node 0 \(''\), which is no node of this search's graph",
    ),
    "is not async": ({"policy": NotAsync()}, r"NotAsync.search returned .* must be an `async def`"),
    "has no search": ({"policy": object()}, r"'object' object has no attribute 'search'"),
    "best is a number": (sets_best(lambda ctx: 7), r"ctx.best is the int 7, not a list of nodes"),
    "best is a node": (
        sets_best(lambda ctx: ctx.root),
        r"ctx.best is node 0 \(''\), not a list of",
    ),
    "best holds texts": (
        sets_best(lambda ctx: ["a"]),
        r"item 0 of ctx.best is the str 'a', not a n",
    ),
    "best is a stranger": (sets_best(lambda ctx: [stranger()]), r"item 0 of ctx.best is node 0"),
    "expands a text": (
        awaits(lambda ctx: ctx.expand("a")),
        r"what ctx.expand was given is the str",
    ),
    "expands a stranger": (awaits(lambda ctx: ctx.expand(stranger())), r"which is no node of this"),
    "expands 0 times": (
        awaits(lambda ctx: ctx.expand(ctx.root, 0)),
        r"n of ctx.expand is 0; it must",
    ),
    "evaluates a node": (
        awaits(lambda ctx: ctx.evaluate(ctx.root)),
        r"ctx.evaluate was given is node",
    ),
    "evaluates None": (
        awaits(lambda ctx: ctx.evaluate([None])),
        r"item 0 of what ctx.evaluate was gi",
    ),
    "samples a stranger": (
        awaits(lambda ctx: ctx.sample(stranger(), "cot")),
        r"ctx.sample was given",
    ),
    "scores nothing": (
        awaits(lambda ctx: ctx.score(ctx.root, "choose", [])),
        r"continuations=\(\)",
    ),
    "asks for texts": (
        awaits(lambda ctx: ctx.ask(["a"])),
        r"a search asked 'a', which is no request",
    ),
    "asks one request": (
        awaits(lambda ctx: ctx.ask(Score(("a",), ("b",)))),
        r"a list of requests, not one: write \[request\]",
    ),
    "awaits asyncio": (awaits(lambda ctx: asyncio.sleep(1)), r"no running event loop"),
    "writes requests": (
        does(lambda ctx: setattr(ctx.spent, "requests", 0)),
        r"cannot assign to field 're",
    ),
    **{
        f"writes {name}": (does(lambda ctx, name=name: setattr(ctx, name, None)), r"has no setter")
        for name in ("spent", "graph", "root", "task", "problem", "parse_failures")
    },
    "empties the graph": (
        does(lambda ctx: ctx.graph.nodes.clear()),
        r"'tuple' object has no attrib",
    ),
    "adds to strangers": (
        does(lambda ctx: ctx.graph.add(stranger(), "a", 1, is_terminal=False)),
        r"the parent Node.* is no node of this graph",
    ),
    "exits": (raises(SystemExit(3)), r"the search raised SystemExit\(3\)"),
    "exits with 0": (raises(SystemExit(0)), r"the search raised SystemExit\(0\)"),
    "exits in finally": ({"policy": ExitsInFinally()}, r"the search raised SystemExit\(4\)"),
    "is cancelled": (raises(asyncio.CancelledError()), r"the search raised CancelledError\(\)"),
    "raises GeneratorExit": (raises(GeneratorExit()), r"the search raised GeneratorExit\(\)"),
    "raises StopIteration": (raises(StopIteration()), r"coroutine raised StopIteration"),
    "raises an error": (raises(LookupError("mine")), r"mine"),
    "has no memory": (raises(MemoryError()), r"^$"),
    "raises twice": (awaits(swallow_everything), r"again"),
    "loops around gather": (
        endless(lambda ctx: ctx.gather()),
        r"went on 1,000 times without a reque",
    ),
    "loops around ask": (
        endless(lambda ctx: ctx.ask([])),
        r"went on 1,000 times without a request",
    ),
    "loops around both": (
        endless(lambda ctx: ctx.gather(nothing(ctx), ctx.ask([]))),
        r"went on 1,000",
    ),
    "nests": (awaits(nest), r"gathers are nested more than 300 deep"),
    "spreads": (awaits(spread), r"went on 1,000 times without a request"),
}


class BadTask:
    """Digits, but for one method, that returns `value`."""

    def __init__(self, digits, method, value):
        self.digits = digits
        setattr(self, method, lambda *_: value)

    def __getattr__(self, name):
        return getattr(self.digits, name)


BAD_TASKS = {
    "steps are None": (("parse", None), {}, r"BadTask.parse returned None, not a list of steps"),
    "steps are texts": (("parse", ["a"]), {}, r"BadTask.parse: a step is the str 'a', not a Step"),
    "a list as state": (
        ("parse", [Step("a", ["p"])]),
        {},
        r"BadTask.parse: the state of step 'a' is",
    ),
    "moves are None": (
        ("moves", None),
        {"expander": Choose()},
        r"BadTask.moves returned None, not",
    ),
    "verdict is a text": (
        ("parse_value", "1"),
        {},
        r"BadTask.parse_value: a verdict is the str '1'",
    ),
    "verdict is NaN": (
        ("parse_value", math.nan),
        {},
        r"BadTask.parse_value: a verdict is nan; it m",
    ),
    "vote is too high": (
        ("parse_vote", 99),
        {"evaluator": Vote()},
        r"BadTask.parse_vote: a vote is 99; it must be from 0 to",
    ),
    "vote is a text": (
        ("parse_vote", "1"),
        {"evaluator": Vote()},
        r"a vote is the str '1', not a wh",
    ),
    "heuristic is NaN": (
        ("heuristic", math.nan),
        {"evaluator": Heuristic()},
        r"Heuristic.evaluate: the value of node \d+ \('.'\) is nan",
    ),
    "heuristic in a mean": (
        ("heuristic", None),
        {"evaluator": Combined({"a": ValuePrompt(), "b": Heuristic()})},
        r"Heuristic.evaluate: the value of node \d+ \('.'\) is None",
    ),
    "heuristic in a memo": (
        ("heuristic", "0.5"),
        {"evaluator": Memo(Heuristic())},
        r"Heuristic.evaluate: the value of node \d+ \('.'\) is the str '0.5'",
    ),
}

HONEST = {"tot_bfs": ToTBFS(3, 2), "mcts": MCTS(9, batch_size=2)}
SEARCHED_BY = {
    "tot_bfs": ToTBFS(2, 2),
    "tot_dfs": ToTDFS(2, threshold=-1),
    "lats": LATS(3, num_samples=2),
}

CASES = {
    **{
        f"evaluator {name}, {by}": ({"policy": policy, **bad}, message)
        for name, (bad, message) in BAD_EVALUATORS.items()
        for by, policy in SEARCHED_BY.items()
    },
    **{
        f"expander {name}, {by}": ({"policy": policy, **bad}, message)
        for name, (bad, message) in BAD_EXPANDERS.items()
        for by, policy in SEARCHED_BY.items()
    },
    **{f"policy {name}": (bad, message) for name, (bad, message) in BAD_POLICIES.items()},
    **{
        f"task {name}": ({"policy": ToTBFS(), "bad_task": method, **parts}, message)
        for name, (method, parts, message) in BAD_TASKS.items()
    },
}


@pytest.fixture(autouse=True)
def low_bounds(monkeypatch):
    monkeypatch.setattr("treeshare.search.coroutines.MAX_IDLE", 1000)
    monkeypatch.setattr("treeshare.search.coroutines.MAX_DEPTH", 300)


@pytest.fixture(scope="module")
def alone(run, snapshot):
    """The honest searches without neighbours."""
    found = {name: run(policy, problem=name) for name, policy in HONEST.items()}
    return {
        name: (snapshot(o.graph), o.usage, [n.id for n in o.ranked]) for name, o in found.items()
    }


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_no_neighbour_notices(
    case, alone, make_context, make_engine, Digits, snapshot
):
    parts, message = CASES[case]
    parts = {**parts}
    policy = parts.pop("policy")
    if method := parts.pop("bad_task", None):
        parts["task"] = BadTask(Digits(), *method)
    bad = (policy, make_context("bad", **parts))
    honest = [(policy, make_context(name)) for name, policy in HONEST.items()]
    found = {
        outcome.problem_id: outcome
        for outcome in Scheduler(make_engine()).run([honest[0], bad, *honest[1:]])
    }
    error = found["bad"].error
    assert error is not None
    text = str(error)
    assert "\n" not in text and len(text) < 300
    assert re.search(message, text), text
    for name, expected in alone.items():
        outcome = found[name]
        assert outcome.error is None
        assert (snapshot(outcome.graph), outcome.usage, [n.id for n in outcome.ranked]) == expected
    found["bad"].graph.to_json(ranked=[node.id for node in found["bad"].ranked])
