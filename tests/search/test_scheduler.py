import contextlib
import random

import pytest

from treeshare.llm_backend.api import Failure
from treeshare.search.budget import Budget
from treeshare.search.context import flatten, top_k
from treeshare.search.evaluators.prompted import ValuePrompt
from treeshare.search.expanders import Propose
from treeshare.search.policies.simulation.mcts import MCTS
from treeshare.search.policies.tot import ToTBFS
from treeshare.search.scheduler import Scheduler


class OneAtATime:
    """The most naive policy: one awaited call after another."""

    async def search(self, ctx):
        node = ctx.root
        for _ in range(3):
            children = await ctx.expand(node, 2)
            if not children:
                break
            for child in children:
                await ctx.evaluate([child])
            node = top_k(children, [child.value for child in children], 1)[0]
        return [node]


class Raises:
    async def search(self, ctx):
        await ctx.gather(ctx.expand(ctx.root), ctx.evaluate([ctx.root]))
        raise RuntimeError("a bug of the user's")


class ReturnsNoNodes:
    async def search(self, ctx):
        return "done"


class PiecemealEngine:
    """Answers a random part of what is outstanding, in random order."""

    def __init__(self, engine, seed):
        self.engine = engine
        self.random = random.Random(seed)
        self.outstanding = {}

    def cancel(self, tickets):
        for ticket in tickets:
            self.outstanding.pop(ticket, None)

    def execute(self, requests):
        self.outstanding |= requests
        tickets = self.random.sample(
            sorted(self.outstanding), self.random.randint(1, len(self.outstanding))
        )
        return self.engine.execute({ticket: self.outstanding.pop(ticket) for ticket in tickets})


class FailingEngine:
    """Cannot serve the prompts of one problem."""

    def __init__(self, engine, problem):
        self.engine = engine
        self.problem = problem

    def execute(self, requests):
        return {
            ticket: Failure(LookupError("too long"))
            if self.problem in "".join(requests[ticket].prefix_segments).split()
            else reply
            for ticket, reply in self.engine.execute(requests).items()
        }

    def cancel(self, tickets):
        self.engine.cancel(tickets)


def outcomes(engine, searches, **options):
    """Problem id to outcome, and the scheduler."""
    scheduler = Scheduler(engine, **options)
    return {outcome.problem_id: outcome for outcome in scheduler.run(searches)}, scheduler


def test_naive_searches_fill_the_batch(make_context, recording):
    class Fixed:
        async def search(self, ctx):
            for k in range(5):
                await ctx.generate(ctx.root, "step", n=k + 1)
            return [ctx.root]

    engine = recording()
    searches = [(Fixed(), make_context(f"p{i}")) for i in range(100)]
    _, scheduler = outcomes(engine, searches)
    assert [len(batch) for batch in engine.batches] == [100] * 5
    assert (scheduler.rounds, scheduler.requests) == (5, 500)


def test_max_live_takes_searches_in_as_others_end(make_context, recording):
    live, most = set(), []

    class Watched(OneAtATime):
        async def search(self, ctx):
            live.add(ctx)
            most.append(len(live))
            ranked = await super().search(ctx)
            live.remove(ctx)
            return ranked

    taken = []

    def searches():
        for i in range(20):
            taken.append(i)
            yield Watched(), make_context(f"p{i}")

    engine = recording()
    scheduler = Scheduler(engine, max_live=3)
    run = scheduler.run(searches())
    next(run)
    assert len(taken) < 20
    assert len(list(run)) == 19
    assert max(most) == 3
    assert max(len(batch) for batch in engine.batches) <= 3


def test_max_live_must_be_positive(make_engine):
    with pytest.raises(ValueError, match="max_live=0 must be at least 1"):
        Scheduler(make_engine(), max_live=0)


def test_no_searches(make_engine):
    assert outcomes(make_engine(), [])[0] == {}


