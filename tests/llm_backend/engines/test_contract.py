"""What every engine does alike: one reply a request, failures alone, seeds, `n`, cancelling."""

import math
from dataclasses import dataclass
from typing import Any

import pytest

from treeshare.llm_backend.api import (
    Engine,
    EngineCapabilities,
    Failure,
    Generate,
    GenerateReply,
    Reward,
    RewardReply,
    Sampling,
    Score,
    ScoreReply,
)
from treeshare.llm_backend.engines.hf import HuggingFaceEngine
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.llm_backend.engines.replay import ReplayEngine
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.reward.engine import RewardEngine

GREEDY = Sampling(max_tokens=8, temperature=0.0)
SAMPLED = Sampling(max_tokens=8, temperature=1.0)
REQUESTS = {
    3: Generate(("a shared start; ", "one"), 3, SAMPLED, seed=1),
    1: Generate(("a shared start; ", "two"), 1, GREEDY),
    7: Score(("a shared start; ",), (" yes", " no", " maybe so")),
    2: Generate(("another",), 2, Sampling(max_tokens=3, temperature=0.8, top_p=0.9, top_k=9)),
}


@dataclass(frozen=True)
class Kind:
    """An engine of one kind, and whether a model is behind it."""

    make: Any  # of a model and a directory
    has_model: bool = True


KINDS = {
    "tree": Kind(lambda model, path: TreeEngine(model, kv_tokens=400, max_num_seqs=3)),
    "hf": Kind(lambda model, path: HuggingFaceEngine(model, 3)),
    "hf one": Kind(lambda model, path: HuggingFaceEngine(model, None)),
    "reward": Kind(lambda model, path: RewardEngine(TreeEngine(model), MockReward())),
    "recorded": Kind(lambda model, path: ReplayEngine(path / "log", TreeEngine(model))),
    "mock": Kind(lambda model, path: MockEngine(["one", "two words", "three"]), has_model=False),
}


class MockReward:
    def reward(self, requests):
        return list(MockEngine().execute(dict(enumerate(requests))).values())


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def make(kind, llama, tmp_path_factory):
    """A function that makes an engine; all are closed after the test."""
    made = []

    def new():
        made.append(kind.make(llama, tmp_path_factory.mktemp("log")))
        return made[-1]

    yield new
    for engine in made:
        engine.close()


def serve(engine, requests=REQUESTS):
    replies = dict(engine.execute(requests))
    while len(replies) < len(requests):
        more = engine.execute({})
        assert more and not more.keys() & replies.keys()
        replies |= more
    return replies


def texts(reply):
    return [done.text for done in reply.completions]


def assert_same(reply, other):
    assert type(reply) is type(other)
    if isinstance(reply, GenerateReply):
        assert texts(reply) == texts(other)
    else:
        assert reply.logprobs == pytest.approx(other.logprobs, abs=1e-3)


def test_it_has_the_methods_of_an_engine(make):
    engine: Engine = make()
    assert isinstance(engine.capabilities, EngineCapabilities)
    assert engine.stats().steps == 0
    serve(engine)
    assert engine.stats().steps > 0
    engine.close()


def test_every_request_is_answered_once(make):
    engine = make()
    replies = serve(engine)
    assert replies.keys() == REQUESTS.keys()
    assert engine.execute({}) == {}
    for number, request in REQUESTS.items():
        reply = replies[number]
        if isinstance(request, Generate):
            assert isinstance(reply, GenerateReply) and len(reply.completions) == request.n
            for done in reply.completions:
                assert 1 <= done.num_tokens <= request.sampling.max_tokens
                assert done.finish_reason in ("stop", "length")
        else:
            assert isinstance(reply, ScoreReply)
            assert len(reply.logprobs) == len(reply.num_tokens) == len(request.continuations)
        assert reply.usage.prompt_tokens > 0
        assert reply.usage.completion_tokens > 0


