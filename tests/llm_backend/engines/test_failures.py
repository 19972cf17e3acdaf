"""One request, one failure; an engine survives what is raised inside it, and what is cancelled."""

import math

import pytest
import torch
import transformers
from attention_check import DEVICE
from request_fuzz import fuzz, fuzz_model, serve
from tiny_models import SIZES, byte_tokenizer, make_network, network_of
from tiny_tokenizers import sentencepiece_tokenizer

from treeshare.llm_backend.api import Failure, Generate, GenerateReply, Sampling, Score
from treeshare.llm_backend.cache.kv_pool import SlotAllocator
from treeshare.llm_backend.cache.tree_cache import TreeCache
from treeshare.llm_backend.engines import schedule as schedule_module
from treeshare.llm_backend.engines import tree as engine_module
from treeshare.llm_backend.engines.draft_model import ModelDrafter
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime.admission import Admission
from treeshare.llm_backend.runtime.observer import StepRecorder
from treeshare.llm_backend.runtime.sequence import (
    NotANumber,
    ScoreRequestState,
    Sequence,
    SequenceGroup,
)
from treeshare.llm_backend.speculative.ngram import NgramDrafter

GREEDY = Sampling(max_tokens=6, temperature=0.0)
SAMPLED = Sampling(max_tokens=6, temperature=1.0)


@pytest.fixture(scope="module")
def fragile():
    return fuzz_model()


def sentencepiece_model(tokenizer):
    sizes = SIZES | {"vocab_size": len(tokenizer), "eos_token_id": 2}
    return Model.of(network_of(transformers.LlamaConfig(**sizes)), tokenizer)


def replies(engine, requests):
    found, new = {}, dict(enumerate(requests))
    while len(found) < len(requests):
        found |= engine.execute(new)
        engine.check_integrity()
        new = {}
    return [found[number] for number in range(len(requests))]


def batch():
    start = "a start that all share; "
    requests = [Generate((start, f"number {i}"), 1 + i % 3, SAMPLED, seed=i) for i in range(6)]
    return [*requests, *(Score((start, f"number {i}"), (" one", " two", " on")) for i in (0, 3))]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, GenerateReply):
            assert [done.text for done in one.completions] == [d.text for d in other.completions]
        else:
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


# Requests that cannot be served.


def test_random_requests_a_third_of_them_bad():
    counts = fuzz(150, seed=1)
    assert counts["bad"] > 40
    assert {"TokenizerError", "NotANumber", "PromptTooLong", "TypeError"} <= counts.keys()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("where", ["draws", "scores"])
def test_logits_that_are_nan_fail_their_request_alone(fragile, temperature, where):
    """Though they share a start, computed in one forward, which NaN spreads into."""
    short = Sampling(max_tokens=4, temperature=temperature)
    bad = ("a start that all share; ", "~ and more")
    broken = Generate(bad, 3, short) if where == "draws" else Score(bad, (" one", " two"))
    engine = TreeEngine(fragile)
    first, *others, last = replies(engine, [broken, *batch(), broken])
    assert_same(others, replies(TreeEngine(fragile), batch()))
    for reply in (first, last):
        assert isinstance(reply, Failure) and isinstance(reply.error, NotANumber)
        assert "logits are NaN within the first" in str(reply.error)
    assert all(torch.isfinite(tensor).all() for tensor in engine.pool.values)
    assert_same(replies(engine, batch()), others)


def test_a_continuation_of_nan_fails_where_it_is_read(fragile):
    bad, good = replies(
        TreeEngine(fragile), [Score(("one",), (" yes", " ~ no")), Score(("one",), (" yes",))]
    )
    assert isinstance(bad.error, NotANumber) and math.isfinite(good.logprobs[0])


@pytest.mark.parametrize("filtered", [{}, {"top_p": 0.5}, {"top_k": 3}], ids=str)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_drawn_from_nan_exist_and_have_no_probability(temperature, filtered):
    from treeshare.llm_backend.sampling.sampler import SamplingParamsBatch, sample

    logits = torch.zeros(4, 300)
    logits[0], logits[1, 7], logits[2, 299] = float("nan"), float("nan"), float("inf")
    rules = SamplingParamsBatch.of([Sampling(temperature=temperature, **filtered)] * 4)
    for uniform in (0.0, 0.999999):
        tokens, logprobs = sample(logits, rules, torch.full((4,), uniform, dtype=torch.float64))
        assert tokens.min() >= 0 and tokens.max() < 300
        assert logprobs.isnan().tolist() == [True, True, True, False]


