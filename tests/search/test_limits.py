"""Budgets end searches that ask nothing, and cannot be evaded."""

import signal
import threading
import time

import pytest

from treeshare.llm_backend.api import Generate
from treeshare.search.budget import Budget, OutOfBudget
from treeshare.search.coroutines import CoroutineRunner, ask, gather
from treeshare.search.evaluators.prompted import ValuePrompt
from treeshare.search.policies.tot import ToTBFS
from treeshare.search.scheduler import Scheduler
from treeshare.search.watchdog import watchdog
from treeshare.tasks.task import Step


class Mine:
    """A policy whose search is `body(ctx)`."""

    def __init__(self, body):
        self.body = body

    async def search(self, ctx):
        await self.body(ctx)
        return [ctx.root]


async def one_request(ctx):
    await ctx.generate(ctx.root, "step")


# An endless search ends by the seconds of its budget.


async def gathers(ctx):
    while True:
        await ctx.gather()


async def asks(ctx):
    while True:
        await ctx.gather(ctx.ask([]), ctx.ask([]))


async def nests(ctx):
    await ctx.gather(nests(ctx))


@pytest.mark.parametrize("body", [gathers, asks, nests])
def test_seconds_end_a_search_that_asks_nothing(body, run):
    outcome = run(Mine(body), budget=Budget(seconds=0.02))
    assert (outcome.error, outcome.budget_hit) == (None, "seconds")
    assert outcome.ranked == [outcome.graph.root]


def spins():
    while True:
        pass


async def spin(ctx):
    await one_request(ctx)
    spins()


async def spin_among_others(ctx):
    await ctx.gather(one_request(ctx), spin(ctx), ctx.expand(ctx.root))


async def spin_and_catch(ctx):
    try:
        spins()
    except BaseException:  # caught once; the next second it comes again
        spins()


async def spin_at_the_end(ctx):
    try:
        await ctx.gather(spin(ctx))
    finally:
        spins()


async def evaluate_nothing(ctx):
    while True:
        await ctx.evaluate([])  # awaits no request, so the search never stops here


SPINNERS = [spin, spin_among_others, spin_and_catch, spin_at_the_end, evaluate_nothing]


@pytest.fixture
def short_grace(monkeypatch):
    monkeypatch.setattr("treeshare.search.watchdog.GRACE", 0.02)


@pytest.mark.parametrize("body", SPINNERS)
def test_seconds_end_a_loop_of_plain_python(body, short_grace, run, make_context, make_engine):
    handler = signal.getsignal(signal.SIGALRM)
    searches = [
        (Mine(body), make_context("bad", budget=Budget(seconds=0.02))),
        (ToTBFS(), make_context("good")),
    ]
    found = {o.problem_id: o for o in Scheduler(make_engine()).run(searches)}
    assert (found["bad"].error, found["bad"].budget_hit) == (None, "seconds")
    assert found["bad"].ranked
    assert len(found["good"].graph) == len(run(ToTBFS(), problem="good").graph)
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_slow_step_within_the_grace_is_not_ended(run):
    async def slow(ctx):
        await ctx.generate(ctx.root, "step")
        time.sleep(0.05)

    outcome = run(Mine(slow), budget=Budget(seconds=0.04))
    assert (outcome.error, outcome.budget_hit) == (None, None)


def test_a_timer_that_runs_is_left_alone(short_grace):
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        with watchdog(0.001):
            time.sleep(0.05)
        assert 50 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_another_thread_sets_no_timer(run):
    found = []
    thread = threading.Thread(target=lambda: found.append(run(ToTBFS(), budget=Budget(seconds=60))))
    thread.start()
    thread.join()
    assert found[0].error is None


def test_an_interrupt_is_passed_on_and_the_handler_put_back(run):
    async def interrupted(ctx):
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGALRM)
    with pytest.raises(KeyboardInterrupt):
        run(Mine(interrupted), budget=Budget(seconds=60))
    assert signal.getsignal(signal.SIGALRM) is handler


