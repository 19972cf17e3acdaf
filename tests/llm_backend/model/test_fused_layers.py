"""Merged layers: what they would leave out is refused, in every precision."""

import pytest
import torch
from tiny_models import byte_tokenizer, make_network

from treeshare.kernels.planning.segments import Segment
from treeshare.llm_backend.model.attention import TorchAttention
from treeshare.llm_backend.model.network import Network


class Adapted(torch.nn.Module):
    """A projection and a low-rank product beside it, as PEFT's LoRA layers are; its `weight` is the
    projection's alone."""

    def __init__(self, base, size):
        super().__init__()
        self.base = base
        self.down = torch.nn.Linear(base.in_features, 2, bias=False)
        self.up = torch.nn.Linear(2, base.out_features, bias=False)
        with torch.no_grad():
            self.up.weight.normal_(std=size)
        self.to(base.weight.dtype)

    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)
    in_features = property(lambda self: self.base.in_features)
    out_features = property(lambda self: self.base.out_features)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class AdaptedLinear(torch.nn.Linear):
    """The same by inheritance."""

    def forward(self, x):
        return super().forward(x) * 1.01


def adapt(network, path, size=0.02):
    parent, _, name = path.rpartition(".")
    module = network.get_submodule(parent)
    setattr(module, name, Adapted(getattr(module, name), size))


def refused(network):
    with pytest.raises(ValueError) as raised:
        Network(network, byte_tokenizer(), fused=True).check(TorchAttention())
    message = str(raised.value)
    assert message.startswith("fused=true would leave out") and "\n" not in message
    return message


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "path",
    [f"model.layers.1.self_attn.{name}_proj" for name in "qkvo"]
    + [f"model.layers.1.mlp.{name}_proj" for name in ("gate", "up", "down")]
    + ["lm_head"],
)
def test_an_adapter_is_refused_by_name(path, dtype):
    network = make_network("llama").to(dtype)
    adapt(network, path)
    assert f"Adapted adds at {path}: merge adapters" in refused(network)


def test_unmerged_layers_keep_an_adapter():
    network, plain = make_network("llama"), make_network("llama")
    adapt(network, "model.layers.1.self_attn.q_proj", size=1.0)
    ids = torch.arange(10)[None]
    with torch.inference_mode():
        expected, base = (part.eval()(ids).logits[0, -1] for part in (network, plain))
    ours = last_logits(Network(network, byte_tokenizer()), 10)
    assert (ours - expected).abs().max() < 1e-4 < (ours - base).abs().max()


def last_logits(network, length):
    attention = TorchAttention()
    network.check(attention)
    slots = torch.arange(length).numpy()
    segments, pool = [Segment(slots, 0, 0, length)], network.new_pool(length)
    tokens = range(length)
    return network.forward(tokens, tokens, slots, segments, attention, pool, [length - 1])[0]


def subclassed(network):
    layer = network.model.layers[0].mlp
    layer.up_proj.__class__ = AdaptedLinear


def hooked(network):
    network.model.layers[0].register_forward_hook(lambda module, args, output: output)


def hooked_before(network):
    network.model.norm.register_forward_pre_hook(lambda module, args: args)


def patched(network):
    projection = network.model.layers[0].mlp.down_proj
    real = projection.forward
    projection.forward = lambda x: real(x) * 1.01


def parametrized(network):
    torch.nn.utils.parametrize.register_parametrization(
        network.model.layers[0].self_attn.v_proj, "weight", torch.nn.Identity()
    )


def parametrized_norm(network):
    torch.nn.utils.parametrize.register_parametrization(
        network.model.layers[0].input_layernorm, "weight", torch.nn.Identity()
    )


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (subclassed, "AdaptedLinear adds at model.layers.0.mlp.up_proj"),
        (hooked, "the hook of model.layers.0"),
        (hooked_before, "the hook of model.norm"),
        (patched, "the hook of model.layers.0.mlp.down_proj"),
        (parametrized, "ParametrizedLinear adds at model.layers.0.self_attn.v_proj"),
        (parametrized_norm, "ParametrizedLlamaRMSNorm adds at model.layers.0.input_layernorm"),
    ],
)
def test_what_a_module_does_beside_its_weights_is_refused(change, name):
    network = make_network("llama")
    change(network)
    assert name in refused(network)


@pytest.mark.parametrize("family", ["longrope", "dynamic"])
def test_length_dependent_rotary_embeddings_can_be_merged(family):
    plain, merged = (
        Network(make_network(family), byte_tokenizer(), fused=fused) for fused in (False, True)
    )
    assert (last_logits(plain, 60) - last_logits(merged, 60)).abs().max() < 1e-4
