import math
from dataclasses import replace

import pytest

from treeshare.llm_backend.api import GenerateReply
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.budget import Budget
from treeshare.search.evaluators.composite import Combined, Memo
from treeshare.search.evaluators.prompted import (
    Heuristic,
    SelfEvaluation,
    ValuePrompt,
    Vote,
)
from treeshare.search.expanders import Choose, Propose, Sample
from treeshare.search.policies.got import GoT
from treeshare.search.policies.one_shot import CoT
from treeshare.search.policies.self_refine import SelfRefine
from treeshare.search.policies.tot import ToTBFS
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.task import Step


class Bare:
    """The mandatory part of a task only."""

    name = "bare"
    sampling = {}  # noqa: RUF012

    def root(self, problem):
        return ()

    def is_terminal(self, state):
        return False


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"expander": Choose()}, r"Choose needs a task that is HasMoves: task 'bare' has no moves"),
        (
            {"evaluator": ValuePrompt()},
            r"ValuePrompt .* HasValues: task 'bare' has no parse_value, values",
        ),
        ({"evaluator": Vote()}, r"Vote .* HasVotes: task 'bare' has no parse_vote"),
        ({"evaluator": Heuristic()}, r"Heuristic .* HasHeuristic: task 'bare' has no heuristic"),
        ({"evaluator": SelfEvaluation()}, r"SelfEvaluation .* task 'bare' has no yes_no"),
        ({"evaluator": Combined({"a": Combined({"b": Vote()})})}, r"Vote needs a task .* HasVotes"),
        ({"evaluator": Memo(Heuristic())}, r"Heuristic needs a task that is HasHeuristic"),
    ],
    ids=lambda value: "",
)
def test_a_task_that_lacks_a_protocol_is_refused_at_once(parts, message, make_context):
    with pytest.raises(TypeError, match=message):
        make_context(task=Bare(), **({"evaluator": object()} | parts))


def in_search(run, body, **context):
    """The outcome of a search that runs `body(ctx)`."""

    class Body:
        async def search(self, ctx):
            await body(ctx)
            return [ctx.root]

    outcome = run(Body(), **context)
    if outcome.error:
        raise outcome.error
    return outcome


def test_nodes_are_valued_once(run):
    asked = []

    class Ids:
        async def evaluate(self, ctx, nodes):
            asked.append([node.id for node in nodes])
            return [float(node.id) for node in nodes]

    async def body(ctx):
        a, b, c = ctx.add(ctx.root, [(Step(text, ("p", text)), None) for text in "abc"])
        assert await ctx.evaluate([b, a, b]) == [2.0, 1.0, 2.0]
        assert await ctx.evaluate([a, b]) == [1.0, 2.0]
        assert await ctx.evaluate([a, c, b]) == [1.0, 3.0, 2.0]
        assert await ctx.evaluate([]) == []

    in_search(run, body, evaluator=Ids())
    assert asked == [[2, 1], [3]]


def test_last_nodes_of_a_spent_node_limit_are_still_valued(run):
    async def body(ctx):
        children = await ctx.expand(ctx.root, 2)
        assert len(children) == 2
        await ctx.evaluate(children)
        await ctx.expand(ctx.root)
        raise AssertionError("the search should have ended")

    outcome = in_search(run, body, budget=Budget(nodes=3))
    assert outcome.budget_hit == "nodes"
    assert all(node.value is not None for node in outcome.ranked)


@pytest.mark.parametrize("verb", ["expand", "sample"])
def test_depth_limit_stops_both_verbs(verb, run):
    async def body(ctx):
        children = await (ctx.expand(ctx.root) if verb == "expand" else ctx.sample(ctx.root, "cot"))
        assert children == []

    outcome = in_search(run, body, budget=Budget(depth=0))
    assert outcome.requests == 0


def test_equal_siblings_are_dropped_or_kept(make_context):
    ctx = make_context()
    steps = [(Step(text, ("p", text)), None) for text in "aab"]
    assert [node.text for node in ctx.add(ctx.root, steps)] == ["a", "b"]
    assert [node.text for node in ctx.add(ctx.root, steps)] == []
    assert [node.text for node in ctx.add(ctx.root, steps, dedupe=False)] == ["a", "a", "b"]


