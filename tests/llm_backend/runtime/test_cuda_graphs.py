"""Forwards in fixed memory against eager ones in PyTorch: on the GPU as CUDA graphs."""

import random

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, make_network

from treeshare.kernels.planning import tree_plan
from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.forest import Forest
from treeshare.kernels.planning.work_list import Capacity
from treeshare.llm_backend.api import Generate, Sampling, Score
from treeshare.llm_backend.engines.draft_model import ModelDrafter
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model import attention as attentions
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime import cuda_graphs, planned_step
from treeshare.llm_backend.runtime.eager import EagerRunner
from treeshare.llm_backend.speculative.ngram import NgramDrafter

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SAMPLINGS = [
    Sampling(max_tokens=4, temperature=0.0),
    Sampling(max_tokens=4, temperature=1.0),
    Sampling(max_tokens=6, temperature=0.8, top_k=20),
]
SHARED = "a shared start; "


@pytest.fixture(autouse=True)
def graphs_from_the_first_forward_on(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "NUM_EAGER", 0)


class Guesses:
    """Drafts random trees, and now and then what plain decoding gives."""

    def __init__(self, truth=()):
        self.rng = random.Random(1)
        self.truth = dict(truth)
        self.seen = {}

    def check(self, model):
        pass

    def propose(self, draws, limits):
        return [self.of(draw) for draw in draws]

    def of(self, draw):
        self.seen[key_of(draw)] = draw.generated
        rest = self.truth.get(key_of(draw), [])[len(draw.generated) :]
        wrong = [self.rng.randrange(256) for _ in range(3)]
        return [[*rest[:1], *wrong[:2]], rest[:2], wrong]

    def close(self):
        pass


def key_of(draw):
    return draw.group.prompt, draw.group.request.seed, draw.sample_index


class Compared:
    """A forward in fixed memory, each output compared with that of an eager one in PyTorch; and
    all that either writes to the pool."""

    def __init__(self, engine, model):
        self.graphs, self.pool = engine.runners.forward, engine.pool
        attention = attentions.TorchAttention(DEVICE)
        model.network.check(attention)
        self.eager = EagerRunner(model.network, attention, engine.pool)
        self.sizes = []

    def run(self, batch):
        before = self._stored()
        (expected,) = self.eager.run(batch)
        written = self._stored()
        for tensor, old in zip(self._tensors(), before, strict=True):
            tensor.copy_(old)
        (output,) = self.graphs.run(batch)
        self.sizes.append((batch.num_tokens, len(batch.places), len(batch.targets)))
        assert output.tokens == expected.tokens
        assert output.logprobs == pytest.approx(expected.logprobs, abs=1e-3)
        assert output.target_logprobs == pytest.approx(expected.target_logprobs, abs=1e-3)
        for tensor, other in zip(self._tensors(), written, strict=True):
            torch.testing.assert_close(tensor, other, atol=1e-3, rtol=1e-3)
        yield output

    def _tensors(self):
        return [*self.pool.keys, *self.pool.values]

    def _stored(self):
        return [tensor.clone() for tensor in self._tensors()]


def model_on(attention, architecture="llama", num_layers=2, fused=False):
    network = make_network(architecture).to(DEVICE)
    del network.model.layers[num_layers:]
    network.config.num_hidden_layers = num_layers
    network.config.layer_types = getattr(network.config, "layer_types", [])[:num_layers] or None
    return Model.of(network, byte_tokenizer(), attention, fused)


def compared(variant, architecture="llama", drafter=None, fused=False, **limits):
    model = model_on(variant, architecture, fused=fused)
    engine = TreeEngine(model, speculative=drafter, **limits)
    forward = Compared(engine, model_on("torch", architecture))
    engine.runners = engine.runners._replace(forward=forward)
    return engine


def serve(engine, requests):
    replies = dict(engine.execute(dict(enumerate(requests))))
    while len(replies) < len(requests):
        replies |= engine.execute({})
        engine.cache.check_integrity()
    return [replies[i] for i in range(len(requests))]


def mixed(count=3):
    generate = [Generate((SHARED, f"{i}"), 1 + i % 2, SAMPLINGS[i], seed=i) for i in range(count)]
    return [*generate, Score((SHARED,), ("yes", "yet", "no"))]


@pytest.fixture(scope="module")
def truth():
    """What plain decoding generates, by sequence."""
    drafter = Guesses()
    serve(TreeEngine(model_on("torch"), speculative=drafter), mixed())
    return drafter.seen