def test_many_requests_and_gathers_are_no_endless_loop(run, monkeypatch):
    monkeypatch.setattr("treeshare.search.coroutines.MAX_IDLE", 300)

    async def deep(ctx, depth):
        if depth:
            await ctx.gather(deep(ctx, depth - 1))
        await one_request(ctx)

    async def busy(ctx):
        await ctx.gather(*(one_request(ctx) for _ in range(1000)))
        for _ in range(100):
            await ctx.gather(ctx.gather(deep(ctx, 10)), ctx.ask([]))

    outcome = run(Mine(busy))
    assert outcome.error is None
    assert outcome.requests == 1000 + 100 * 11


# What a budget holds back.


def test_more_samples_than_tokens_are_left_are_not_drawn(run, recording):
    engine = recording()
    outcome = run(
        ToTBFS(),
        engine=engine,
        evaluator=ValuePrompt(num_samples=50_000),
        budget=Budget(tokens=40_000),
    )
    assert (outcome.error, outcome.budget_hit) == (None, "tokens")
    assert outcome.ranked[0].depth == 1
    assert max(getattr(request, "n", 1) for request in engine.requests) == 1


def test_requests_of_a_step_share_the_tokens_that_are_left(run, recording):
    async def wide(ctx):
        await ctx.gather(*(ctx.generate(ctx.root, "step", 40) for _ in range(3)))

    engine = recording()
    assert run(Mine(wide), engine=engine, budget=Budget(tokens=100)).budget_hit == "tokens"
    assert engine.requests == []


def test_calls_cannot_be_evaded(run, recording):
    async def evade(ctx):
        while True:
            try:
                ctx.spent.requests = 0
            except AttributeError:
                await ctx.ask([Generate(("a",))] * 10)

    engine = recording()
    outcome = run(Mine(evade), engine=engine, budget=Budget(requests=50))
    assert (outcome.requests, len(engine.requests), outcome.budget_hit) == (50, 50, "requests")


@pytest.mark.parametrize("catches", [False, True])
def test_nodes_cannot_be_evaded(catches, run):
    async def evade(ctx):
        for i in range(1000):
            try:
                ctx.graph.add(ctx.root, "", ("p", str(i)), is_terminal=False)
            except OutOfBudget:
                if not catches:
                    raise
        ctx.add(ctx.root, [(Step("", ("p", "last")), None)])

    outcome = run(Mine(evade), budget=Budget(nodes=200))
    assert (outcome.error, len(outcome.graph), outcome.budget_hit) == (None, 200, "nodes")


def test_out_of_budget_is_no_exception_that_policies_catch(run):
    async def catches(ctx):
        try:
            for i in range(10):
                ctx.graph.add(ctx.root, "", ("p", str(i)), is_terminal=False)
        except Exception:
            raise AssertionError from None

    outcome = run(Mine(catches), budget=Budget(nodes=3))
    assert (outcome.error, outcome.budget_hit) == (None, "nodes")


@pytest.mark.parametrize("limits", [{"requests": 1}, {"nodes": 2}])
def test_a_budget_ends_deep_gathers(limits, run):
    closed = []

    async def deep(ctx, depth):
        try:
            if depth:
                await ctx.gather(deep(ctx, depth - 1))
            else:
                await ctx.sample(ctx.root, "cot", 50)
                await one_request(ctx)
                await ctx.expand(ctx.root)
        finally:
            closed.append(depth)

    async def found(ctx):
        ctx.best = [ctx.root]
        await deep(ctx, 3000)

    outcome = run(Mine(found), budget=Budget(**limits))
    assert (outcome.error, outcome.budget_hit) == (None, next(iter(limits)))
    assert outcome.ranked == [outcome.graph.root]
    assert closed == list(range(3001))


def test_an_error_comes_out_of_deep_gathers(run):
    async def deep(ctx, depth):
        if depth == 0:
            await one_request(ctx)
            raise LookupError("at the bottom")
        await ctx.gather(deep(ctx, depth - 1))

    outcome = run(Mine(lambda ctx: deep(ctx, 3000)))
    assert str(outcome.error) == "at the bottom"


def test_siblings_that_fail_as_they_are_closed_are_all_closed():
    closed = []

    async def sibling(name):
        try:
            await ask([Generate(("a",))])
        finally:
            closed.append(name)
            raise LookupError(name)

    async def search():
        await gather(sibling("a"), sibling("b"), sibling("c"))

    runner = CoroutineRunner(search())
    runner.step()
    with pytest.raises(LookupError, match="a"):
        runner.close()
    assert closed == ["a", "b", "c"]
    assert runner.is_done
