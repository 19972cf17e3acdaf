"""Llama-like networks with few kernels a layer: ten, where Hugging Face's modules launch forty.

The projections of queries, keys and values are one matrix, and so are the gate's and the up
projection's. Between the matrices run the kernels of kernels/layers/, or PyTorch without a GPU. The
modules of the Hugging Face network become views of the merged weights. The caller compares the
logits with the network's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from treeshare.kernels.layers import decoder_layer_reference

from .attention import TreeBatch

ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
"""Classes of Hugging Face networks that can be fused."""
_KNOWN_MODULES = ("torch.nn.modules.", "transformers.models.", "transformers.activations")


@dataclass(frozen=True, slots=True)
class _Layer:
    """The weights of a layer."""

    norm: torch.Tensor  # [hidden], before attention
    qkv: torch.Tensor  # [(HQ + 2 HK) D, hidden]
    qkv_bias: torch.Tensor | None
    qk_norm: torch.Tensor | None  # [HQ + HK, D], Qwen3's
    output: Any  # linear
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor  # [2 intermediate, hidden]
    gate_up_bias: torch.Tensor | None
    down: Any  # linear
    options: dict[str, Any]  # options of the attention, as the network's own layer asks for them


class FusedDecoder:
    """A network with merged layers, from token ids to logits.

    Args:
        network: one of `ARCHITECTURES`.
        options: options of each layer's attention (`TreeBatch.options`).
        context: tokens that a text may have.

    Attributes:
        rotary: cosines and sines of every position, each [context, D].

    Raises:
        ValueError: another architecture, an activation that is not SiLU, or a module that is not
            the architecture's own, which the merged layers would leave out (an adapter, a hook, a
            quantized projection).
    """

    def __init__(self, network: Any, options: dict[int, dict[str, Any]], context: int) -> None:
        name, config = type(network).__name__, network.config
        if name not in ARCHITECTURES:
            raise ValueError(f"fused=true knows {', '.join(ARCHITECTURES)}, not {name}")
        if config.hidden_act != "silu":
            raise ValueError(f"fused=true knows the activation silu, not {config.hidden_act!r}")
        _check_plain(network)
        self._body, self._head = network.model, network.lm_head
        self._epsilon: float = config.rms_norm_eps
        self._kernels: Any = decoder_layer_reference
        if network.device.type == "cuda":
            # Imported here: Triton decides at import whether it compiles or interprets.
            from treeshare.kernels.layers import decoder_layer

            self._kernels = decoder_layer
        self.rotary = rotary_table(network, context)
        layers = network.model.layers
        self._layers = [_merged(layer, options[i]) for i, layer in enumerate(layers)]

    def __call__(
        self,
        batch: TreeBatch,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute one forward; see `Network.run`.

        Args:
            batch: plan, pool and slots of the N tokens.
            tokens: [N] int64.
            positions: [N] int64.
            rows: [R] int64; None wants all.

        Returns:
            Logits [R, vocabulary].
        """
        kernels, epsilon, pool = self._kernels, self._epsilon, batch.pool
        x = self._body.embed_tokens(tokens)
        cos, sin = self.rotary
        residual = torch.zeros_like(x)
        for i, layer in enumerate(self._layers):
            x = kernels.add_norm(x, residual, layer.norm, epsilon)
            x = kernels.linear(x, layer.qkv, layer.qkv_bias)
            q = kernels.rotate_and_write(
                x, cos, sin, positions, layer.qk_norm, epsilon, pool.keys[i], pool.values[i],
                batch.slots,
            )  # fmt: skip
            o = batch.backend.run(q, pool.keys[i], pool.values[i], batch.plan, **layer.options)
            x = kernels.linear(o.view(len(o), -1), layer.output.weight, layer.output.bias)
            x = kernels.add_norm(x, residual, layer.mlp_norm, epsilon)
            x = kernels.gated_linear(x, layer.gate_up, layer.gate_up_bias)
            x = kernels.linear(x, layer.down.weight, layer.down.bias)
        weight = self._body.norm.weight
        x = kernels.add_norm(x, residual, weight, epsilon)
        logits: torch.Tensor = kernels.linear(
            x if rows is None else x[rows], self._head.weight, self._head.bias
        )
        return logits


def _check_plain(network: Any) -> None:
    """Check that no module does more with its weights than its class does; only weights are merged.

    Raises:
        ValueError: a module is of another class, or has a hook or a forward of its own.
    """
    for name, module in network.named_modules():
        kind = type(module)
        is_known = kind.__module__.startswith(_KNOWN_MODULES)
        if name.endswith(("_proj", "lm_head")):
            is_known = kind is torch.nn.Linear
            if is_known and type(module.weight.data) is not torch.Tensor:
                kind, is_known = type(module.weight.data), False  # torchao's, of quantised weights
        if not is_known:
            raise ValueError(
                f"fused=true would leave out what {kind.__name__} adds at {name}: merge adapters "
                "into the weights (peft: merge_and_unload), or set model.fused=false"
            )
        hooks = (module._forward_hooks, module._forward_pre_hooks)
        if any(hooks) or ("forward" in vars(module) and not hasattr(module, "rope_type")):
            raise ValueError(f"fused=true would leave out the hook of {name or kind.__name__}")


@torch.no_grad()
def rotary_table(network: Any, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the cosines and sines of every position, each [context, D], in its dtype."""
    positions = torch.arange(context, device=network.device)
    like = network.lm_head.weight[:1]  # gives dtype and device
    cos, sin = network.model.rotary_emb(like, position_ids=positions[None])
    return cos[0].contiguous(), sin[0].contiguous()


def _merged(layer: Any, options: dict[str, Any]) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    qkv, qkv_bias = _merge(projections)
    gate_up, gate_up_bias = _merge([mlp.gate_proj, mlp.up_proj])
    qk_norm = None
    if hasattr(attention, "q_norm"):
        width = attention.head_dim
        norms = zip((attention.q_norm, attention.k_norm), projections[:2], strict=True)
        rows = [norm.weight.expand(part.out_features // width, width) for norm, part in norms]
        qk_norm = torch.cat(rows)
    return _Layer(
        layer.input_layernorm.weight,
        qkv,
        qkv_bias,
        qk_norm,
        attention.o_proj,
        layer.post_attention_layernorm.weight,
        gate_up,
        gate_up_bias,
        mlp.down_proj,
        options,
    )


@torch.no_grad()
def _merge(parts: list[Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Merge linear layers of one input into one; each becomes a view of it."""
    weight = torch.cat([part.weight for part in parts])
    sizes = [part.out_features for part in parts]
    for part, rows in zip(parts, torch.split(weight, sizes), strict=True):
        part.weight.data = rows
    if parts[0].bias is None:
        return weight, None
    return weight, torch.cat([part.bias for part in parts])
