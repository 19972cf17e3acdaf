"""The comparison of an engine's replies with dense forwards."""

from dataclasses import replace

import pytest
import torch
from tiny_models import byte_tokenizer, make_network

from treeshare.experiments.check_model.equality import ALLOWED, ALLOWED_16_BITS, compare
from treeshare.llm_backend.model.model import Model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_engine_equals_dense_forwards(dtype):
    found, _ = compare(Model.of(make_network("llama").to(dtype), byte_tokenizer()))
    allowed = ALLOWED if dtype == torch.float32 else ALLOWED_16_BITS
    assert found.is_equal and found.allowed == allowed
    assert found.logprobs == 8 + 3 * 8 + 2 * 8 and found.greedy > 8
    assert found.evicted > 0


def test_a_context_that_is_too_short_is_named():
    with pytest.raises(ValueError, match="exceed the model's context of 40 tokens"):
        compare(Model.of(make_network("llama"), byte_tokenizer(), context=40))


@pytest.mark.parametrize(
    "changed",
    [{"difference": 0.02}, {"difference": float("nan")}, {"other_greedy": 1}],
    ids=["difference", "NaN", "greedy"],
)
def test_what_counts_as_unequal(changed):
    found, _ = compare(Model.of(make_network("llama"), byte_tokenizer()))
    assert not replace(found, **changed).is_equal
