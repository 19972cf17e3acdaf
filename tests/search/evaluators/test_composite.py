import math

import pytest

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.budget import Budget
from treeshare.search.evaluators.composite import Combined, Memo
from treeshare.search.evaluators.prompted import (
    Heuristic,
    LogProb,
    Oracle,
    SelfEvaluation,
    ValuePrompt,
    Vote,
)
from treeshare.search.expanders import Choose
from treeshare.search.parts import traits_of
from treeshare.search.policies.beam import Beam
from treeshare.search.policies.simulation.mcts import MCTS
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.task import Step

SCORED = ValuePrompt(mode="score")
ORACLE = Oracle(None)


class Evaluate:
    """Add a node for each text (a digit string) and evaluate them all in one call."""

    def __init__(self, *texts):
        self.texts = texts

    def state(self, ctx, text):
        return (ctx.problem.id, *text)

    async def search(self, ctx):
        steps = [(Step(text, self.state(ctx, text)), None) for text in self.texts]
        nodes = ctx.add(ctx.root, steps, dedupe=False)
        await ctx.evaluate(nodes)
        return nodes


class EvaluateShared(Evaluate):
    """The states of all searches are of one problem."""

    def state(self, ctx, text):
        return ("shared", *text)


def values(outcome):
    assert outcome.error is None
    return [node.value for node in outcome.ranked]


def run_all(searches, engine, max_live=None):
    """Outcomes in the order of the searches."""
    done = {o.problem_id: o for o in Scheduler(engine, max_live=max_live).run(searches)}
    return [done[ctx.problem.id] for _, ctx in searches]


def test_combined_value_is_the_weighted_mean(run, Digits):
    alone = [
        values(run(Evaluate("1", "2"), evaluator=evaluator)) for evaluator in (SCORED, Heuristic())
    ]
    parts = {"value": SCORED, "heuristic": Heuristic()}
    for weights, (v, h) in [({"heuristic": 1, "value": 3}, (3, 1)), (None, (1, 1))]:
        got = values(run(Evaluate("1", "2"), evaluator=Combined(parts, weights)))
        expected = [(v * a + h * b) / (v + h) for a, b in zip(*alone, strict=True)]
        assert got == pytest.approx(expected)


def test_combined_requests_share_a_round(run, recording):
    parts = {"value": ValuePrompt(), "yes": SelfEvaluation(), "cheap": Heuristic(), "vote": Vote()}
    engine = recording()
    outcome = run(Evaluate("1", "2", "1"), engine=engine, evaluator=Combined(parts))
    assert outcome.error is None
    assert [len(batch) for batch in engine.batches] == [2 + 2 + 1]


def test_combined_does_not_ask_a_part_of_weight_zero(run, recording):
    engine = recording()
    evaluator = Combined({"value": SCORED, "cheap": Heuristic()}, {"value": 0, "cheap": 2})
    outcome = run(Evaluate("1"), engine=engine, evaluator=evaluator)
    assert values(outcome) == values(run(Evaluate("1"), evaluator=Heuristic()))
    assert engine.requests == []


def test_combined_is_an_oracle_if_any_part_is():
    assert not traits_of(Combined({"a": Heuristic(), "b": SCORED})).is_oracle
    assert traits_of(Combined({"a": Heuristic(), "b": ORACLE})).is_oracle
    assert traits_of(Combined({"a": Combined({"b": ORACLE})})).is_oracle


def test_combined_fails_as_its_part_fails(run):
    outcome = run(Evaluate("1"), evaluator=Combined({"value": SCORED, "path": LogProb()}))
    assert "'1' has no log-probability" in str(outcome.error)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1}, "weights are of a, but evaluators are a, b"),
        ({"a": 1, "c": 1}, "weights are of a, c, but evaluators are a, b"),
        ({}, "weights are of none, but evaluators are a, b"),
        ({"a": 1, "b": -1}, "weights.b=-1 must be a finite number, at least 0"),
        ({"a": 1, "b": math.inf}, "weights.b=inf must be"),
        ({"a": 1, "b": math.nan}, "weights.b=nan must be"),
        ({"a": 1, "b": "x"}, "weights.b='x' must be"),
        ({"a": 0, "b": 0}, "weights of a, b are all 0"),
    ],
)
def test_weights_are_checked(weights, message):
    with pytest.raises(ValueError, match=message):
        Combined({"a": Heuristic(), "b": SCORED}, weights)


def test_combined_needs_a_part():
    with pytest.raises(ValueError, match="evaluators is empty"):
        Combined({})


@pytest.mark.parametrize("evaluator", [SCORED, SelfEvaluation()], ids=["score", "judge"])
def test_memo_asks_once_in_a_run(evaluator, make_context, recording):
    engine, memo = recording(), Memo(evaluator)
    policies = [EvaluateShared("1", "2", "1"), EvaluateShared("2", "3"), EvaluateShared("3", "3")]
    searches = [
        (policy, make_context(f"p{i}", evaluator=memo)) for i, policy in enumerate(policies)
    ]
    outcomes = run_all(searches, engine, max_live=1)
    assert [len(batch) for batch in engine.batches] == [2, 1]
    assert [outcome.requests for outcome in outcomes] == [2, 1, 0]
    assert memo.memo_hits == 2  # 2 in the second search, 3 in the third
    (one, two, again), (two_again, three), threes = map(values, outcomes)
    assert (again, two_again, threes) == (one, two, [three, three])


