"""Hugging Face's `generate` as an engine: the greedy texts and the scores of ours."""

import pytest
import torch
from dense_check import Dense
from tiny_models import REFUSED, byte_tokenizer, make_network, network_of

from treeshare.llm_backend.api import Failure, Generate, Reward, Sampling, Score
from treeshare.llm_backend.engines.hf import HuggingFaceEngine
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model

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
def model():
    return Model.of(make_network("llama"), byte_tokenizer())


@pytest.fixture(scope="module")
def ours(model):
    return serve(TreeEngine(model))


def serve(engine, requests=REQUESTS):
    replies = dict(engine.execute(requests))
    while len(replies) < len(requests):
        more = engine.execute({})
        assert more and not more.keys() & replies.keys()
        replies |= more
    return replies


@pytest.fixture
def hf(model):
    return lambda max_num_seqs: HuggingFaceEngine(model, max_num_seqs)


@pytest.mark.parametrize("max_num_seqs", MAX_BATCHES)
def test_texts_and_their_log_probabilities_are_ours(max_num_seqs, hf, ours):
    """Sampled ones as well: the random numbers are ours."""
    replies = serve(hf(max_num_seqs))
    for number in (0, 1, 3, 5):
        for done, expected in zip(
            replies[number].completions, ours[number].completions, strict=True
        ):
            assert done.text == expected.text
            assert done.num_tokens == expected.num_tokens
            assert done.finish_reason == expected.finish_reason
            assert done.logprob == pytest.approx(expected.logprob, abs=1e-3)
        assert replies[number].usage.prompt_tokens == ours[number].usage.prompt_tokens
        assert replies[number].usage.completion_tokens == ours[number].usage.completion_tokens


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
def stopped(model):
    """What our engine replies, by the name of the stop strings."""
    return {name: ends(serve(TreeEngine(model), greedy(stop))) for name, stop in STOPS.items()}


@pytest.mark.parametrize("name", STOPS)
@pytest.mark.parametrize("max_num_seqs", [1, 64])
def test_replies_end_at_stop_strings_as_ours_do(name, max_num_seqs, stopped, model):
    engine = HuggingFaceEngine(model, max_num_seqs)
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
    decode, decoded = model.tokenizer.decode, []
    monkeypatch.setattr(
        model.tokenizer,
        "decode",
        lambda tokens, **cut: decoded.append(tokens) or decode(tokens, **cut),
    )
    serve(hf(64), greedy(("6f",)))
    assert any(len(tokens) < 12 for tokens in decoded)
    for tokens in decoded:  # of the replies alone; a full one is decoded in any case
        assert len(tokens) == 12 or model.tokenizer.may_close(tokens[-1], ("6f",))


@pytest.mark.parametrize("end", ["5", None])
def test_a_reply_that_has_ended_is_not_decoded_again(end, model, monkeypatch):
    """Any token may complete these stop strings, and padding is a token."""
    ends = () if end is None else model.tokenizer.encode(end)
    monkeypatch.setattr(model.network, "end_tokens", frozenset(ends))
    decode, decoded = model.tokenizer.decode, []
    monkeypatch.setattr(
        model.tokenizer,
        "decode",
        lambda tokens, **cut: decoded.append(tokens) or decode(tokens, **cut),
    )
    serve(HuggingFaceEngine(model, 64), greedy(("5f", " ")))
    first = [tokens for tokens in decoded if decode(tokens).startswith("fff")]
    assert max(map(len, first)) == (5 if end is None else 3)
    assert len(max(decoded, key=len)) == 12


def test_a_text_may_end_by_itself(model, monkeypatch):
    (fourth,) = model.tokenizer.encode("5")  # as the text above goes on
    monkeypatch.setattr(model.network, "end_tokens", frozenset({fourth}))
    requests = {0: Generate(("a",), 1, GREEDY), 1: Generate(("number",), 1, GREEDY)}
    expected = serve(TreeEngine(model), requests)
    replies = serve(HuggingFaceEngine(model, 8), requests)
    for number, text in ((0, "fff"), (1, None)):
        (done,), (other,) = expected[number].completions, replies[number].completions
        assert text in (None, done.text)
        assert (done.text, done.num_tokens, done.finish_reason) == (
            other.text, other.num_tokens, other.finish_reason,
        )  # fmt: skip


@pytest.mark.parametrize("max_num_seqs", MAX_BATCHES)
def test_scores_are_ours(max_num_seqs, hf, ours):
    replies = serve(hf(max_num_seqs))
    for number in (2, 4):
        assert replies[number].logprobs == pytest.approx(ours[number].logprobs, abs=1e-3)
        assert replies[number].num_tokens == ours[number].num_tokens


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
    with pytest.raises(ValueError, match=r"engine\.max_num_seqs=0 must be at least 1"):
        hf(0)


def other_decoders():
    """Networks that the tree engine refuses."""
    names = (
        "mamba",
        "falcon",
        "falcon ALiBi",
        "gptj",
        "stablelm",
        "lfm2",
        "llama4",
        "phimoe window",
        "bart",  # its positions count the padding
    )
    return {name: REFUSED[name][0] for name in names}


@pytest.mark.parametrize("family", other_decoders())
def test_decoders_that_the_tree_engine_refuses_are_served(family):
    """Greedy texts and scores are those of whole forwards without a cache or padding."""
    model = Model.of(network_of(other_decoders()[family]()), byte_tokenizer())
    with pytest.raises(ValueError):
        TreeEngine(model)
    dense = Dense(model)
    requests = {
        0: Generate(("a start", " of two"), 1, GREEDY),
        1: Generate(("a start that is longer",), 1, GREEDY),
        2: Score(("a start",), (" of", " that is")),
    }
    replies = serve(HuggingFaceEngine(model, 8), requests)
    for number in (0, 1):
        prompt = model.tokenizer.encode("".join(requests[number].prefix_segments))
        expected = dense.greedy(prompt, 9)
        kept = [token for token in expected if token not in model.network.end_tokens]
        (done,) = replies[number].completions
        assert (done.text, done.num_tokens) == (
            model.tokenizer.decode(kept, is_cut=done.finish_reason == "length"),
            len(expected),
        )
    start, ends = model.tokenizer.encode_continuations("a start", requests[2].continuations)
    for end, logprob in zip(ends, replies[2].logprobs, strict=True):
        assert logprob == pytest.approx(dense.logprob(start, end), abs=1e-3)


def test_a_softcap_is_kept():
    """Transformers' SDPA has none, so the network stays on eager attention."""
    model = Model.of(make_network("gemma2"), byte_tokenizer())
    request = {0: Score(("a start of some length",), (" and its end",))}
    expected = TreeEngine(model).execute(request)[0].logprobs
    assert HuggingFaceEngine(model).execute(request)[0].logprobs == pytest.approx(
        expected, abs=1e-3
    )


def test_defaults_of_a_model_do_not_change_the_draws(model, ours):
    model.network.hf.generation_config.repetition_penalty = 5.0
    try:
        replies = serve(HuggingFaceEngine(model, 64))
        assert model.network.hf.generation_config.repetition_penalty == 5.0
    finally:
        model.network.hf.generation_config.repetition_penalty = None
    for number in (0, 5):
        assert ends({0: replies[number]}) == ends({0: ours[number]})


def test_what_is_raised_drops_all(hf, model, monkeypatch):
    engine = hf(2)
    with monkeypatch.context() as patch:
        patch.setattr(model.network.hf, "generate", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.execute(REQUESTS)
    assert engine.execute({}) == {}
    assert serve(engine, {7: REQUESTS[1]}).keys() == {7}
