"""Multi-step runs against one forward a token: on the GPU as CUDA graphs, else eagerly."""

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, make_network

from treeshare.llm_backend.api import Generate, Sampling
from treeshare.llm_backend.cache.kv_pool import SlotAllocator
from treeshare.llm_backend.cache.tree_cache import TreeCache
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime import multi_step
from treeshare.llm_backend.runtime.packing import growing_forest

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SAMPLINGS = [
    Sampling(max_tokens=9, temperature=0.0),
    Sampling(max_tokens=7, temperature=1.0, top_p=0.9),
    Sampling(max_tokens=12, temperature=0.8, top_k=20, stop=("a", "\n")),
]
REQUESTS = [
    Generate(("a shared start; ", f"number {i}"), 1 + i % 3, SAMPLINGS[i % 3], seed=i)
    for i in range(5)
]


def serve(engine, count=5):
    replies = dict(engine.execute(dict(enumerate(REQUESTS[:count]))))
    while len(replies) < count:
        replies |= engine.execute({})
        engine.cache.check_integrity()
    return [replies[i] for i in range(count)]


def engine_on(attention, device=DEVICE, architecture="llama", **limits):
    network = make_network(architecture).to(device)
    return TreeEngine(Model.of(network, byte_tokenizer(), attention), **limits)


@pytest.fixture(scope="module")
def plain():
    """The replies of one forward a token, on the CPU."""
    return serve(engine_on("torch", "cpu"))


@pytest.mark.parametrize(("variant", "count"), [("deft", 5), ("deft_node", 2), ("sequence", 2)])
def test_multi_step_runs_give_the_replies_of_single_steps(variant, count, plain):
    engine = engine_on(variant)
    assert_same(serve(engine, count), plain[:count])
    assert engine.stats().steps <= 1 + 12 + 1  # a prefill, the longest sample, one that idled


def test_a_run_goes_on_with_new_plans(plain, monkeypatch):
    """Plans of 3 steps: a run ends with one of them only if a sequence is done."""
    monkeypatch.setattr(multi_step, "STEPS", 3)
    run, counts = multi_step.MultiStepRunner.run, []

    def count(self, batch):
        counts.append(len(batch.sequences))
        return run(self, batch)

    monkeypatch.setattr(multi_step.MultiStepRunner, "run", count)
    engine = engine_on("deft")
    assert_same(serve(engine), plain)
    counts.clear()
    (reply,) = engine.execute({0: Generate(("alone",), 2, Sampling(max_tokens=20))}).values()
    assert counts == [2] and [one.num_tokens for one in reply.completions] == [20, 20]


def test_sequences_that_ignore_end_tokens_go_on():
    """Beside one that does not, in the same run."""
    requests = {i: Generate(("five",), 1, Sampling(3, 0.0, ignore_eos=i == 0)) for i in range(2)}

    def replies(attention):
        engine = engine_on(attention)
        (free,) = engine.execute({9: Generate(("five",), 1, Sampling(3, 0.0))}).values()
        ends = engine.model.tokenizer.encode(free.completions[0].text)[1:2]
        engine.model.network.end_tokens = frozenset(ends)  # the second token
        engine = TreeEngine(engine.model)
        found = dict(engine.execute(requests))
        while len(found) < 2:
            found |= engine.execute({})
        return [found[i].completions[0] for i in range(2)]

    going, ended = replies("deft")
    assert (going.num_tokens, going.finish_reason) == (3, "length")
    assert (ended.num_tokens, ended.finish_reason) == (2, "stop")
    assert [done.text for done in replies("torch")] == [going.text, ended.text]


def test_runs_in_a_pool_that_must_evict(plain):
    """Where slots are no longer in one run, and samples wait for others to end."""
    engine = engine_on("deft", kv_tokens=60, max_num_batched_tokens=20)
    for token in range(30):
        engine.cache.insert([token]).num_computed = 1
    for token in range(0, 30, 2):
        engine.cache.match([token])  # used last
    engine.cache.evict(15)  # every other slot
    assert_same(serve(engine), plain)
    assert engine.stats().evicted_kv_tokens > 0 and engine.stats().paused > 0


def test_sliding_windows_and_two_kinds_of_layers():
    single = serve(engine_on("torch", "cpu", "gemma3"))
    assert_same(serve(engine_on("deft", architecture="gemma3")), single)


def assert_same(replies, expected):
    for reply, other in zip(replies, expected, strict=True):
        assert reply.usage == other.usage
        for ours, theirs in zip(reply.completions, other.completions, strict=True):
            assert ours.text == theirs.text
            assert ours.num_tokens == theirs.num_tokens
            assert ours.finish_reason == theirs.finish_reason
            assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)


def grown(num_slots=40, holes=()):
    """A prompt of 5 and two leaves of 4 below it, with 2 and 1 tokens computed."""
    allocator = SlotAllocator(num_slots)
    allocator.free(np.setdiff1d(allocator.allocate(num_slots), holes))
    cache = TreeCache(allocator)
    node = cache.insert([7, 8, 9, 10, 11])
    node.num_computed = 5
    leaves = []
    for count in (2, 1):
        leaf = cache.fork(node, 4)
        for token in range(count + 1):
            cache.append(leaf, token)
        leaf.num_computed = count
        leaves.append(leaf)
    return leaves


@pytest.mark.parametrize("holes", [(), (1, 6, 8, 12, 14)], ids=["one-run", "many-runs"])
@pytest.mark.parametrize("is_grown", [False, True], ids=["to-grow", "grown"])
def test_growing_forest_names_the_slots_of_each_path(holes, is_grown):
    leaves = grown(holes=holes)
    forest = growing_forest(leaves, is_grown=is_grown)
    queried = np.flatnonzero(forest.num_queries)
    for leaf, node in zip(leaves, queried, strict=True):
        slots, above = [], node
        while above >= 0:
            start = forest.start[above]
            slots = [*range(start, start + forest.length[above]), *slots]
            above = forest.parent[above]
        end = leaf.num_computed + is_grown
        assert slots == [*leaf.anchor.slots, *leaf.slots[:end]]
        if not is_grown:
            assert forest.start[node] + forest.length[node] == leaf.slots[end]
