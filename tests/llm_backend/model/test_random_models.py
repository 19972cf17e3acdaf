"""Random networks of known shapes, and their tokenizer of one token a character."""

import math

import pytest
import torch
import transformers

from treeshare.llm_backend.model import random_models as networks
from treeshare.llm_backend.model.random_models import (
    SHAPES,
    character_tokenizer,
    load_network,
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
    model = tiny.model("torch")
    assert model.end_tokens == frozenset() and model.context_length == networks.CONTEXT
    assert model.decode(model.encode("some text")) == "some text"
    assert tiny.is_random


def test_models_share_the_weights(tiny):
    before = [parameter.data_ptr() for parameter in tiny.network.parameters()]
    tiny.model("torch"), tiny.model("torch")
    assert [parameter.data_ptr() for parameter in tiny.network.parameters()] == before


def test_weights_are_the_same_each_time_and_leave_the_generator_alone(tiny):
    state = torch.get_rng_state()
    again = load_network("tiny", "float32", "cpu")
    assert torch.equal(torch.get_rng_state(), state)
    for ours, theirs in zip(tiny.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_read_by_a_step_leave_the_embedding_table_out(tiny):
    hidden, inner, kv, vocabulary = 32, 48, 16, 512
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner + 2 * hidden
    assert tiny.weight_bytes() == 4 * (2 * layer + hidden + vocabulary * hidden)
    shape = dict(SHAPES["tiny"], tie_word_embeddings=True)
    network = networks.random_network(shape, torch.float32, "cpu")
    tied = networks.LoadedNetwork(network, None, is_random=True)
    assert tied.weight_bytes() == tiny.weight_bytes()


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