def test_a_token_that_cannot_be_decoded_fails_its_request(llama, monkeypatch):
    requests = batch()
    expected = replies(TreeEngine(llama), requests)
    model = Model.of(make_network("llama"), byte_tokenizer())
    text = expected[0].completions[0].text
    assert len(text) > 2
    decode = model.tokenizer.hf.decode

    def failing(ids, **options):
        decoded = decode(ids, **options)
        if text in decoded:
            raise RuntimeError("no such token")
        return decoded

    monkeypatch.setattr(model.tokenizer.hf, "decode", failing)
    first, *others = replies(TreeEngine(model), requests)
    assert "the tokenizer failed: RuntimeError: no such token" in str(first.error)
    assert_same(others, expected[1:])


def test_tokens_over_the_border_are_scored_rightly():
    """R54, R55: against dense forwards of prompt + continuation."""
    from dense_check import Dense

    for scheme in ("legacy", "first"):
        hf = sentencepiece_tokenizer(scheme)
        model = sentencepiece_model(hf)
        dense = Dense(model)
        requests = [
            *(Score(("Move (",), ("yes", " yes")), Score(("Answer: ",), ("yes", "4", "42", "b"))),
            *(Generate(("fine",), 1, GREEDY), Score(("a 4",), ("2", " 4"))),
        ]
        for request, reply in zip(requests, replies(TreeEngine(model), requests), strict=True):
            if isinstance(request, Score):
                (prompt,) = request.prefix_segments
                start, _ = model.tokenizer.encode_continuations(prompt, request.continuations)
                for text, logprob in zip(request.continuations, reply.logprobs, strict=True):
                    rest = model.tokenizer.encode(prompt + text)[len(start) :]
                    assert logprob == pytest.approx(dense.logprob(start, rest), abs=1e-3)


def completed(model, tokens, stop=(), max_tokens=None):
    """What the request gets if the model draws these tokens."""
    sampling = Sampling(max_tokens or len(tokens), 0.0, stop=stop)
    cache, ends = TreeCache(SlotAllocator(300)), model.network.end_tokens
    request, prompt = Generate(("p",), 1, sampling), model.tokenizer.encode("p")
    (draw,) = SequenceGroup(0, request, prompt, cache, model.tokenizer, ends).sequences()
    draw.start(cache.insert(draw.prefix))
    for token in tokens:
        draw.accept(token, 0.0)
        if draw.is_done:
            return draw.completion
    return None


def test_a_special_token_is_a_stop_string():
    model = Model.of(make_network("llama"), byte_tokenizer(additional_special_tokens=["<sep>"]))
    tokens = [*model.tokenizer.encode("hi"), 259, *model.tokenizer.encode("xyz")]
    done = completed(model, tokens, ("<sep>",))
    assert (done.text, done.num_tokens, done.finish_reason) == ("hi", 3, "stop")
    assert completed(model, tokens).text == "hi<sep>xyz"


@pytest.mark.parametrize("stop", [" y", " ", " yes", "ye"])
def test_a_stop_string_at_the_start_is_found_though_the_blank_is_dropped(stop):
    hf = sentencepiece_tokenizer("first")
    model = sentencepiece_model(hf)
    (tokens,) = model.tokenizer.encode_continuations("a:", [" yes or no"])[1]
    done = completed(model, tokens, (stop,))
    assert (done.text, done.num_tokens) == (" yes or no"[: " yes".index(stop)], 1)


def test_a_character_that_max_tokens_cuts_is_left_out():
    model = Model.of(make_network("llama"), byte_tokenizer())
    tokens = model.tokenizer.encode("hi 🛑")
    for count, text in {3: "hi ", 4: "hi ", 6: "hi ", 7: "hi 🛑"}.items():
        assert completed(model, tokens[:count]).text == text
    assert completed(model, model.tokenizer.encode("hi \ufffd")).text == "hi \ufffd"
    assert completed(model, [*tokens[:5], 257], max_tokens=9).text == "hi \ufffd"  # the model's own


# Request ids.


