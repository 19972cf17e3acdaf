"""The check of a network: which networks pass it, which it refuses, and what it would notice."""

import pytest
import torch
import transformers
from tiny_models import FAMILIES, REFUSED, SIZES, byte_tokenizer, make_network, network_of

from treeshare.llm_backend.model import fused_layers as fused
from treeshare.llm_backend.model import network as network_module
from treeshare.llm_backend.model.attention import TorchAttention
from treeshare.llm_backend.model.compatibility import Probe
from treeshare.llm_backend.model.network import Network


def checked(hf, fused=False):
    network = Network(hf, byte_tokenizer(), fused)
    network.check(TorchAttention())
    return network


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_families_that_run_on_tree_attention_are_accepted(family, dtype):
    network = checked(make_network(family).to(dtype))
    assert len(network.layers) == network.hf.config.num_hidden_layers


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("family", REFUSED)
def test_others_are_refused_in_a_line_that_names_class_and_cause(family, dtype):
    config, cause = REFUSED[family]
    network = network_of(config()).to(dtype)
    with pytest.raises(ValueError) as raised:
        checked(network)
    message = str(raised.value)
    assert message.startswith(f"{type(network).__name__} ") and cause in message
    assert "\n" not in message


class Blind(transformers.LlamaForCausalLM):
    """Ignores one of the things that a packed forward gives."""

    blind_to = ""

    def forward(self, *args, **kwargs):
        if self.config._attn_implementation == "treeshare" and self.blind_to in kwargs:
            kwargs.pop(self.blind_to)
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize(
    ("blind_to", "cause"),
    [
        ("position_ids", "gives other logits"),
        ("logits_to_keep", "gives other logits"),
        ("tree", "does not pass keyword arguments on"),
    ],
)
def test_a_network_that_ignores_what_it_is_given_is_refused(blind_to, cause):
    config = transformers.LlamaConfig(**SIZES)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    network = Blind(config)
    network.blind_to = blind_to
    with pytest.raises(ValueError, match=f"Blind .*{cause}"):
        checked(network)


def test_a_network_that_depends_on_its_longest_text_is_refused(monkeypatch):
    monkeypatch.setattr(network_module, "fix_rotary", lambda *_: None)
    with pytest.raises(ValueError, match="Phi3ForCausalLM gives other logits on tree attention"):
        checked(make_network("phi3 longrope"))


@pytest.mark.parametrize("window", [3, 7, 50])
def test_attention_that_forgets_a_window_is_noticed(window, monkeypatch):
    real = TorchAttention.run
    monkeypatch.setattr(
        TorchAttention, "run", lambda *args, sliding_window, **more: real(*args, **more)
    )
    network = network_of(transformers.MistralConfig(**SIZES, sliding_window=window))
    with pytest.raises(ValueError, match="MistralForCausalLM gives other logits"):
        checked(network)


def test_keys_that_later_forwards_do_not_find_are_noticed(monkeypatch):
    real = TorchAttention.write

    def write(self, k, v, pool, layer, slots):
        real(self, k * (slots >= 4)[:, None, None], v, pool, layer, slots)

    monkeypatch.setattr(TorchAttention, "write", write)
    with pytest.raises(ValueError, match="gives other logits on tree attention"):
        checked(make_network("llama"))


def test_positions_at_the_end_of_the_context_are_compared(monkeypatch):
    real = fused.rotary_table
    monkeypatch.setattr(
        fused, "rotary_table", lambda *args: tuple(_cut(table) for table in real(*args))
    )
    with pytest.raises(ValueError, match="gives other logits with merged layers"):
        checked(make_network("llama"), fused=True)


def _cut(table):
    return torch.cat([table[:200], torch.zeros_like(table[200:])])


def test_a_long_context_costs_the_probe_no_memory(monkeypatch):
    sizes = []
    real = Network.new_pool
    monkeypatch.setattr(
        Network, "new_pool", lambda self, slots: sizes.append(slots) or real(self, slots)
    )
    config = transformers.LlamaConfig(**SIZES | {"max_position_embeddings": 131_072})
    assert checked(network_of(config)).context_length == 131_072
    assert max(sizes) < 100


def test_the_probe_leaves_the_networks_attention_as_it_was():
    network = make_network("llama")
    before = torch.random.get_rng_state()
    Probe(network, 256)
    assert network.config._attn_implementation == "eager"
    assert torch.equal(torch.random.get_rng_state(), before)


def test_memory_that_runs_out_is_no_refusal(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TorchAttention, "run", full)
    with pytest.raises(torch.OutOfMemoryError):
        checked(make_network("llama"))
