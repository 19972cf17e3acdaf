import pytest

from treeshare.llm_backend.api import Failure, Generate, Reward, Score, ScoreReply, Usage
from treeshare.search.budget import Budget, Meter, least_tokens


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"tokens": -1}, r"budget.tokens=-1 must be at least 0"),
        ({"seconds": -0.5}, r"budget.seconds=-0.5 must be at least 0"),
        ({"price_prompt": -1.0}, r"budget.price_prompt=-1.0 must be at least 0"),
        ({"tokens": 2.5}, r"budget.tokens=2.5 must be a whole number, or null"),
        ({"requests": True}, r"budget.requests=True must be a whole number, or null"),
        ({"seconds": "5"}, r"budget.seconds='5' must be a number, or null"),
        ({"money": float("nan")}, r"budget.money=nan must be at least 0"),
        ({"nodes": 0}, r"budget.nodes=0 must be at least 1"),
        ({"money": 1.0}, r"budget.money=1.0 needs budget.price_prompt"),
    ],
)
def test_limits_below_their_bound_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        Budget(**limits)


def test_without_limits_all_is_admitted():
    meter = Meter(Budget(), usage=Usage(10**9, 10**9), requests=10**9)
    assert meter.admit(10**9, 10**9)
    assert meter.hit is None


def test_calls_are_exact():
    meter = Meter(Budget(requests=5), requests=3)
    assert meter.admit(2)
    assert meter.hit is None
    assert not meter.admit(3)
    assert meter.hit == "requests"


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (Budget(tokens=30), "tokens"),
        (Budget(money=0.5, price_prompt=10_000, price_completion=15_000), "money"),
        (Budget(seconds=0), "seconds"),
    ],
)
def test_soft_limits_refuse_once_spent(budget, name):
    meter = Meter(budget, usage=Usage(prompt_tokens=20, completion_tokens=20))
    assert not meter.admit(1)
    assert meter.hit == name


def test_soft_limits_admit_until_spent():
    usage = Usage(prompt_tokens=20, completion_tokens=9)
    budget = Budget(tokens=30, money=0.5, price_prompt=10_000, price_completion=15_000)
    meter = Meter(budget, usage=usage)
    assert meter.tokens == 29
    assert meter.money == pytest.approx(20 * 0.01 + 9 * 0.015)
    assert meter.admit(1)


def test_requests_that_must_cost_more_than_is_left_are_refused():
    meter = Meter(Budget(tokens=30), usage=Usage(prompt_tokens=10))
    assert meter.admit(1, min_tokens=20)
    assert not meter.admit(1, min_tokens=21)
    assert meter.hit == "tokens"


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        (Generate(("a",), n=7), 7),
        (Score(("a",), ("x", "y")), 2),
        (Reward("question", "answer"), 0),
    ],
)
def test_a_request_costs_a_token_for_each_sample_or_scored_text(request_, tokens):
    assert least_tokens(request_) == tokens


def test_a_meter_adds_up_usage():
    meter = Meter(Budget(requests=9))
    meter.add([ScoreReply((0.0,), (1,), Usage(3, 1)), Failure(ValueError())])
    assert meter.usage == meter.spent.usage == Usage(3, 1)