def test_an_id_that_is_outstanding_is_refused_and_nothing_taken_in(llama):
    engine = TreeEngine(llama)
    assert engine.execute({1: Score(("a",), ("b",)), 2: Generate(("ab",), 1, GREEDY)}).keys() == {1}
    with pytest.raises(ValueError, match="request id 2 is that of an outstanding request"):
        engine.execute({2: Generate(("b",), 1, GREEDY), 3: Generate(("c",), 1, GREEDY)})
    assert engine.execute({}).keys() == {2}
    assert engine.execute({2: Generate(("b",), 1, GREEDY)}).keys() == {2}


@pytest.mark.parametrize(
    "limits", [{}, {"max_num_seqs": 2}, {"max_num_batched_tokens": 3}], ids=str
)
def test_cancelled_requests_are_dropped_wherever_they_are(llama, limits):
    """Running, waiting, in the middle of their prompt, or answered and not yet handed out."""
    for num_steps in (0, 1, 3, 9):
        engine = TreeEngine(llama, **limits)
        engine.submit(dict(enumerate([*batch(), Generate(("",), 1, GREEDY)])))
        engine.cancel([8])  # its failure is ready
        found = {}
        for _ in range(num_steps):
            found |= engine.step()
        engine.cancel([0, 2, 4, 6, 99])
        engine.check_integrity()
        early = found.keys() - {1, 3, 5, 7}
        while answered := engine.execute({}):
            found |= answered
        assert found.keys() - early == {1, 3, 5, 7} and 8 not in found
        expected = replies(TreeEngine(llama), batch())
        assert_same([found[i] for i in sorted(found)], [expected[i] for i in sorted(found)])
        engine.cancel(range(9))
        engine.reset_cache()
        assert engine.pool.slots.num_free == engine.pool.slots.num_slots


def test_a_cancelled_id_may_come_again(llama):
    engine = TreeEngine(llama)
    engine.execute({0: Generate(("a" * 40,), 2, GREEDY), 1: Score(("b",), ("c",))})
    engine.cancel([0])
    (reply,) = engine.execute({0: Generate(("b",), 1, GREEDY)}).values()
    (expected,) = replies(TreeEngine(llama), [Generate(("b",), 1, GREEDY)])
    assert_same([reply], [expected])


# Exceptions in the middle of a step.

PLACES = [
    *((TreeCache, name) for name in ("match", "insert", "fork", "append", "release", "lock")),
    *((Sequence, name) for name in ("start", "accept", "end")),
    *((ScoreRequestState, name) for name in ("start", "end", "charge")),
    *((Admission, name) for name in ("admit", "should_admit")),
    *((StepRecorder, name) for name in ("count", "end")),
    *((engine_module, name) for name in ("make_jobs", "ScheduledForward")),
    (schedule_module, "make_drafts"),
]


@pytest.mark.parametrize("call", [1, 4])
@pytest.mark.parametrize(
    ("owner", "name"), PLACES, ids=lambda part: getattr(part, "__name__", part)
)
def test_an_exception_drops_all_and_the_engine_is_as_new(owner, name, call, llama, monkeypatch):
    engine, error = (
        TreeEngine(llama, kv_tokens=150),
        MemoryError() if call == 1 else KeyboardInterrupt(),
    )
    real, count = getattr(owner, name), 0

    def raising(*args, **options):
        nonlocal count
        count += 1
        if count == call:
            raise error
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, raising)
        answered, new = {}, dict(enumerate(batch()))
        with pytest.raises(type(error)):
            while new or answered:
                answered, new = engine.execute(new), {}
            raise error  # not called so often
    engine.check_integrity()
    assert engine.execute({}) == {}
    found = {}
    for number, request in enumerate(reversed(batch())):  # other requests of the same tickets
        found |= engine.execute({number: request})
    while answered := engine.execute({}):
        found |= answered
    assert_same([found[i] for i in range(8)], reversed(replies(TreeEngine(llama), batch())))
    engine.reset_cache()
    assert engine.pool.slots.num_free == 150


