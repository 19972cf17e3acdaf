"""Hugging Face's `generate` as an engine: the greedy texts and the scores of ours."""

import pytest
import torch
from tiny_models import byte_tokenizer, make_network

from treeshare.experiments.hf_engine import HuggingFaceEngine
from treeshare.llm_backend.api import Classify, Failure, Generate, Sampling, Score
from treeshare.llm_backend.engine import TreeEngine
from treeshare.llm_backend.networks import LoadedNetwork

GREEDY = Sampling(max_tokens=9, temperature=0.0)
REQUESTS = {
    0: Generate(("a shared start; ", "one"), 2, GREEDY),
    1: Generate(("a shared start; ", "number two"), 1, GREEDY),
    2: Score(("a shared start; ",), (" up", " down", " a")),
    3: Generate(("a",), 2, Sampling(max_tokens=12, temperature=0.0, stop=("55", "5f5"))),
    4: Score(("four",), (" left",)),
    5: Generate(("five",), 3, Sampling(max_tokens=4, temperature=0.8, top_p=0.9, top_k=5)),
}
MAX_BATCHES = [None, 1, 3, 64]


@pytest.fixture(scope="module")
def loaded():
    return LoadedNetwork(make_network("llama"), byte_tokenizer(), is_random=True)


@pytest.fixture(scope="module")
def model(loaded):
    return loaded.model("torch")


@pytest.fixture(scope="module")
def ours(loaded, model):
    return serve(TreeEngine(model))


def serve(engine, requests=REQUESTS):
    replies = dict(engine.execute(requests))
    while len(replies) < len(requests):
        more = engine.execute({})
        assert more and not more.keys() & replies.keys()
        replies |= more
    return replies


@pytest.fixture
def hf(loaded, model, ours):  # after ours: the network's attention is one or the other
    return lambda max_batch: HuggingFaceEngine(loaded, model, max_batch)


@pytest.mark.parametrize("max_batch", MAX_BATCHES)
def test_greedy_texts_are_ours(max_batch, hf, ours):
    replies = serve(hf(max_batch))
    for ticket in (0, 1, 3):
        for done, expected in zip(
            replies[ticket].completions, ours[ticket].completions, strict=True
        ):
            assert done.text == expected.text
            assert done.num_tokens == expected.num_tokens
            assert done.finish_reason == expected.finish_reason
        assert replies[ticket].usage.prompt_tokens == ours[ticket].usage.prompt_tokens
        assert replies[ticket].usage.completion_tokens == ours[ticket].usage.completion_tokens


def test_one_of_the_texts_ends_at_a_stop_string(ours):
    for done in ours[3].completions:
        assert (done.text, done.num_tokens, done.finish_reason) == ("fff", 6, "stop")


def test_a_text_may_end_by_itself(loaded, monkeypatch):
    model = loaded.model("torch")
    (fourth,) = model.encode("5")  # as the text above goes on
    monkeypatch.setattr(model, "end_tokens", frozenset({fourth}))
    requests = {0: Generate(("a",), 1, GREEDY), 1: Generate(("number",), 1, GREEDY)}
    expected = serve(TreeEngine(model), requests)
    replies = serve(HuggingFaceEngine(loaded, model, 8), requests)
    for ticket, text in ((0, "fff"), (1, None)):
        (done,), (other,) = expected[ticket].completions, replies[ticket].completions
        assert text in (None, done.text)
        assert (done.text, done.num_tokens, done.finish_reason) == (
            other.text, other.num_tokens, other.finish_reason,
        )  # fmt: skip


@pytest.mark.parametrize("max_batch", MAX_BATCHES)
def test_scores_are_ours(max_batch, hf, ours):
    replies = serve(hf(max_batch))
    for ticket in (2, 4):
        assert replies[ticket].logprobs == pytest.approx(ours[ticket].logprobs, abs=1e-3)
        assert replies[ticket].num_tokens == ours[ticket].num_tokens


def test_nothing_is_shared(hf):
    reply = serve(hf(64), {0: REQUESTS[0]})[0]
    prompt = len("a shared start; one")
    used = reply.usage.completion_tokens
    assert reply.usage.logical_kv_tokens == reply.usage.unique_kv_tokens == 2 * prompt + used


def test_samples_depend_on_the_seed_alone(hf):
    def texts(seed):
        request = Generate(("five",), 8, Sampling(max_tokens=6, temperature=1.5), seed)
        return [done.text for done in serve(hf(None), {0: request})[0].completions]

    torch.manual_seed(5)
    first = texts(2**64 - 1)
    torch.manual_seed(6)
    assert texts(2**64 - 1) == first != texts(1)
    assert len(set(first)) > 1


def test_batches_hold_what_they_may(hf):
    engine = hf(3)
    serve(engine, {0: REQUESTS[2], 1: REQUESTS[4]})  # 3 + 1 rows of one kind
    assert (engine.stats().steps, engine.stats().sequences) == (2, 4)
    engine = hf(None)
    serve(engine, {0: REQUESTS[4], 1: REQUESTS[4]})
    assert (engine.stats().steps, engine.stats().sequences) == (2, 2)


def test_what_it_refuses(hf):
    reply = hf(None).execute({0: Classify("q", "a")})[0]
    assert isinstance(reply, Failure) and "no reward model" in str(reply.error)
    with pytest.raises(ValueError, match="max_batch=0 must be at least 1"):
        hf(0)