@pytest.mark.parametrize(("variant", "count"), [("deft", 3), ("deft_node", 1)])
def test_verification_scoring_and_prefill_equal_eager_forwards(variant, count, truth):
    """In steps so small that prompts take several, among free slots that are not in one run."""
    drafter = Guesses(truth)
    engine = compared(variant, drafter=drafter, kv_tokens=110, max_num_batched_tokens=15)
    for token in range(40):
        engine.cache.insert([token]).num_computed = 1
    for token in range(0, 40, 2):
        engine.cache.match([token])  # used last
    engine.cache.evict(20)  # every other slot
    serve(engine, mixed(count))
    stats, sizes = engine.stats(), engine.runners.forward.sizes
    assert len(sizes) == stats.steps
    assert 0 < stats.accepted_tokens < stats.drafted_tokens
    assert any(scores for _, _, scores in sizes)
    assert any(rows == 0 for _, rows, scores in sizes if not scores)  # a part of a prompt
    assert all(truth[key] == tokens for key, tokens in drafter.seen.items())


def test_sliding_windows_and_two_kinds_of_layers():
    engine = compared("deft", "gemma3", drafter=Guesses())
    serve(engine, mixed(2))
    assert engine.stats().drafted_tokens > 0


def test_samples_that_join_multi_step_runs_and_what_a_smaller_model_drafts():
    drafter = ModelDrafter(model_on("deft", num_layers=1), num_tokens=2)
    plain = compared("deft")
    expected = serve(plain, mixed(1))
    num_joined = len(plain.runners.forward.sizes)
    assert 0 < num_joined < plain.stats().steps  # the others are steps of multi-step runs
    serve(plain, mixed(1)[:1])
    assert len(plain.runners.forward.sizes) == num_joined  # where a prompt is computed, all are
    engine = compared("deft", drafter=drafter)
    replies = serve(engine, mixed(1))
    assert replies[0].completions[0].text == expected[0].completions[0].text
    assert replies[1].logprobs == pytest.approx(expected[1].logprobs, abs=1e-4)
    assert engine.stats().drafted_tokens > 0


def test_a_forest_that_outgrows_its_plans_makes_larger_ones(monkeypatch, truth):
    """Rarely: each time there is room for twice as much, and no less than before."""
    nothing = Capacity(nodes=0, queries=0, copies=0, entries=0, items=0, partials=0)
    monkeypatch.setattr(tree_plan, "ample_capacity", lambda *_, **__: nothing)
    made = []
    real = planned_step.captured
    monkeypatch.setattr(
        planned_step, "captured", lambda run, device: made.append(1) or real(run, device)
    )
    engine = compared("deft", drafter=Guesses(truth), fused=True, max_num_batched_tokens=16)
    serve(engine, [Generate(("a",), 1, SAMPLINGS[0])])
    assert len(made) == 1
    serve(engine, [Generate((letter * 3,), 1, SAMPLINGS[1]) for letter in "bcd"])
    num_steps = engine.stats().steps
    assert 2 <= len(made) <= 3 and len(engine.runners.forward.graphs.graphs) == 1
    serve(engine, [Generate((letter * 3,), 1, SAMPLINGS[1]) for letter in "efg"])
    assert len(made) <= 3 and engine.stats().steps > num_steps


def test_larger_plans_are_no_smaller_in_anything():
    backend = attentions.make_backend("deft", DEVICE)
    table = torch.arange(900, dtype=torch.int32, device=DEVICE)
    plans = backend.captured_plans(table, 4)
    heads = AttentionSpec(4, 2, 8, 8, torch.float32)
    ones = np.array([1, 1, 1, 1])
    plans.enlarge(Forest.packed(np.array([-1, 0]), np.array([700, 1]), np.array([0, 1])))
    long = plans.of(heads).capacity
    plans.enlarge(Forest.packed(-ones, 50 * ones, ones))
    both = plans.of(heads).capacity
    assert both == both.union(long) and both != long


def test_what_is_too_large_and_the_first_of_its_size_run_eagerly(monkeypatch):
    engine = compared("deft", drafter=NgramDrafter(num_tokens=2))
    monkeypatch.setattr(cuda_graphs, "MAX_WORK", 16 * engine.model.network.num_parameters)
    monkeypatch.setattr(cuda_graphs, "NUM_EAGER", 1)
    eager, graphs = [], engine.runners.forward.graphs
    run = graphs.eager.run
    monkeypatch.setattr(
        graphs.eager, "run", lambda batch: eager.append(batch.num_tokens) or run(batch)
    )
    serve(engine, [Generate(("a prompt of more than sixteen tokens",), 1, SAMPLINGS[0])])
    first, second = eager
    assert first > 16 >= second
    assert engine.stats().steps > 2