def test_an_engine_that_cannot_begin_anew_refuses_in_one_line(llama, monkeypatch):
    engine = TreeEngine(llama)

    def fails(*_):
        raise MemoryError("no\nroom")

    monkeypatch.setattr(engine_module, "ScheduledForward", fails)
    monkeypatch.setattr(engine_module, "TreeCache", fails)
    with pytest.raises(MemoryError):
        engine.execute({0: Generate(("a",), 1, GREEDY)})
    monkeypatch.undo()
    message = r"this engine failed in an earlier call \(MemoryError: no room\); make a new one"
    for _ in range(2):
        with pytest.raises(RuntimeError, match=message):
            engine.execute({})
    engine.cancel([0])


def test_a_closed_engine_refuses(llama):
    engine = TreeEngine(llama)
    engine.close()
    with pytest.raises(RuntimeError, match="this engine is closed; make a new one"):
        engine.execute({0: Generate(("a",), 1, GREEDY)})


@pytest.mark.parametrize("kind", ["ngram", "model"])
def test_drafters_survive_as_well(kind, llama, monkeypatch):
    drafter = NgramDrafter() if kind == "ngram" else ModelDrafter(llama)
    engine = TreeEngine(llama, speculative=drafter)
    real, count = Sequence.accept, 0

    def raising(*args):
        nonlocal count
        count += 1
        if count == 9:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Sequence, "accept", raising)
        with pytest.raises(KeyboardInterrupt):
            engine.execute({0: Generate(("abab",), 3, Sampling(40, 0.0))})
    assert_same(replies(engine, batch()), replies(TreeEngine(llama), batch()))


def test_decoding_on_the_device_survives(llama, monkeypatch):
    """Decode steps that the Triton kernels run one after the other."""
    model = Model.of(make_network("llama").to(DEVICE), byte_tokenizer(), attention="deft")
    engine, real, count = TreeEngine(model, kv_tokens=32), Sequence.accept, 0
    assert engine.runners.decode is not None

    def raising(*args):
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return real(*args)

    request = Generate(("a",), 1, Sampling(3, 0.0))
    with monkeypatch.context() as patch:
        patch.setattr(Sequence, "accept", raising)
        with pytest.raises(KeyboardInterrupt):
            engine.execute({0: request})
    assert_same(replies(engine, [request]), replies(TreeEngine(llama), [request]))


# Integrity.


def test_a_lost_leaf_and_a_lost_lock_are_found(llama):
    engine = TreeEngine(llama)
    engine.submit({0: Generate(("abc",), 2, GREEDY)})
    engine.step()
    engine.check_integrity()
    node = engine.cache.match(llama.tokenizer.encode("abc")[:-1])
    leaf = engine.cache.fork(node, 4)
    engine.cache.check_integrity()  # which cannot know
    with pytest.raises(AssertionError, match="a leaf that nobody uses"):
        engine.check_integrity()
    engine.cache.release([leaf])
    engine.cache.lock(node)
    with pytest.raises(AssertionError, match="a lock that nobody holds"):
        engine.check_integrity()
    engine.cache.unlock(node)
    engine.running[0].leaf.num_computed += 9
    with pytest.raises(AssertionError, match="KV of no token"):
        engine.check_integrity()


def test_a_score_job_takes_all_its_leaves_or_none(monkeypatch):
    cache = TreeCache(SlotAllocator(40))
    job = ScoreRequestState(0, (1, 2, 3), [(4, 5, 6), (4, 7, 8), (9, 9)], cache)
    node, real = cache.insert(job.prefix), TreeCache.fork
    cache.lock(node)
    taken = []

    def fork(*args, **options):
        if len(taken) == 2:
            raise MemoryError
        taken.append(real(*args, **options))
        return taken[-1]

    monkeypatch.setattr(TreeCache, "fork", fork)
    with pytest.raises(MemoryError):
        job.start(node)
    assert (job.leaves, len(taken)) == ([], 2)
    assert cache.num_free == 40 - len(job.prefix)
    cache.check_integrity()


def test_serving_needs_no_more_than_the_fuzz_says(fragile):
    """The fuzz compares with a run that is itself right: each good request alone."""
    import random

    from request_fuzz import assert_same as same
    from request_fuzz import good_request

    rng = random.Random(3)
    requests = {ticket: good_request(rng) for ticket in range(20)}
    together = serve(TreeEngine(fragile), requests, rng)
    for ticket, request in requests.items():
        (alone,) = replies(TreeEngine(fragile), [request])
        same(request, together[ticket], alone)