def test_steps_may_be_added_below_several_nodes(make_context):
    ctx = make_context(budget=Budget(nodes=4))
    a, b = ctx.add(ctx.root, [(Step(text, ("p", text)), None) for text in "ab"])
    (merged,) = ctx.add([a, b], [(Step("ab", ("p", "a", "b")), -1.0)] * 2, dedupe=False)
    assert merged.parents == [a, b]
    assert ctx.graph.is_full
    assert ctx.spent.hit == "nodes"


def test_ranking_takes_terminal_nodes_then_the_deepest(make_context):
    ctx = make_context()
    assert ctx.ranked() == [ctx.root]
    a, b, c = ctx.add(ctx.root, [(Step(t, ("p", t)), None) for t in "123"])
    b.value = c.value = 0.5
    assert ctx.ranked() == [b, c, a]
    low, high = ctx.add(a, [(Step(t, ("p", "1", t)), None) for t in "12"])
    assert ctx.ranked() == [low, high]
    terminal, unvalued = ctx.add(ctx.root, [(Step(t, ("p", t, "0")), None) for t in "45"])
    terminal.value = -3.0
    assert ctx.ranked() == [terminal, unvalued]
    assert ctx.ranked(key=lambda node: node.id) == [unvalued, terminal]


def test_the_depth_is_the_tasks_or_16(make_context, Digits):
    class Deep(Digits):
        def max_steps(self, problem):
            return len(problem.id)

    assert make_context("abc", task=Deep()).depth == 3
    assert make_context(task=Digits()).depth == 16


@pytest.mark.parametrize(
    ("max_steps", "error", "message"),
    [
        (3, TypeError, r"Odd.max_steps is the int 3, not a method max_steps\(problem\)"),
        (lambda problem: 2.5, TypeError, r"what Odd.max_steps returned is .*2.5, not a whole"),
        (lambda problem: None, TypeError, r"what Odd.max_steps returned is None, not a whole"),
        (lambda problem: 0, ValueError, r"what Odd.max_steps returned is 0; it must be at least 1"),
    ],
)
def test_a_depth_of_the_task_that_is_none_is_refused_at_once(
    max_steps, error, message, make_context, Digits
):
    class Odd(Digits):
        pass

    Odd.max_steps = staticmethod(max_steps) if callable(max_steps) else max_steps
    with pytest.raises(error, match=message):
        make_context(task=Odd())


@pytest.mark.parametrize(
    ("expander", "given", "drawn"),
    [(Sample(), None, 4), (Sample(), 2, 2), (Propose(), None, 1), (Propose(), 3, 3)],
    ids=repr,
)
def test_an_expansion_without_a_number_draws_the_expanders(expander, given, drawn, run, recording):
    engine = recording()
    policy = ToTBFS(depth=1, num_samples=given)
    run(policy, engine=engine, expander=expander, evaluator=Heuristic())
    assert [request.n for request in engine.requests] == [drawn]


def test_an_expanders_number_of_samples_is_checked(make_context):
    class Many(Sample):
        default_samples = 0

    with pytest.raises(ValueError, match=r"Many.default_samples is 0; it must be at least 1"):
        make_context(expander=Many())


def test_seeds_differ_by_run_problem_node_role_and_repetition(make_context):
    def seeds(**context):
        ctx = make_context(**context)
        (child,) = ctx.add(ctx.root, [(Step("1", ("p", "1")), None)])
        return [
            ctx.request_seed(node, role)
            for node in (ctx.root, child)
            for role in ("step", "value", "step")
        ]

    assert seeds() == seeds()
    everything = seeds() + seeds(seed=1) + seeds(problem="q")
    assert len(set(everything)) == len(everything)
    assert all(0 <= seed < 2**64 for seed in everything)


