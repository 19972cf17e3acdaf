import math

import pytest

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.evaluators.prompted import (
    Heuristic,
    LogProb,
    Oracle,
    SelfEvaluation,
    ValuePrompt,
    Vote,
)
from treeshare.search.expanders import Propose
from treeshare.tasks.task import Step


class Evaluate:
    """Add a node for each text (a digit string) and evaluate them all in one call."""

    def __init__(self, *texts, logprob=-0.5):
        self.texts = texts
        self.logprob = logprob

    async def search(self, ctx):
        steps = [(Step(text, (ctx.problem.id, *text)), self.logprob) for text in self.texts]
        nodes = ctx.add(ctx.root, steps, dedupe=False)
        await ctx.evaluate(nodes)
        return nodes


def values(outcome):
    assert outcome.error is None
    return [node.value for node in outcome.ranked]


def test_sampled_values_are_the_mean_of_the_readable_verdicts(run, recording):
    verdicts = {"p 1": ["sure", "likely", "?"], "p 2": ["?", "?", "?"], "p 3": ["impossible"] * 3}
    engine = recording(MockEngine(lambda prompt, seed, k: verdicts[prompt.split("\n")[1]][k]))
    outcome = run(Evaluate("1", "2", "3"), engine=engine, evaluator=ValuePrompt(3))
    assert values(outcome) == [0.75, 0.0, 0.0]
    assert outcome.parse_failures == 4
    assert [len(batch) for batch in engine.batches] == [3]
    assert [request.n for request in engine.requests] == [3, 3, 3]


@pytest.mark.parametrize("mode", ["sample", "score"])
def test_equal_states_are_asked_once_a_call(mode, run, recording):
    engine = recording()
    outcome = run(Evaluate("1", "2", "1", "1"), engine=engine, evaluator=ValuePrompt(mode=mode))
    assert len(engine.requests) == 2
    one, two, *rest = values(outcome)
    assert rest == [one, one]
    assert 0 <= two <= 1


def test_scored_value_is_the_expectation_over_the_verdicts(run, recording):
    logprobs = {"sure": math.log(0.1), "likely": math.log(0.3), "impossible": math.log(0.1)}
    engine = recording(MockEngine(score=lambda prompt, text: logprobs[text]))
    outcome = run(Evaluate("1"), engine=engine, evaluator=ValuePrompt(mode="score"))
    assert values(outcome) == pytest.approx([(0.1 * 1 + 0.3 * 0.5) / 0.5])
    assert engine.requests[0].continuations == ("sure", "likely", "impossible")


def test_self_evaluation_is_the_renormalised_probability_of_yes(run, recording):
    probabilities = {("judge\np 1", " yes"): 0.3, ("judge\np 1", " no"): 0.1}
    probabilities |= {("judge\np 2", " yes"): 0.05, ("judge\np 2", " no"): 0.95}
    engine = recording(MockEngine(score=lambda *asked: math.log(probabilities[asked])))
    outcome = run(Evaluate("1", "2", "1"), engine=engine, evaluator=SelfEvaluation())
    assert values(outcome) == pytest.approx([0.75, 0.05, 0.75])
    assert [len(batch) for batch in engine.batches] == [2]
    assert {request.continuations for request in engine.requests} == {(" yes", " no")}
    assert not engine.has_seeds


def test_vote_is_the_share_of_the_readable_votes(run, recording):
    votes = ["2", "0", "2", "neither", "2"]
    engine = recording(MockEngine(lambda prompt, seed, k: votes[k]))
    outcome = run(Evaluate("1", "2", "3"), engine=engine, evaluator=Vote(5))
    assert values(outcome) == [1 / 4, 0.0, 3 / 4]
    assert outcome.parse_failures == 1
    (request,) = engine.requests
    assert "".join(request.prefix_segments) == "vote\np 1 | p 2 | p 3"


def test_vote_without_readable_votes_is_zero(run):
    engine = MockEngine(["none of them"])
    assert values(run(Evaluate("1", "2"), engine=engine, evaluator=Vote())) == [0.0, 0.0]


def test_log_probability_adds_up_along_the_path(run):
    class TwoSteps:
        async def search(self, ctx):
            (first,) = ctx.add(ctx.root, [(Step("1", ("p", "1")), -0.5)])
            (second,) = ctx.add(first, [(Step("2", ("p", "1", "2")), -2.0)])
            await ctx.evaluate([first, second])
            return [first, second]

    assert values(run(TwoSteps(), evaluator=LogProb())) == [-0.5, -2.5]


def test_log_probability_must_be_known(run):
    outcome = run(Evaluate("1", logprob=None), evaluator=LogProb(), expander=Propose())
    assert isinstance(outcome.error, ValueError)
    assert "'1' has no log-probability" in str(outcome.error)


def test_heuristic_is_the_tasks(run, Digits):
    outcome = run(Evaluate("1", "2"), evaluator=Heuristic())
    assert values(outcome) == [Digits().heuristic(("p", d)) for d in "12"]


def test_oracle_asks_the_verifier_and_says_so(run):
    class Verifier:
        def promise(self, problem, state):
            return float(problem.id == "p" and "1" in state)

    oracle = Oracle(Verifier())
    assert oracle.is_oracle
    assert values(run(Evaluate("1", "2"), evaluator=oracle)) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ValuePrompt(num_samples=0), "num_samples=0 must be at least 1"),
        (lambda: ValuePrompt(mode="guess"), "mode='guess' must be one of sample, score"),
        (lambda: Vote(num_samples=-1), "num_samples=-1 must be at least 1"),
    ],
    ids=["samples", "mode", "votes"],
)
def test_parameters_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
