"""Speculative decoding gives the replies of plain decoding, whatever is drafted."""

import random

import pytest
from babble import Babble
from dense_check import Dense, DenseCheck
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import byte_tokenizer, make_network

from treeshare.llm_backend.api import Generate, Sampling, Score
from treeshare.llm_backend.engines.draft_model import ModelDrafter
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.speculative.ngram import NgramDrafter
from treeshare.search import Context, Sample, Scheduler, ToTBFS, ValuePrompt

GREEDY = Sampling(max_tokens=24, temperature=0.0)
SAMPLED = Sampling(max_tokens=24, temperature=0.7)
SAMPLINGS = {
    "greedy": GREEDY,
    "sampled": SAMPLED,
    "filtered": Sampling(max_tokens=24, temperature=1.3, top_p=0.8, top_k=20),
}


class Drafts:
    """Drafts what `guesses(draw, limit)` says."""

    def __init__(self, guesses):
        self.guesses = guesses

    def check(self, model):
        pass

    def propose(self, draws, limits):
        return [self.guesses(draw, limit) for draw, limit in zip(draws, limits, strict=True)]

    def close(self):
        pass


class Truth:
    """What plain decoding generates, by (prompt, seed, sample)."""

    def __init__(self, model, requests):
        self.draws = {}
        self.replies, self.engine = serve(model, requests, Drafts(self.note))

    def note(self, draw, limit):
        self.draws[self.key(draw)] = draw
        return []

    def rest(self, draw):
        """The tokens that are still to come."""
        return self.draws[self.key(draw)].generated[len(draw.generated) :]

    @staticmethod
    def key(draw):
        return draw.group.prompt, draw.group.request.seed, draw.sample_index


def serve(model, requests, drafter=None, **limits):
    """The replies in the order of the requests, and the engine. Every step's tree is checked."""
    engine = TreeEngine(model, speculative=drafter, **limits)
    engine.submit(dict(enumerate(requests)))
    replies = {}
    while engine.has_unfinished:
        replies |= engine.step()
        engine.cache.check_integrity()
    return [replies[number] for number in range(len(requests))], engine


def assert_same(replies, expected):
    for reply, other in zip(replies, expected, strict=True):
        if hasattr(reply, "logprobs"):
            assert reply.logprobs == pytest.approx(other.logprobs, abs=1e-4)
            continue
        for completion, twin in zip(reply.completions, other.completions, strict=True):
            assert completion.text == twin.text
            assert completion.num_tokens == twin.num_tokens
            assert completion.finish_reason == twin.finish_reason
            assert completion.logprob == pytest.approx(twin.logprob, abs=1e-3)


def requests_of(sampling, count=6):
    shared = "ab ab ab; a shared start of every prompt, a shared start; "
    return [Generate((shared, f"{i}"), 1 + i % 3, sampling, seed=i) for i in range(count)]


DRAFTERS = {
    "ngram": lambda: NgramDrafter(),
    "ngram_tree": lambda: NgramDrafter(num_tokens=4, longest=3, shortest=1, branches=3),
    "smaller_model": lambda: ModelDrafter(smaller_model(), num_tokens=3),
    "model_without_room": lambda: ModelDrafter(
        smaller_model(), kv_tokens=90, max_num_batched_tokens=30
    ),
}


def smaller_model(num_layers=2):
    network = make_network("llama")
    del network.model.layers[num_layers:]
    network.config.num_hidden_layers = num_layers
    return Model.of(network, byte_tokenizer())


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("drafter", DRAFTERS.values(), ids=DRAFTERS)
def test_replies_are_those_of_plain_decoding(llama, drafter, sampling):
    requests = requests_of(sampling)
    expected, plain = serve(llama, requests)
    replies, engine = serve(llama, requests, drafter())
    assert_same(replies, expected)
    stats = engine.stats()
    assert stats.drafted_tokens > 0
    assert stats.accepted_tokens > 0 or sampling is not GREEDY  # random samples repeat nothing
    assert stats.sequences == plain.stats().sequences - stats.accepted_tokens