def test_a_policys_own_draws_are_fixed_by_seed_problem_and_key(make_context):
    draws = [
        make_context(problem, seed=seed).random(key).random()
        for problem in "pq"
        for seed in (0, 1)
        for key in ("a", "b")
    ]
    assert len(set(draws)) == len(draws)
    assert make_context().random("a").random() == make_context().random("a").random()
    assert not math.isnan(draws[0])


def test_a_root_that_cannot_be_hashed_is_refused_at_once(make_context):
    class Listed(Bare):
        def root(self, problem):
            return ["p"]

    with pytest.raises(TypeError, match=r"the root's state of Listed is the list \['p'\], which"):
        make_context(task=Listed(), evaluator=object())


def test_a_role_without_sampling_is_named(make_context, run, Digits):
    class Quiet(Digits):
        sampling = {"step": {}}  # noqa: RUF012

    async def body(ctx):
        await ctx.generate(ctx.root, "value")

    with pytest.raises(ValueError, match=r"task 'digits' has no sampling for 'value'; it has step"):
        in_search(run, body, task=Quiet())


def test_what_was_spent_is_a_copy(run):
    seen = []

    async def body(ctx):
        seen.append(ctx.spent)
        await ctx.expand(ctx.root)
        seen.append(ctx.spent)

    outcome = in_search(run, body)
    assert [spent.requests for spent in seen] == [0, 1]
    assert seen[1].usage == outcome.usage


@pytest.mark.parametrize("ends", ["error", "budget"])
@pytest.mark.parametrize("spoil", ["best", "values"])
def test_what_cannot_be_ranked_is_an_error_of_that_search(ends, spoil, make_context, make_engine):
    class Spoils:
        async def search(self, ctx):
            ctx.add(ctx.root, [(Step(t, ("p", "1", t)), None) for t in "12"])
            if spoil == "best":
                ctx.best = [ctx.root]
                ctx.best.append(7)
            else:
                ctx.graph.nodes[1].value = "a"
                ctx.graph.nodes[2].value = 1.0
            if ends == "error":
                raise LookupError("mine")
            await ctx.generate(ctx.root, "step")
            await ctx.generate(ctx.root, "step")

    class Honest:
        async def search(self, ctx):
            return await ctx.expand(ctx.root)

    searches = [
        (Spoils(), make_context("bad", budget=Budget(requests=1))),
        (Honest(), make_context()),
    ]
    found = {outcome.problem_id: outcome for outcome in Scheduler(make_engine()).run(searches)}
    assert found["p"].error is None
    assert found["bad"].ranked == []
    expected = {"best": "item 1 of ctx.best is the int 7", "values": "'<' not supported"}
    message = str(found["bad"].error)
    assert message.startswith("mine" if ends == "error" else expected[spoil])


def test_a_list_set_as_best_may_grow(run):
    class Grows:
        async def search(self, ctx):
            ctx.best = found = [ctx.root]
            while True:
                found += await ctx.sample(ctx.root, "cot", 3)

    outcome = run(Grows(), budget=Budget(requests=2))
    assert outcome.error is None
    assert len(outcome.ranked) > 1


class WithoutLogprobs(MockEngine):
    """An engine whose completions have no log-probabilities."""

    def execute(self, requests):
        return {number: self.without(reply) for number, reply in super().execute(requests).items()}

    def without(self, reply):
        if not isinstance(reply, GenerateReply):
            return reply
        stripped = (replace(one, logprob=math.nan) for one in reply.completions)
        return replace(reply, completions=tuple(stripped))


@pytest.mark.parametrize(
    "policy",
    [CoT(), ToTBFS(num_samples=3), SelfRefine(), GoT(1, 1, 1)],
    ids=lambda p: type(p).__name__,
)
def test_steps_have_no_logprob_where_the_engine_gives_none(policy, run):
    engine = WithoutLogprobs(lambda prompt, seed, k: "1 2 3")
    outcome = run(policy, engine=engine, expander=Sample(), evaluator=Heuristic())
    assert outcome.error is None
    assert len(outcome.graph) > 1
    assert {node.logprob for node in outcome.graph} == {None}
