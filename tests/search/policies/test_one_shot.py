import pytest

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.budget import Budget
from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.policies.one_shot import (
    IO,
    BestOfN,
    CoT,
    SelfConsistency,
    WeightedSelfConsistency,
)


def replies(*texts):
    """An engine whose k-th sample is the k-th text."""
    return MockEngine(lambda prompt, seed, k: texts[k])


@pytest.mark.parametrize(("policy", "role"), [(IO(), "io"), (CoT(), "cot")])
def test_one_sample_of_the_role(policy, role, run, recording):
    engine = recording(replies("1 2 3"))
    outcome = run(policy, engine=engine)
    (request,) = engine.requests
    assert "".join(request.prefix_segments) == f"{role}\np"
    assert request.n == 1
    (node,) = outcome.ranked
    assert node.state == ("p", "1", "2", "3")
    assert node.is_terminal
    assert node.logprob == -3.0


@pytest.mark.parametrize(
    "policy", [IO(), CoT(), SelfConsistency(2), WeightedSelfConsistency(2), BestOfN(2)]
)
def test_nothing_readable_gives_an_empty_ranking(policy, run):
    outcome = run(policy, engine=replies("?", "?"))
    assert outcome.ranked == []
    assert outcome.error is None


def test_majority_wins_and_ties_go_to_the_first_answer(run, Digits):
    texts = ["3 0", "1 1", "2 0", "?", "1 0", "2 0", "1 0", "0"]
    outcome = run(SelfConsistency(8), engine=replies(*texts))
    answers = [Digits().answer(node.state) for node in outcome.ranked]
    # "1 1" is no finished solution, so it has no vote
    assert answers == ["20", "10", "30", "0"]
    assert [node.position for node in outcome.ranked] == [2, 3, 0, 6]
    assert outcome.parse_failures == 1


@pytest.mark.parametrize("policy", [SelfConsistency(3, role="io"), BestOfN(3, role="io")])
def test_samples_come_from_one_request_of_the_role(policy, run, recording):
    engine = recording(replies("0", "0", "0"))
    outcome = run(policy, engine=engine, evaluator=Heuristic())
    assert [(r.n, r.prefix_segments[0]) for r in engine.requests] == [(3, "io\n")]
    assert len(outcome.graph) == 1 + 3


def test_best_of_n_ranks_by_value(run, Digits):
    outcome = run(BestOfN(4), engine=replies("1 0", "2 0", "3 0", "0"), evaluator=Heuristic())
    values = [node.value for node in outcome.ranked]
    assert values == sorted(values, reverse=True)
    assert values == [Digits().heuristic(node.state) for node in outcome.ranked]
    assert len(values) == 4


def test_votes_are_weighted_by_value(run):
    texts = ["3 0", "1 1", "2 0", "?", "1 0", "2 0"]
    value = {"3 0": "sure", "2 0": "likely", "1 0": "likely"}

    def reply(prompt, seed, k):
        role, _, state = prompt.partition("\n")
        return texts[k] if role == "cot" else value[state[2:]]

    engine = MockEngine(reply)
    outcome = run(WeightedSelfConsistency(6), engine=engine)
    # 30 once for 1.0, 20 twice for 0.5, 10 once for 0.5; the unfinished 11 is not even valued
    assert [node.position for node in outcome.ranked] == [0, 2, 3]
    assert outcome.graph.nodes[2].value is None
    outcome = run(WeightedSelfConsistency(6), engine=engine, budget=Budget(requests=1))
    assert outcome.budget_hit == "requests"
    assert [node.position for node in outcome.ranked] == [2, 0, 3]
