"""What the tree engine logs: its choices, what costs speed, and each event in detail."""

import logging

import pytest
import torch
from attention_check import DEVICE
from tiny_models import byte_tokenizer, make_network

from treeshare.llm_backend.api import Generate, Sampling
from treeshare.llm_backend.engines import tree as engine_module
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model import model as model_module
from treeshare.llm_backend.model.device import Gpu
from treeshare.llm_backend.model.model import Model

SAMPLED = Sampling(max_tokens=12, temperature=1.0)


@pytest.fixture
def records(caplog):
    """The records of the engine so far, by level."""
    caplog.set_level(logging.DEBUG, logger="treeshare.llm_backend")

    def of(level):
        return [r.getMessage() for r in caplog.records if r.levelname == level]

    return of


def serve(engine, count):
    new = {i: Generate((f"{i} is a prompt",), 2, SAMPLED, seed=i) for i in range(count)}
    answered = {}
    while len(answered) < count:
        answered |= engine.execute(new)
        new = {}


def test_a_pool_that_is_too_small_is_one_warning(llama, records):
    engine = TreeEngine(llama, kv_tokens=64)
    serve(engine, 6)
    assert engine.stats().paused > 1
    (warning,) = records("WARNING")
    assert warning.startswith("the KV pool of 64 tokens is full with ")
    assert "engine.kv_tokens" in warning
    details = records("DEBUG")
    assert sum("wait for KV memory" in text for text in details) == engine.stats().paused
    assert any(text.startswith("evicted ") for text in details)


def test_a_pool_that_is_large_enough_logs_no_event(llama, records):
    serve(TreeEngine(llama), 6)
    assert records("WARNING") == [] and records("DEBUG") == []
    assert "attention torch without CUDA graphs" in records("INFO")


def test_graphs_are_logged(records):
    model = Model.of(make_network("llama").to(DEVICE), byte_tokenizer(), attention="deft")
    serve(TreeEngine(model), 1)
    assert "attention deft with CUDA graphs of several decode steps" in records("INFO")
    assert any(text.startswith("capturing ") for text in records("INFO"))
    assert any(text.startswith("captured ") for text in records("DEBUG"))


def test_what_the_engine_computes_with_is_one_line(llama, records):
    TreeEngine(llama, kv_tokens=2000, max_num_seqs=20)
    assert (
        "cpu float32 torch, 2,000 KV tokens (0.0 GiB), at most 20 sequences and 1,024 tokens in a "
        "forward"
    ) in records("INFO")


def test_torch_attention_on_a_gpu_is_a_warning(llama, records, monkeypatch):
    for capability, count in (((7, 5), 0), ((9, 0), 1)):
        monkeypatch.setattr(model_module, "gpu_of", lambda _: Gpu(capability))  # noqa: B023
        llama.make_attention()
        assert sum("model.attention=deft" in text for text in records("WARNING")) == count


def test_out_of_memory_names_the_keys_to_lower(llama, records, monkeypatch):
    engine = TreeEngine(llama, kv_tokens=100, max_num_seqs=7, max_num_batched_tokens=50)

    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "ScheduledForward", fails)
        with pytest.raises(MemoryError) as raised:
            serve(engine, 1)
    assert str(raised.value) == (
        "out of memory on cpu with 2 sequences running: lower engine.kv_tokens=100, "
        "engine.max_num_seqs=7, engine.max_num_batched_tokens=50"
    )
    serve(engine, 1)  # the engine is as a new one
