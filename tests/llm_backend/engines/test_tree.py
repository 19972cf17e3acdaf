"""The tree engine's behaviour: stops, samples, limits, failures, pressure and independence."""

import pytest
from attention_check import DEVICE
from tiny_models import byte_tokenizer, make_network

from treeshare.llm_backend.api import (
    Failure,
    Generate,
    OutOfKVMemory,
    PromptTooLong,
    Sampling,
    Score,
)
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model

GREEDY = Sampling(max_tokens=12, temperature=0.0)
SAMPLED = Sampling(max_tokens=12, temperature=1.0)


def serve(engine, requests):
    """All replies, in the order of the requests."""
    replies, new = {}, dict(enumerate(requests))
    while len(replies) < len(requests):
        replies |= engine.execute(new)
        engine.cache.check_integrity()
        new = {}
    assert engine.execute({}) == {}
    return [replies[number] for number in range(len(requests))]


def mixed_requests(count):
    shared = "a shared start of every prompt; "
    generate = [
        Generate((shared, f"number {i}"), 1 + i % 3, SAMPLED if i % 2 else GREEDY, seed=i)
        for i in range(count)
    ]
    score = [Score((shared, f"number {i}"), (" one", " two", " on")) for i in range(0, count, 3)]
    return generate + score


def texts(reply):
    return [completion.text for completion in reply.completions]


def assert_same(reply, other):
    if hasattr(reply, "completions"):
        assert texts(reply) == texts(other)
    else:
        assert reply.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_deft_kernels_give_the_same_replies(llama):
    """In prompts computed in parts, samples, scores, and under pressure."""
    requests = mixed_requests(4)
    deft = Model.of(make_network("llama").to(DEVICE), byte_tokenizer(), attention="deft")
    limits = {"kv_tokens": 130, "max_num_batched_tokens": 23}
    for reply, other in zip(
        serve(TreeEngine(deft, **limits), requests), serve(TreeEngine(llama), requests), strict=True
    ):
        assert_same(reply, other)


@pytest.mark.parametrize("num_others", [1, 6, 31])
def test_neighbours_do_not_change_a_reply(llama, num_others):
    requests = mixed_requests(1 + num_others)
    together = serve(TreeEngine(llama), requests)
    for request, reply in list(zip(requests, together, strict=True))[:: max(1, num_others // 6)]:
        (alone,) = serve(TreeEngine(llama), [request])
        assert_same(alone, reply)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_num_seqs": 1},
        {"max_num_batched_tokens": 3},
        {"kv_tokens": 64},
        {"kv_tokens": 64, "max_num_seqs": 2},
    ],
    ids=str,
)
def test_limits_change_the_speed_and_not_the_replies(llama, limits):
    requests = mixed_requests(9)
    engine = TreeEngine(llama, **limits)
    for reply, expected in zip(
        serve(engine, requests), serve(TreeEngine(llama), requests), strict=True
    ):
        assert_same(reply, expected)
    stats = engine.stats()
    if "kv_tokens" in limits:
        assert stats.peak_kv_tokens <= 64
        assert stats.evicted_kv_tokens > 0
    if "max_num_seqs" in limits:
        assert stats.sequences <= limits["max_num_seqs"] * stats.steps


def test_a_small_pool_pauses_sequences(llama):
    engine = TreeEngine(llama, kv_tokens=64)
    serve(engine, [Generate((f"{i} is a prompt",), 2, SAMPLED, seed=i) for i in range(6)])
    assert engine.stats().paused > 0


def test_prefixes_are_computed_once(llama):
    engine = TreeEngine(llama)
    shared = "x" * 50
    first, second = serve(
        engine, [Generate((shared, "a"), 1, GREEDY), Generate((shared, "b"), 4, GREEDY)]
    )
    generated = [sum(c.num_tokens for c in reply.completions) for reply in (first, second)]
    assert first.usage.unique_kv_tokens == 50 + generated[0]
    assert second.usage.unique_kv_tokens == generated[1]  # its last prompt token is in each leaf
    assert second.usage.logical_kv_tokens == 4 * 51 + generated[1]
    (again,) = serve(engine, [Generate((shared, "a"), 1, GREEDY)])
    assert texts(again) == texts(first)
    assert again.usage.unique_kv_tokens == generated[0]