@pytest.mark.parametrize("max_live", [None, 4])
def test_a_failing_search_leaves_the_others_untouched(
    max_live, make_context, make_engine, run, snapshot
):
    searches = [
        (Raises() if i % 5 == 0 else OneAtATime(), make_context(f"p{i}")) for i in range(20)
    ]
    found, _ = outcomes(make_engine(), searches, max_live=max_live)
    assert len(found) == 20
    for i in range(20):
        outcome = found[f"p{i}"]
        if i % 5 == 0:
            assert str(outcome.error) == "a bug of the user's"
            assert outcome.requests == 2
            assert outcome.ranked
        else:
            assert outcome.error is None
            assert snapshot(outcome.graph) == snapshot(run(OneAtATime(), problem=f"p{i}").graph)


def test_a_failed_request_fails_its_search_alone(make_context, make_engine, run, snapshot):
    searches = [(OneAtATime(), make_context(f"p{i}")) for i in range(3)]
    found, _ = outcomes(FailingEngine(make_engine(), "p1"), searches)
    assert isinstance(found["p1"].error, LookupError)
    assert found["p1"].ranked == [found["p1"].graph.root]
    for name in ("p0", "p2"):
        assert snapshot(found[name].graph) == snapshot(run(OneAtATime(), problem=name).graph)


def test_a_policy_may_catch_a_failed_request(make_context, make_engine):
    class Careful:
        async def search(self, ctx):
            try:
                return await ctx.expand(ctx.root)
            except LookupError:
                return [ctx.root]

    found, _ = outcomes(FailingEngine(make_engine(), "p"), [(Careful(), make_context())])
    assert found["p"].error is None


def test_a_policy_must_return_nodes(run):
    outcome = run(ReturnsNoNodes())
    assert isinstance(outcome.error, TypeError)
    assert "'done'" in str(outcome.error)
    assert outcome.ranked == [outcome.graph.root]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_live", [None, 3])
@pytest.mark.parametrize(
    "policy", [OneAtATime(), ToTBFS(3, 2), MCTS(12, batch_size=4)], ids=lambda p: type(p).__name__
)
def test_when_replies_come_changes_no_search(
    policy, max_live, seed, make_context, make_engine, run, snapshot
):
    searches = [(policy, make_context(f"p{i}")) for i in range(8)]
    engine = PiecemealEngine(make_engine(), seed)
    found, scheduler = outcomes(engine, searches, max_live=max_live)
    for name, outcome in found.items():
        alone = run(policy, problem=name)
        assert snapshot(outcome.graph) == snapshot(alone.graph)
        assert [n.id for n in outcome.ranked] == [n.id for n in alone.ranked]
        assert (outcome.usage, outcome.requests, outcome.rounds, outcome.parse_failures) == (
            alone.usage,
            alone.requests,
            alone.rounds,
            alone.parse_failures,
        )
    assert scheduler.requests == sum(outcome.requests for outcome in found.values())


def test_batches_are_the_same_every_time(make_context, recording):
    engines = [recording(), recording()]
    for engine in engines:
        outcomes(engine, [(ToTBFS(3), make_context(f"p{i}")) for i in range(10)], max_live=4)
    assert engines[0].batches == engines[1].batches


def test_usage_and_calls_are_those_of_the_engine(make_context, recording):
    engine = recording()
    found, _ = outcomes(engine, [(Raises(), make_context()), (ToTBFS(), make_context("q"))])
    usages = [usage for batch in engine.usages for usage in batch]
    total = sum(usages[1:], usages[0])
    assert found["p"].usage + found["q"].usage == total
    assert found["p"].requests + found["q"].requests == len(engine.requests)


def test_rounds_count_the_waits_for_the_model(run, recording):
    engine = recording()
    outcome = run(ToTBFS(depth=2), engine=engine)
    assert outcome.rounds == len(engine.batches) == 4


