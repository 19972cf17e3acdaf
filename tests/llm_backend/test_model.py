"""Loading: what is refused, and that a refusal says why in one line."""

import pytest
import torch
import transformers
from tiny_models import CONFIGS, SIZES, byte_tokenizer, make_network

from treeshare.llm_backend.model import Model, load_model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"dtype": "int8"},
            r"model\.dtype='int8' is not one of \['bfloat16', 'float16', 'float32'\]",
        ),
        (
            {"name": "no/such/dir"},
            r"model\.name='no/such/dir' is no directory, and no Hugging Face",
        ),
        ({"name": "nobody/nothing"}, r"model\.name='nobody/nothing' is neither a directory"),
    ],
    ids=["dtype", "path", "hub"],
)
def test_bad_arguments_give_one_line(arguments, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=message) as raised:
        load_model(**arguments)
    assert "\n" not in str(raised.value)


def test_unknown_attention_lists_the_known():
    with pytest.raises(ValueError, match="attention='flash' is not one of torch, deft, "):
        Model(make_network("llama"), byte_tokenizer(), attention="flash")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            transformers.BloomConfig(vocab_size=260, hidden_size=32, n_layer=2, n_head=4),
            "BloomForCausalLM states no max_position_embeddings",
        ),
        (
            transformers.FalconConfig(
                vocab_size=260,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                alibi=True,
            ),
            "FalconForCausalLM .* tree attention",
        ),
        (transformers.StableLmConfig(**SIZES), "StableLmForCausalLM cannot run on tree attention"),
    ],
    ids=["no_positions", "alibi", "no_kwargs"],
)
def test_unsupported_architectures_are_refused(config, message):
    config._attn_implementation = "eager"
    network = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with pytest.raises(ValueError, match=message):
        Model(network, byte_tokenizer())


def test_a_saved_model_loads(tmp_path):
    network = make_network("llama")
    network.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    model = load_model(str(tmp_path), dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert model.layers == [(2, 8, 8)] * 3
    assert model.context_length == 256
    assert model.end_tokens == {257}


def test_continuations_add_up(llama):
    prompt, text = "4 + 4", " = 8"
    assert llama.encode(prompt) + llama.encode_continuation(prompt, text) == llama.encode(
        prompt + text
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_deft_gives_the_logits_of_the_models_own_attention(name):
    """Loading compares them; sliding windows, softcaps and grouped heads are among the models."""
    assert Model(make_network(name), byte_tokenizer(), attention="deft").layers
