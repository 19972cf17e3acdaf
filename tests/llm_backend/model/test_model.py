"""Loading: what is refused, and that a refusal says why in one line."""

import numpy as np
import pytest
import torch
from attention_check import DEVICE
from tiny_models import CONFIGS, byte_tokenizer, make_network

from treeshare.kernels.planning.segments import Segment
from treeshare.llm_backend.model.attention import TorchAttention, make_backend
from treeshare.llm_backend.model.model import Model, load_model
from treeshare.llm_backend.model.network import Network


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
        Model.of(make_network("llama"), byte_tokenizer(), attention="flash")


def test_a_saved_model_loads(tmp_path):
    network = make_network("llama")
    network.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    model = load_model(str(tmp_path), dtype="bfloat16")
    assert model.network.dtype == torch.bfloat16
    model.network.check(TorchAttention())
    assert model.network.layers == [(2, 8, 8)] * 3
    assert model.network.context_length == 256
    assert model.network.end_tokens == {257}


def test_continuations_add_up(llama):
    prompt, text = "4 + 4", " = 8"
    start, ends = llama.tokenizer.encode_continuations(prompt, [text])
    assert start + ends[0] == llama.tokenizer.encode(prompt + text)


@pytest.mark.parametrize("name", CONFIGS)
def test_deft_gives_the_logits_of_the_models_own_attention(name):
    """The check compares them; sliding windows and grouped heads are among the models."""
    network = make_network(name).to(DEVICE)
    Network(network, byte_tokenizer()).check(make_backend("deft", DEVICE))


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_merged_layers_give_the_same_logits(architecture):
    network = make_network(architecture)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # norms and biases, which begin as ones and zeros
                parameter.add_(torch.rand_like(parameter))
    tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    with torch.inference_mode():
        expected = network(torch.tensor([tokens])).logits[0]
    ours, attention = Network(network, byte_tokenizer(), fused=True), TorchAttention()
    ours.check(attention)
    slots, rows = np.arange(len(tokens)), [0, 4, 9]
    segments = [Segment(slots, 0, 0, len(tokens))]
    pool = ours.new_pool(len(tokens))
    logits = ours.forward(tokens, range(len(tokens)), slots, segments, attention, pool, rows)
    assert (logits - expected[rows]).abs().max() < 1e-4
    attention = network.model.layers[0].self_attn
    storages = {
        part.weight.untyped_storage().data_ptr()
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    }
    assert len(storages) == 1  # nothing is held twice


def test_architectures_that_cannot_be_merged_are_named():
    with pytest.raises(ValueError, match=r"fused=true knows .* not Gemma3ForCausalLM"):
        Network(make_network("gemma3"), byte_tokenizer(), fused=True).check(TorchAttention())