def test_each_search_has_its_own_budget(make_context, make_engine):
    searches = [(OneAtATime(), make_context(f"p{i}", budget=Budget(requests=i))) for i in range(5)]
    found, _ = outcomes(make_engine(), searches)
    for i in range(5):
        outcome = found[f"p{i}"]
        assert outcome.requests == i
        assert outcome.budget_hit == "requests"
        assert outcome.error is None


def test_a_policy_names_its_best_so_far(run):
    class NamesTheRoot:
        async def search(self, ctx):
            ctx.best = [ctx.root]
            while True:
                await ctx.gather(*(ctx.expand(node) for node in ctx.graph))
                await ctx.generate(ctx.root, "step")

    outcome = run(NamesTheRoot(), budget=Budget(requests=9))
    assert outcome.budget_hit == "requests"
    assert outcome.ranked == [outcome.graph.root]


def test_abandoning_the_run_leaves_nothing_unawaited(make_context, make_engine):
    searches = [(OneAtATime(), make_context(f"p{i}")) for i in range(6)]
    searches[0] = (ReturnsNoNodes(), make_context("p0"))
    for _ in Scheduler(make_engine()).run(searches):
        break


@pytest.mark.parametrize("leave", ["break", "raise", "policy"])
def test_what_an_earlier_run_asked_never_answers_a_later_one(
    leave, make_context, make_engine, run, snapshot
):
    """Tickets are unique, and a run that is left early, or in which something is raised, cancels
    what the engine has not answered."""

    class Interrupted(OneAtATime):
        async def search(self, ctx):
            await ctx.expand(ctx.root)
            raise KeyboardInterrupt

    engine = PiecemealEngine(make_engine(), 0)
    searches = [(OneAtATime(), make_context(f"old{i}")) for i in range(6)]
    searches[3] = (Interrupted() if leave == "policy" else ReturnsNoNodes(), make_context("old3"))
    outstanding = set()
    with contextlib.suppress(KeyboardInterrupt):
        for _ in Scheduler(engine).run(searches):
            outstanding |= engine.outstanding.keys()
            if leave == "break":
                break
            if leave == "raise":
                raise KeyboardInterrupt
    assert engine.outstanding == {}
    found, _ = outcomes(engine, [(OneAtATime(), make_context(f"p{i}")) for i in range(3)])
    for name, outcome in found.items():
        assert outcome.error is None
        assert snapshot(outcome.graph) == snapshot(run(OneAtATime(), problem=name).graph)


def test_what_an_engine_that_raises_holds_is_cancelled(make_context, make_engine):
    class Broken(PiecemealEngine):
        cancelled = None

        def execute(self, requests):
            self.outstanding |= requests
            raise MemoryError

        def cancel(self, tickets):
            self.cancelled = set(tickets)

    engine = Broken(make_engine(), 0)
    with pytest.raises(MemoryError):
        outcomes(engine, [(OneAtATime(), make_context(f"p{i}")) for i in range(3)])
    assert engine.cancelled == engine.outstanding.keys() and len(engine.cancelled) == 3


def test_tickets_are_unique_for_the_process(make_context, make_engine):
    class Watched(PiecemealEngine):
        def execute(self, requests):
            seen.extend(requests)
            return super().execute(requests)

    seen = []
    for _ in range(2):
        outcomes(Watched(make_engine(), 0), [(OneAtATime(), make_context())])
    assert len(seen) == len(set(seen)) > 4


def test_a_policy_of_ones_own_takes_ten_lines(run):
    class Widening:
        def __init__(self, rounds=4):
            self.rounds = rounds

        async def search(self, ctx):
            frontier = [ctx.root]
            for width in range(1, self.rounds):
                children = flatten(await ctx.gather(*(ctx.expand(n, width) for n in frontier)))
                frontier = top_k(children, await ctx.evaluate(children), width) or frontier
            return frontier

    outcome = run(Widening(), expander=Propose(), evaluator=ValuePrompt())
    assert outcome.error is None
    assert outcome.ranked