def test_searches_of_one_round_do_not_wait_for_each_other(make_context, recording):
    engine, memo = recording(), Memo(SCORED)
    searches = [(EvaluateShared("1"), make_context(f"p{i}", evaluator=memo)) for i in range(3)]
    outcomes = run_all(searches, engine)
    assert [len(batch) for batch in engine.batches] == [3]
    assert memo.memo_hits == 0
    assert len({tuple(values(outcome)) for outcome in outcomes}) == 1


@pytest.mark.parametrize("evaluator", [SCORED, SelfEvaluation(), Heuristic()], ids=repr)
@pytest.mark.parametrize("policy", [Beam(3), MCTS(20, batch_size=4)], ids=["beam", "mcts"])
@pytest.mark.parametrize("max_live", [1, 2, None])
def test_memo_changes_no_search(
    policy, evaluator, max_live, make_context, make_engine, snapshot, RandomTree
):
    def graphs(evaluator, order):
        names = [f"p{i}" for i in order]
        contexts = [
            make_context(name, task=RandomTree(), expander=Choose(), evaluator=evaluator)
            for name in names
        ]
        outcomes = run_all([(policy, ctx) for ctx in contexts], make_engine(), max_live)
        assert all(outcome.error is None for outcome in outcomes)
        return {
            name: (snapshot(outcome.graph), [node.id for node in outcome.ranked])
            for name, outcome in zip(names, outcomes, strict=True)
        }

    memo = Memo(evaluator)
    expected = graphs(evaluator, range(4))
    assert graphs(memo, range(4)) == expected
    assert graphs(memo, [2, 0]) == {name: expected[name] for name in ("p2", "p0")}
    assert memo.memo_hits > 0


def test_memo_keeps_values_by_prompt_not_by_state(make_context, Digits):
    """Of two puzzles with equal states, and of two equal states of one call, the prompts differ."""

    class Told(tuple):  # equal whatever the note
        note = ""

    class Noted(Digits):
        def prompt(self, role, state):
            return (*super().prompt(role, state), state.note)

    class EvaluateTold(Evaluate):
        def state(self, ctx, text):
            state = Told(("shared", *text[:1]))
            state.note = text[1:]
            return state

    def search(*cases):
        memo = Memo(SCORED)
        return run_all(
            [
                (EvaluateTold(*texts), make_context(name, task=Noted(), evaluator=memo))
                for name, texts in cases
            ],
            MockEngine(),
            max_live=1,
        )

    (a,) = search(("p0", ("1a",)))
    (b,) = search(("p0", ("1b",)))
    assert values(a) != values(b)
    both, again = search(("p0", ("1a", "1b")), ("p1", ("1b", "1a")))
    assert values(both) == values(a) * 2
    assert values(again) == values(b) * 2


def test_a_failed_request_is_not_kept(make_context, make_engine):
    def broken(prompt, text):
        raise ZeroDivisionError

    memo = Memo(SCORED)
    search = [(EvaluateShared("1"), make_context(evaluator=memo))]
    with pytest.raises(ZeroDivisionError):
        run_all(search, MockEngine(score=broken))
    (outcome,) = run_all([(EvaluateShared("1"), make_context(evaluator=memo))], make_engine())
    assert outcome.requests == 1 and memo.memo_hits == 0


@pytest.mark.parametrize(
    "evaluator",
    [
        ValuePrompt(),
        Vote(),
        LogProb(),
        ORACLE,
        Combined({"a": Heuristic(), "b": ValuePrompt()}),
        Memo(Heuristic()),
    ],
    ids=lambda evaluator: type(evaluator).__name__,
)
def test_memo_refuses_values_that_may_differ_between_searches(evaluator):
    with pytest.raises(ValueError, match=r"^Memo cannot keep the values of .*; use .*score$"):
        Memo(evaluator)


@pytest.mark.parametrize("evaluator", [Memo(SCORED), Combined({"a": Memo(SCORED)})], ids=repr)
def test_memo_refuses_a_budget_of_what_it_saves(evaluator, make_context):
    for budget in (Budget(requests=9), Budget(tokens=9), Budget(money=1, price_prompt=1)):
        with pytest.raises(ValueError, match=r"budget\.\w+ cannot be used with Memo"):
            make_context(evaluator=evaluator, budget=budget)
    make_context(evaluator=evaluator, budget=Budget(nodes=9, depth=2, seconds=9))


def test_hits_of_parts_add_up(run):
    evaluator = Combined({"a": Memo(SCORED), "b": Memo(SelfEvaluation()), "c": Heuristic()})
    first, second = (run(Evaluate("1", "2"), evaluator=evaluator) for _ in range(2))
    assert values(first) == values(second)
    assert traits_of(evaluator).memo_hits == 4