def test_what_it_is_capable_of_it_does(make):
    engine = make()
    assert engine.capabilities.scores and engine.capabilities.seeds and engine.capabilities.logprobs
    replies = serve(engine)
    assert all(logprob <= 0 for logprob in replies[7].logprobs)
    for number in (1, 2, 3):
        assert all(-math.inf < done.logprob <= 0 for done in replies[number].completions)
    (reply,) = serve(engine, {0: Reward("a question", "an answer")}).values()
    if engine.capabilities.rewards:
        assert isinstance(reply, RewardReply) and 0 <= reply.score <= 1
    else:
        assert isinstance(reply, Failure) and "no reward model is loaded" in str(reply.error)


def test_a_reply_does_not_depend_on_its_neighbours(make):
    together = serve(make())
    for number, request in REQUESTS.items():
        (alone,) = serve(make(), {number: request}).values()
        assert_same(alone, together[number])


def test_samples_depend_on_the_seed_and_their_number(make):
    def drawn(n, seed):
        (reply,) = serve(make(), {0: Generate(("p",), n, SAMPLED, seed)}).values()
        return texts(reply)

    many = drawn(6, seed=5)
    assert drawn(6, seed=5) == many and len(set(many)) > 1
    assert drawn(2, seed=5) == many[:2]
    assert drawn(6, seed=2**64 - 1) != many


def test_a_stop_string_is_not_in_the_text(make, kind):
    if not kind.has_model:
        pytest.skip("a script knows no stop strings")
    (free,) = serve(make(), {0: Generate(("stop me",), 1, SAMPLED, seed=3)}).values()
    text = texts(free)[0]
    stopped = Sampling(max_tokens=8, temperature=1.0, stop=(text[2:4], "never"))
    (reply,) = serve(make(), {0: Generate(("stop me",), 1, stopped, seed=3)}).values()
    (done,) = reply.completions
    assert (done.text, done.finish_reason) == (text[: text.index(text[2:4])], "stop")
    assert done.num_tokens < free.completions[0].num_tokens


def test_end_tokens_can_be_ignored(make, kind, llama, monkeypatch):
    if not kind.has_model:
        pytest.skip("a script has no end token")
    (free,) = serve(make(), {0: Generate(("p",), 1, GREEDY)}).values()
    (first, *_) = llama.tokenizer.encode(texts(free)[0])
    monkeypatch.setattr(llama.network, "end_tokens", frozenset({first}))
    ended, going = (
        serve(make(), {0: Generate(("p",), 1, Sampling(8, 0.0, ignore_eos=ignores))})[0]
        for ignores in (False, True)
    )
    assert (ended.completions[0].text, ended.completions[0].finish_reason) == ("", "stop")
    assert texts(going) == texts(free)
    assert (going.completions[0].num_tokens, going.completions[0].finish_reason) == (8, "length")


BAD = {
    90: Generate(("half \ud800 a pair",), 1, GREEDY),
    91: Score(("a",), (" yes", "\udc00")),
    92: Generate(("x" * 250,), 1, GREEDY),
    93: Generate(("",), 2, GREEDY),
}


def test_requests_that_cannot_be_served_fail_alone(make, kind):
    if not kind.has_model:
        pytest.skip("a script serves every text")
    replies = serve(make(), {90: BAD[90], **REQUESTS, **BAD})
    assert {number for number, reply in replies.items() if isinstance(reply, Failure)} == {*BAD}
    for number in BAD:
        assert "\n" not in str(replies[number].error)
    expected = serve(make())
    for number in REQUESTS:
        assert_same(replies[number], expected[number])


def test_cancelled_requests_are_never_answered(make):
    engine = make()
    answered = engine.execute(REQUESTS)
    engine.cancel([*(REQUESTS.keys() - answered.keys()), 99])
    assert engine.execute({}) == {}
    (reply,) = serve(engine, {1: REQUESTS[1]}).values()  # the id may come again
    assert_same(reply, serve(make(), {1: REQUESTS[1]})[1])


def test_an_id_that_is_outstanding_is_refused(make, kind):
    if not kind.has_model:
        pytest.skip("a script answers at once")
    engine = make()
    answered = engine.execute(REQUESTS)
    left = min(REQUESTS.keys() - answered.keys())
    with pytest.raises(ValueError, match=f"request id {left} is that of an outstanding request"):
        engine.execute({left: REQUESTS[1]})
