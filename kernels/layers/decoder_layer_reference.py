"""The functions of `decoder_layer.py` in PyTorch, for any device: their reference."""

from __future__ import annotations

import torch
from torch.nn.functional import linear, silu


def add_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    """Add x [N, hidden] to the residual stream in place, and return its RMS norm."""
    residual += x
    return _normed(residual, weight, epsilon)


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """Compute silu(gate) * up of [N, 2 W]: [N, W]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate) * up


def gated_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Compute `gated(linear(x, weight, bias))` of [M, K], [2 W, K] and [2 W]: [M, W]."""
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
    """Rotate queries and keys, and write keys and values into the pools.

    Arguments and result are those of `decoder_layer.rotate_and_write`.
    """
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
