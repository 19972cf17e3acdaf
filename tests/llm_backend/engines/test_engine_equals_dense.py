"""The tree engine against dense Hugging Face forwards, one branch at a time, without sharing.

Random requests fork, grow, end and are evicted in a pool that is too small for them; every row of
logits is compared, and the cache's integrity is checked after every operation.
"""

import random

import pytest
from dense_check import Dense, DenseCheck
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tiny_models import LATENT_OR_SHARED, byte_tokenizer, make_network

from treeshare.llm_backend.api import Generate, GenerateReply, Sampling, Score, ScoreReply
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model


class Driver:
    """Submits requests to an engine whose model is checked, and checks each reply."""

    def __init__(self, model, dense, **limits):
        self.model = model
        self.dense = dense
        self.checked = DenseCheck(model.network, dense)
        self.engine = TreeEngine(self.checked.on(model), **limits)
        self.requests = {}
        self.answered = set()

    def submit(self, request):
        number = len(self.requests)
        self.requests[number] = request
        self.engine.submit({number: request})

    def step(self):
        for number, reply in self.engine.step().items():
            assert number not in self.answered
            self.answered.add(number)
            self.check(self.requests[number], reply)

    def drain(self):
        while self.answered != set(self.requests):
            self.step()
            self.engine.cache.check_integrity()
        assert not self.engine.has_unfinished

    def check(self, request, reply):
        prompt = self.model.tokenizer.encode("".join(request.prefix_segments))
        if isinstance(request, Generate):
            assert isinstance(reply, GenerateReply)
            if request.sampling.temperature == 0:
                expected = self.dense.greedy(prompt, request.sampling.max_tokens)
                for completion in reply.completions:
                    assert completion.num_tokens == len(expected)
                    kept = [
                        token for token in expected if token not in self.model.network.end_tokens
                    ]
                    is_cut = completion.finish_reason == "length"
                    assert completion.text == self.model.tokenizer.decode(kept, is_cut=is_cut)
        else:
            assert isinstance(reply, ScoreReply)
            text = "".join(request.prefix_segments)
            prompt, ends = self.model.tokenizer.encode_continuations(text, request.continuations)
            for continuation, logprob in zip(ends, reply.logprobs, strict=True):
                expected = self.dense.logprob(prompt, continuation)
                assert abs(logprob - expected) <= 1e-3


def machine(model):
    dense = Dense(model)
    texts = st.text(alphabet="ab", min_size=1, max_size=12)
    samplings = st.builds(
        Sampling, max_tokens=st.integers(1, 6), temperature=st.sampled_from([0.0, 1.0])
    )

    class EngineMachine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.driver = Driver(
                model, dense, kv_tokens=40, max_num_seqs=5, max_num_batched_tokens=9
            )

        @rule(prompt=texts, n=st.integers(1, 3), sampling=samplings, seed=st.integers(0, 9))
        def generate(self, prompt, n, sampling, seed):
            self.driver.submit(Generate((prompt,), n, sampling, seed))

        @rule(
            prompt=texts, continuations=st.lists(texts.map(lambda t: t[:4]), min_size=1, max_size=4)
        )
        def score(self, prompt, continuations):
            self.driver.submit(Score((prompt,), tuple(continuations)))

        @rule(count=st.integers(1, 4))
        def step(self, count):
            for _ in range(count):
                self.driver.step()

        @rule(count=st.integers(1, 40))
        def evict(self, count):
            self.driver.engine.cache.evict(count)

        @invariant()
        def integrity(self):
            self.driver.engine.cache.check_integrity()

        def teardown(self):
            self.driver.drain()

    return EngineMachine


def test_random_requests_equal_dense(tiny_model):
    run_state_machine_as_test(
        machine(tiny_model),
        settings=settings(
            max_examples=12,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("family", LATENT_OR_SHARED)
def test_latent_and_shared_kv_equal_dense(family):
    """Forks, prompts in parts, scores and evictions, for layers with KV of other kinds."""
    model = Model.of(make_network(family), byte_tokenizer())
    driver = Driver(model, Dense(model), kv_tokens=40, max_num_seqs=5, max_num_batched_tokens=9)
    greedy = Sampling(max_tokens=6, temperature=0.0)
    for ending in ("one", "two", "other", "one more"):
        driver.submit(Generate(("a start: ", ending), 2, greedy))
        driver.submit(Score(("a start: ",), (ending, "or not")))
        driver.step()
    driver.drain()
    assert driver.checked.num_checked > 60
    assert driver.engine.stats().evicted_kv_tokens > 0


def test_smollm2_equals_dense(smollm2):
    """Real weights: few-shot shaped prompts in a pool that must evict."""
    rng = random.Random(0)
    driver = Driver(
        smollm2, Dense(smollm2), kv_tokens=60, max_num_seqs=6, max_num_batched_tokens=40
    )
    shots = ["Input: 2 8 8 14\n", "8 / 2 = 4 (left: 4 8 14)\n", "14 + 2 = 16 (left: 8 8 16)\n"]
    for _ in range(4):
        prompt = "".join(shots[: rng.randint(1, 3)]) + rng.choice(["Next:", "14 -", "8 *"])
        greedy = Sampling(max_tokens=rng.randint(2, 6), temperature=0.0)
        driver.submit(Generate((prompt,), rng.randint(1, 3), greedy))
        if rng.random() < 0.5:
            driver.submit(Score((prompt,), (" 2 + 8", " 2 * 8", " 14 - 8")))
        for _ in range(rng.randint(0, 4)):
            driver.step()
            driver.engine.cache.check_integrity()
    driver.drain()
    stats = driver.engine.stats()
    assert driver.checked.num_checked > 30
    assert stats.evicted_kv_tokens > 0
    assert stats.unique_kv_reads < stats.logical_kv_reads