def test_scored_starts_are_computed_once(llama):
    (reply,) = serve(TreeEngine(llama), [Score(("p",), ("abcx", "abcy", "abd"))])
    assert reply.num_tokens == (4, 4, 3)
    assert reply.usage.unique_kv_tokens == len("pabc")


def test_stop_strings_cut_the_text(llama):
    (free,) = serve(TreeEngine(llama), [Generate(("stop me",), 1, SAMPLED, seed=3)])
    text = free.completions[0].text
    stop = text[4:6]
    stopped = Sampling(max_tokens=12, temperature=1.0, stop=(stop, "never occurs"))
    (reply,) = serve(TreeEngine(llama), [Generate(("stop me",), 1, stopped, seed=3)])
    completion = reply.completions[0]
    assert completion.text == text[: text.index(stop)]
    assert completion.finish_reason == "stop"
    assert completion.num_tokens < free.completions[0].num_tokens
    assert free.completions[0].finish_reason == "length"


def test_samples_differ_and_repeat(llama):
    request = Generate(("many",), 8, SAMPLED, seed=5)
    (first,), (second,) = serve(TreeEngine(llama), [request]), serve(TreeEngine(llama), [request])
    assert texts(first) == texts(second)
    assert len(set(texts(first))) > 1
    (fewer,) = serve(TreeEngine(llama), [Generate(("many",), 3, SAMPLED, seed=5)])
    assert texts(fewer) == texts(first)[:3]


def test_failures_name_the_bound_and_spare_the_others(llama):
    engine = TreeEngine(llama, kv_tokens=64)
    long, large, good, empty = serve(
        engine,
        [
            Generate(("x" * 250,), 1, GREEDY),
            Score(("x" * 60,), ("y" * 30,)),
            Generate(("fine",), 1, GREEDY),
            Generate(("",), 1, GREEDY),
        ],
    )
    assert isinstance(long, Failure) and isinstance(long.error, PromptTooLong)
    assert str(long.error) == (
        "a prompt of 250 tokens and up to 12 more exceed the model's context of 256 tokens"
    )
    assert isinstance(large, Failure) and isinstance(large.error, OutOfKVMemory)
    assert "89 KV tokens, engine.kv_tokens=64" in str(large.error)
    assert isinstance(empty, Failure)
    (expected,) = serve(TreeEngine(llama), [Generate(("fine",), 1, GREEDY)])
    assert texts(good) == texts(expected)


@pytest.mark.parametrize("limit", ["kv_tokens", "max_num_seqs", "max_num_batched_tokens"])
def test_limits_have_a_bound(llama, limit):
    with pytest.raises(ValueError, match=rf"engine\.{limit}=0 must be at least 1"):
        TreeEngine(llama, **{limit: 0})
    for value in (2.5, "64", None, True, float("nan")):
        with pytest.raises(ValueError, match=rf"engine\.{limit}={value!r} must be a whole number"):
            TreeEngine(llama, **{limit: value})


def assert_closing_tokens_are_noticed(model, texts, stops):
    """The token with which a text comes to hold a stop string is one that may close it."""
    for text in texts:
        tokens = model.tokenizer.encode(text)
        for stop in stops:
            lengths = range(1, len(tokens) + 1)
            first = next((n for n in lengths if stop in model.tokenizer.decode(tokens[:n])), None)
            assert first is None or model.tokenizer.may_close(tokens[first - 1], (stop, "\n\n"))


TEXTS = ["1 + 2 = 3 (left: 3 4)\nNext", "Ünïcødé – 日本語\n\nline\r\n two", "a.b, c!? d's  e\t f"]
STOPS = ["\n", "\n\n", "日", "ø", " ", "3 (", "'s", "\t", "-", "é"]


def test_closing_tokens_are_noticed_in_bytes(llama):
    assert_closing_tokens_are_noticed(llama, TEXTS, STOPS)


def test_closing_tokens_are_noticed_in_words(smollm2):
    assert_closing_tokens_are_noticed(smollm2, TEXTS, STOPS)
    assert not smollm2.tokenizer.may_close(smollm2.tokenizer.encode("left")[0], ("\n",))