def test_smaller_model_drafts_for_any_architecture(tiny_model):
    """Sliding windows too: a guess must see as far back as the token it stands for."""
    requests = requests_of(SAMPLED, 3)
    replies, engine = serve(tiny_model, requests, ModelDrafter(smaller_model(1)))
    assert_same(replies, serve(tiny_model, requests)[0])
    assert engine.stats().drafted_tokens > 0


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_the_model_itself_as_drafter_is_always_right(llama, sampling):
    """Drafts are drawn with the uniform numbers of the model's own draws."""
    requests = requests_of(sampling)
    replies, engine = serve(llama, requests, ModelDrafter(llama, num_tokens=5))
    assert_same(replies, serve(llama, requests)[0])
    stats = engine.stats()
    assert stats.accepted_tokens == stats.drafted_tokens > 0


@pytest.mark.parametrize("count", [1, 3, 30])
def test_perfect_drafts_are_all_accepted(llama, count):
    requests = requests_of(SAMPLED)
    truth = Truth(llama, requests)
    drafter = Drafts(lambda draw, limit: [truth.rest(draw)[:count]])
    replies, engine = serve(llama, requests, drafter)
    assert_same(replies, truth.replies)
    stats, plain = engine.stats(), truth.engine.stats()
    # A sequence that ends early has its end token, which is drawn and never fed, as last guess.
    ended = [c for reply in replies for c in reply.completions if c.finish_reason == "stop"]
    assert 0 <= stats.drafted_tokens - stats.accepted_tokens <= len(ended)
    assert stats.steps == -(-plain.steps // (count + 1))
    assert stats.unique_kv_reads <= stats.logical_kv_reads


def test_wrong_drafts_cost_no_step_and_no_token(llama):
    requests = requests_of(SAMPLED)
    truth = Truth(llama, requests)

    def wrong(draw, limit):
        token = truth.rest(draw)[0]
        return [[(token + 1) % 256] * 3, [(token + 2) % 256, token]]

    replies, engine = serve(llama, requests, Drafts(wrong))
    assert_same(replies, truth.replies)
    stats, plain = engine.stats(), truth.engine.stats()
    assert stats.accepted_tokens == 0 < stats.drafted_tokens
    assert stats.steps == plain.steps
    assert stats.tokens == plain.tokens + stats.drafted_tokens
    assert stats.peak_kv_tokens == plain.peak_kv_tokens  # guesses lie in slots held anyway
    usages = [reply.usage for reply in replies]
    assert usages == [reply.usage for reply in truth.replies]  # nobody pays for wrong guesses


def test_the_right_branch_is_found_among_wrong_ones(llama):
    """Its KV does not lie where the leaf goes on, and must come to lie there."""
    requests = requests_of(SAMPLED)
    truth = Truth(llama, requests)

    def branches(draw, limit):
        rest = truth.rest(draw)
        wrong = [(token + 1) % 256 for token in rest]
        return [wrong[:2], [*rest[:1], *wrong[1:3]], [*rest[:2], *wrong[2:3]], rest[:5]]

    replies, engine = serve(llama, requests, Drafts(branches))
    assert_same(replies, truth.replies)
    assert engine.stats().steps <= truth.engine.stats().steps / 2


def test_stop_strings_and_ends_cut_accepted_runs(llama):
    """Whole completions are drafted, past all that ends them."""
    long = Sampling(max_tokens=40, temperature=1.0)
    prompts = [f"prompt {i}" for i in range(40)]
    free = Truth(llama, [Generate((p,), 1, long, seed=i) for i, p in enumerate(prompts)])
    texts = [reply.completions[0].text for reply in free.replies]
    stopped = [
        Generate((p,), 1, Sampling(40, 1.0, stop=(text[5:7] or "never", "zzz")), seed=i)
        for i, (p, text) in enumerate(zip(prompts, texts, strict=True))
    ]
    shorter = [
        Generate((p,), 1, Sampling(1 + i % 9, 1.0), seed=i) for i, p in enumerate(prompts[:9])
    ]
    requests = stopped + shorter
    drafter = Drafts(lambda draw, limit: [[*free.rest(draw), 257, *b"past the end"]])
    replies, engine = serve(llama, requests, drafter)
    assert_same(replies, serve(llama, requests)[0])
    assert any(reply.completions[0].finish_reason == "stop" for reply in free.replies)
    assert engine.stats().steps < 5


def random_guesses(truth, rng):
    """Right starts of any length, wrong ends, in any number of branches."""

    def guess(draw, limit):
        rest = truth.rest(draw)
        return [
            rest[: rng.randint(0, 6)] + [rng.randrange(260) for _ in range(rng.randint(0, 3))]
            for _ in range(rng.randint(0, 4))
        ]

    return guess


@st.composite
def mixes(draw):
    samplings = st.builds(
        Sampling,
        max_tokens=st.integers(1, 12),
        temperature=st.sampled_from([0.0, 1.0]),
        top_p=st.sampled_from([0.7, 1.0]),
        top_k=st.sampled_from([5, None]),
        stop=st.sampled_from([(), ("a",), ("b", "xy")]),
    )
    text = st.text("ab", min_size=1, max_size=8)
    generate = st.builds(
        Generate, st.tuples(text), st.integers(1, 3), samplings, seed=st.integers(0, 9)
    )
    score = st.builds(Score, st.tuples(text), st.lists(text, min_size=1, max_size=3).map(tuple))
    return draw(st.lists(generate | score, min_size=1, max_size=5))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests=mixes(), seed=st.integers(0, 99))
