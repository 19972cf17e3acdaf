"""Hugging Face's `generate` as an engine: the greedy texts and the scores of ours."""

import pytest
import torch
from tiny_models import byte_tokenizer, make_network

from treeshare.llm_backend.api import Failure, Generate, Reward, Sampling, Score
from treeshare.llm_backend.engines.hf import HuggingFaceEngine
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.random_models import LoadedNetwork

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
    return lambda max_num_seqs: HuggingFaceEngine(loaded, model, max_num_seqs)


@pytest.mark.parametrize("max_num_seqs", MAX_BATCHES)
def test_greedy_texts_are_ours(max_num_seqs, hf, ours):
    replies = serve(hf(max_num_seqs))
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


PROMPTS = ["a", "five", "number two"]


def greedy(stop):
    sampling = Sampling(max_tokens=12, temperature=0.0, stop=stop)
    return {i: Generate((prompt,), 1, sampling) for i, prompt in enumerate(PROMPTS)}


def ends(replies):
    """By request: the text, the tokens drawn for it, and why it ended."""
    return [
        (done.text, done.num_tokens, done.finish_reason)
        for _, reply in sorted(replies.items())
        for done in reply.completions
    ]


STOPS = {  # the greedy texts begin with fff5f5f5f55f, L5LeLVL and 6=6=
    "at the start": ("ff",),
    "over several tokens": ("5f5f55",),
    "two with one token": ("f5", "ff5"),
    "never reached": ("6f",),
    "with a space, which any token may complete": ("5f", " "),
    "in all rows, at different tokens": ("5f5", "LeL", "6=6"),
}


@pytest.fixture(scope="module")
def stopped(loaded):
    """What our engine replies, by the name of the stop strings."""
    model = loaded.model("torch")
    return {name: ends(serve(TreeEngine(model), greedy(stop))) for name, stop in STOPS.items()}


@pytest.mark.parametrize("name", STOPS)
@pytest.mark.parametrize("max_num_seqs", [1, 64])
def test_replies_end_at_stop_strings_as_ours_do(name, max_num_seqs, stopped, loaded, model):
    engine = HuggingFaceEngine(loaded, model, max_num_seqs)
    assert ends(serve(engine, greedy(STOPS[name]))) == stopped[name]
    lengths = [count for _, count, _ in stopped[name]]  # a batch ends with its last row
    assert engine.stats().steps == (sum(lengths) if max_num_seqs == 1 else max(lengths))


def test_the_stop_strings_above_are_reached_where_their_names_say(stopped):
    lengths = {name: [count for _, count, _ in found] for name, found in stopped.items()}
    assert lengths == {
        "at the start": [2, 12, 12],
        "over several tokens": [11, 12, 12],
        "two with one token": [4, 12, 12],
        "never reached": [12, 12, 12],
        "with a space, which any token may complete": [5, 12, 12],
        "in all rows, at different tokens": [6, 6, 3],
    }
    assert stopped["at the start"][0] == ("", 2, "stop")
    assert stopped["two with one token"][0] == ("f", 4, "stop")


def test_only_replies_whose_newest_token_may_complete_a_stop_string_are_decoded(
    hf, model, monkeypatch
):
    decode, decoded = model.decode, []
    monkeypatch.setattr(
        model, "decode", lambda tokens, **cut: decoded.append(tokens) or decode(tokens, **cut)
    )
    serve(hf(64), greedy(("6f",)))
    assert any(len(tokens) < 12 for tokens in decoded)
    for tokens in decoded:  # of the replies alone; a full one is decoded in any case
        assert len(tokens) == 12 or model.may_close(tokens[-1], ("6f",))


@pytest.mark.parametrize("end", ["5", None])
def test_a_reply_that_has_ended_is_not_decoded_again(end, loaded, monkeypatch):
    """Any token may complete these stop strings, and padding is a token."""
    model = loaded.model("torch")
    ends = () if end is None else model.encode(end)
    monkeypatch.setattr(model, "end_tokens", frozenset(ends))
    decode, decoded = model.decode, []
    monkeypatch.setattr(
        model, "decode", lambda tokens, **cut: decoded.append(tokens) or decode(tokens, **cut)
    )
    serve(HuggingFaceEngine(loaded, model, 64), greedy(("5f", " ")))
    first = [tokens for tokens in decoded if decode(tokens).startswith("fff")]
    assert max(map(len, first)) == (5 if end is None else 3)
    assert len(max(decoded, key=len)) == 12


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


@pytest.mark.parametrize("max_num_seqs", MAX_BATCHES)
def test_scores_are_ours(max_num_seqs, hf, ours):
    replies = serve(hf(max_num_seqs))
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
    reply = hf(None).execute({0: Reward("q", "a")})[0]
    assert isinstance(reply, Failure) and "no reward model" in str(reply.error)
    with pytest.raises(ValueError, match="max_num_seqs=0 must be at least 1"):
        hf(0)


BAD = {
    90: Generate(("half \ud800 a pair",), 1, GREEDY),
    91: Score(("a",), (" yes", "\udc00")),
    92: Generate(("x" * 250,), 1, GREEDY),
    93: Generate(("",), 2, GREEDY),
}


def test_requests_that_cannot_be_served_fail_alone(hf):
    replies = serve(hf(3), REQUESTS | BAD)
    assert {ticket for ticket, reply in replies.items() if isinstance(reply, Failure)} == {*BAD}
    for ticket in (0, 1, 3):
        expected = serve(hf(3), {ticket: REQUESTS[ticket]})[ticket]
        for done, alone in zip(replies[ticket].completions, expected.completions, strict=True):
            assert (done.text, done.num_tokens) == (alone.text, alone.num_tokens)


def test_cancelled_requests_are_dropped(hf):
    engine = hf(1)
    answered = engine.execute(REQUESTS)
    engine.cancel(REQUESTS.keys() - answered.keys())
    assert engine.execute({}) == {} and not engine._done
    assert serve(engine, {1: REQUESTS[1]}).keys() == {1}


def test_what_is_raised_drops_all(hf, monkeypatch):
    engine = hf(2)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_serve", lambda rows: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.execute(REQUESTS)
    assert engine.execute({}) == {}
    assert serve(engine, {7: REQUESTS[1]}).keys() == {7}
