"""What the kernels of `decoder_layer.py` must give, in PyTorch on any device; see there."""

from __future__ import annotations

import torch
from torch.nn.functional import linear, silu


def add_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    residual += x
    return _normed(residual, weight, epsilon)


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate) * up


def gated_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return gated(linear(x, weight, bias))


def rotate_and_write(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    norm: torch.Tensor | None,
    epsilon: float,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    _, num_kv_heads, width = k_pool.shape
    x = qkv.view(len(qkv), -1, width)
    turned, v = x[:, :-num_kv_heads], x[:, -num_kv_heads:]
    if norm is not None:
        turned = _normed(turned, norm, epsilon)
    low, high = turned.chunk(2, dim=-1)
    twin = torch.cat([-high, low], dim=-1)
    positions = positions.clamp(max=len(cos) - 1)
    turned = turned * cos[positions, None] + twin * sin[positions, None]
    is_kept = slots >= 0
    k_pool[slots[is_kept]] = turned[is_kept, -num_kv_heads:]
    v_pool[slots[is_kept]] = v[is_kept]
    return turned[:, :-num_kv_heads]


def _normed(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return weight * wide.to(x.dtype)