def test_random_drafts_in_a_small_pool(llama, dense, requests, seed):
    """Every row of logits equals a dense forward of the path it stands for; the pool must evict,
    and steps are so small that guesses and prompts are cut."""
    truth = Truth(llama, requests)
    drafter = Drafts(random_guesses(truth, random.Random(seed)))
    limits = {"kv_tokens": 36, "max_num_seqs": 4, "max_num_batched_tokens": 17}
    model = DenseCheck(llama.network, dense).on(llama)
    replies, _ = serve(model, requests, drafter, **limits)
    assert_same(replies, truth.replies)


@pytest.fixture(scope="module")
def dense(llama):
    return Dense(llama)


def test_a_full_step_drops_the_guesses_of_the_youngest(llama):
    requests = [Generate((f"prompt {i}",), 1, GREEDY, seed=i) for i in range(4)]
    truth = Truth(llama, requests)
    sizes = []

    class Counting(DenseCheck):
        def forward(self, tokens, *arguments):
            sizes.append(len(tokens))
            return llama.network.forward(tokens, *arguments)

    drafter = Drafts(lambda draw, limit: [truth.rest(draw)])
    model = Counting(llama.network, None).on(llama)
    engine = TreeEngine(model, speculative=drafter, max_num_batched_tokens=12)
    engine.submit(dict(enumerate(requests)))
    while any(len(job.generated) == 0 for job in [*engine.running, *engine.admission.waiting]):
        engine.step()
    running = list(engine.running)
    lengths = [len(job.generated) for job in running]
    engine.step()
    grown = [
        len(job.generated) - before
        for job, before in zip(running, lengths, strict=True)
        if not job.is_done
    ]
    assert max(sizes) <= 12
    assert sizes[-1] == 12
    assert grown == sorted(grown, reverse=True) and grown[0] > grown[-1] == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_a_search_grows_the_same_tree(llama, temperature):
    task = Babble(temperature)

    def tree(drafter):
        context = Context(task, task.problems()[0], Sample(), ValuePrompt(num_samples=2), seed=1)
        engine = TreeEngine(llama, speculative=drafter)
        (outcome,) = Scheduler(engine).run([(ToTBFS(breadth=2, num_samples=3), context)])
        assert outcome.error is None
        return [node.state for node in outcome.graph], engine.stats().drafted_tokens

    expected, _ = tree(None)
    for drafter in (NgramDrafter(shortest=1), ModelDrafter(smaller_model())):
        states, num_drafted = tree(drafter)
        assert states == expected
        assert num_drafted > 0


def test_smollm2_copies_faster(smollm2):
    """Real weights: a list whose order repeats is drafted from the prompt."""
    prompt = "red, green, blue, brown, black\n" * 3 + "red, green,"
    request = Generate((prompt,), 1, Sampling(max_tokens=16, temperature=0.0))
    expected, plain = serve(smollm2, [request])
    replies, engine = serve(smollm2, [request], NgramDrafter())
    assert_same(replies, expected)
    assert engine.stats().steps <= plain.stats().steps / 2


def test_closing_the_engine_closes_the_drafter(llama):
    drafter = ModelDrafter(llama)
    TreeEngine(llama, speculative=drafter).close()
    assert not drafter.engine.pool.keys
