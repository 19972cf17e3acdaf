"""Random networks of known shapes, and their tokenizer of one token a character."""

import math
from dataclasses import replace

import pytest
import torch
import transformers

from treeshare.llm_backend.api import Generate, Sampling
from treeshare.llm_backend.engines.hf import HuggingFaceEngine
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model import random_models as networks
from treeshare.llm_backend.model.network import Network
from treeshare.llm_backend.model.random_models import (
    SHAPES,
    character_tokenizer,
    load_network,
    weight_bytes,
)


@pytest.fixture(scope="module")
def tiny():
    return load_network("tiny", "float32", "cpu")


def test_characters_and_tokens_undo_each_other():
    size = 0xE100  # beyond the code points that are no characters
    tokenizer = character_tokenizer(size)
    tokens = list(range(size))
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    assert len(text) == size and tokenizer.encode(text) == tokens
    assert tokenizer.encode("a: b\n") == list(b"a: b\n")
    assert tokenizer.encode("a\U0001f600b") == [97, 98]


def test_a_model_has_no_end_and_tells_of_its_context(tiny):
    model = tiny
    assert (
        model.network.end_tokens == frozenset() and model.network.context_length == networks.CONTEXT
    )
    assert model.tokenizer.decode(model.tokenizer.encode("some text")) == "some text"


def test_engines_of_several_kinds_share_the_weights(tiny):
    """Each sets the network's attention to its own before it runs."""
    hf = tiny.network.hf
    before = [parameter.data_ptr() for parameter in hf.parameters()]
    request = {0: Generate(("some text",), 1, Sampling(max_tokens=5, temperature=0.0))}
    engines = [TreeEngine(tiny), HuggingFaceEngine(tiny), TreeEngine(replace(tiny))]
    replies = [engine.execute(request)[0].completions[0].text for engine in engines * 2]
    assert len(set(replies)) == 1
    assert [parameter.data_ptr() for parameter in hf.parameters()] == before


def test_weights_are_the_same_each_time_and_leave_the_generator_alone(tiny):
    state = torch.get_rng_state()
    again = load_network("tiny", "float32", "cpu")
    assert torch.equal(torch.get_rng_state(), state)
    for ours, theirs in zip(
        tiny.network.hf.parameters(), again.network.hf.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_weights_read_by_a_step_leave_the_embedding_table_out(tiny):
    hidden, inner, kv, vocabulary = 32, 48, 16, 512
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner + 2 * hidden
    assert weight_bytes(tiny.network) == 4 * (2 * layer + hidden + vocabulary * hidden)
    shape = dict(SHAPES["tiny"], tie_word_embeddings=True)
    network = networks.random_network(shape, torch.float32, "cpu")
    tied = Network(network, character_tokenizer(512))
    assert weight_bytes(tied) == weight_bytes(tiny.network)


@pytest.mark.parametrize(
    ("name", "billions"),
    # as published: 8.03 billion parameters; 4.0 billion, the embedding counted once
    [("llama3-8b", 8.03), ("qwen3-4b", 4.02)],
)
def test_shapes_have_the_published_sizes(name, billions):
    config = transformers.AutoConfig.for_model(**SHAPES[name])
    with torch.device("meta"):
        network = transformers.AutoModelForCausalLM.from_config(config)
    assert math.isclose(network.num_parameters() / 1e9, billions, rel_tol=0.005)
    assert (config.num_attention_heads, config.num_key_value_heads) == (32, 8)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny", "int8", "cpu"), "model.dtype='int8' is not one of"),
        (("no such model", "float32", "cpu"), "model.name='no such model' is no directory"),
    ],
)
def test_what_cannot_be_loaded_is_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        load_network(*arguments)
