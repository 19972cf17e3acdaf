"""The small kernels between the matrix products of a Llama-like decoder layer.

`decoder_layer_reference.py` has the same functions in PyTorch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.nn import functional
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from treeshare.kernels.launch import pdl

from .skinny_linear import skinny_linear


@triton.jit
def add_norm_kernel(
    p_x, p_residual, p_weight, p_out, epsilon,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Add x to the residual stream in place; out is the RMS norm of the sum: program (row)."""
    i_n = tl.program_id(0).to(tl.int64)
    o_d = tl.arange(0, BLOCK)
    m_d = o_d < WIDTH
    if PDL:
        gdc_launch_dependents()
    b_weight = tl.load(p_weight + o_d, mask=m_d, other=0.0)  # no kernel writes it
    if PDL:
        gdc_wait()
    b_x = tl.load(p_x + i_n * WIDTH + o_d, mask=m_d, other=0.0)
    b_residual = tl.load(p_residual + i_n * WIDTH + o_d, mask=m_d, other=0.0)
    b_residual = (b_residual.to(tl.float32) + b_x.to(tl.float32)).to(b_x.dtype)
    tl.store(p_residual + i_n * WIDTH + o_d, b_residual, mask=m_d)
    b_wide = b_residual.to(tl.float32)
    b_wide *= tl.rsqrt(tl.sum(b_wide * b_wide, 0) / WIDTH + epsilon)
    b_out = b_weight * b_wide.to(b_x.dtype)
    tl.store(p_out + i_n * WIDTH + o_d, b_out, mask=m_d)


@triton.jit
def gated_kernel(
    p_gate_up, p_out, WIDTH: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Compute silu(gate) * up: program (row, block)."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    i_n, i_d = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_d = i_d * BLOCK + tl.arange(0, BLOCK)
    m_d = o_d < WIDTH
    b_gate = tl.load(p_gate_up + i_n * (2 * WIDTH) + o_d, mask=m_d).to(tl.float32)
    b_up = tl.load(p_gate_up + i_n * (2 * WIDTH) + WIDTH + o_d, mask=m_d)
    b_out = (b_gate / (1 + tl.exp(-b_gate))).to(b_up.dtype) * b_up
    tl.store(p_out + i_n * WIDTH + o_d, b_out, mask=m_d)


@triton.jit
def rotate_and_write_kernel(
    p_qkv, p_cos, p_sin, p_position, p_norm, p_q, p_k_pool, p_v_pool, p_slot, last, epsilon,
    HQ: tl.constexpr, HK: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BH: tl.constexpr,
    NORM: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Normalize and rotate queries and keys, and write keys and values: program (token, BH heads).

    Keys and values go to the token's slot, unless that is -1.
    """
    if PDL:
        gdc_launch_dependents()
    # Safe before gdc_wait: the preceding kernel writes queries, keys and values only.
    i_n = tl.program_id(0).to(tl.int64)
    slot = tl.load(p_slot + i_n).to(tl.int64)
    position = tl.minimum(tl.load(p_position + i_n), last)
    o_h = tl.program_id(1) * BH + tl.arange(0, BH)[:, None]
    o_d = tl.arange(0, BD)[None, :]
    m_d = o_d < D
    b_cos = tl.load(p_cos + position * D + o_d, mask=m_d, other=0.0).to(tl.float32)
    b_sin = tl.load(p_sin + position * D + o_d, mask=m_d, other=0.0).to(tl.float32)
    if PDL:
        gdc_wait()
    o_twin = tl.where(o_d < D // 2, o_d + D // 2, o_d - D // 2)
    m_x = (o_h < HQ + 2 * HK) & m_d
    p_x = p_qkv + i_n * ((HQ + 2 * HK) * D) + o_h * D
    b_x = tl.load(p_x + o_d, mask=m_x, other=0.0)
    b_twin = tl.load(p_x + o_twin, mask=m_x, other=0.0)
    b_q = b_x.to(tl.float32)
    b_t = b_twin.to(tl.float32)
    if NORM:
        m_n = (o_h < HQ + HK) & m_d
        b_scale = tl.rsqrt(tl.sum(b_q * b_q, 1) / D + epsilon)[:, None]
        b_q = (b_q * b_scale).to(b_x.dtype) * tl.load(p_norm + o_h * D + o_d, mask=m_n, other=0.0)
        b_t = (b_t * b_scale).to(b_x.dtype)
        b_t = b_t * tl.load(p_norm + o_h * D + o_twin, mask=m_n, other=0.0)
        b_q, b_t = b_q.to(tl.float32), b_t.to(tl.float32)
    b_turned = (b_q * b_cos + tl.where(o_d < D // 2, -b_t, b_t) * b_sin).to(b_x.dtype)
    tl.store(p_q + i_n * (HQ * D) + o_h * D + o_d, b_turned, mask=(o_h < HQ) & m_d)
    m_slot = m_x & (slot >= 0)
    o_k, o_v = o_h - HQ, o_h - HQ - HK
    m_k, m_v = m_slot & (o_k >= 0) & (o_k < HK), m_slot & (o_v >= 0)
    tl.store(p_k_pool + slot * (HK * D) + o_k * D + o_d, b_turned, mask=m_k)
    tl.store(p_v_pool + slot * (HK * D) + o_v * D + o_d, b_x, mask=m_v)


def add_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    """Add x to the residual stream in place, and return its RMS norm (arXiv 1910.07467).

    Args:
        x: [N, hidden], contiguous.
        residual: [N, hidden], contiguous; changed.
        weight: [hidden].
        epsilon: added to the mean square.

    Returns:
        [N, hidden], dtype of `x`.
    """
    out = torch.empty_like(x)
    width = x.shape[1]
    add_norm_kernel[(len(x),)](
        x, residual, weight, out, epsilon,
        WIDTH=width, BLOCK=triton.next_power_of_2(width), num_warps=4 if width <= 2048 else 8,
        **pdl(x),
    )  # fmt: skip
    return out


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """Compute silu(gate) * up.

    Args:
        gate_up: [N, 2 W], contiguous, gate first.

    Returns:
        [N, W].
    """
    width = gate_up.shape[1] // 2
    out = gate_up.new_empty(len(gate_up), width)
    block = min(triton.next_power_of_2(width), 1024)
    gated_kernel[(len(gate_up), triton.cdiv(width, block))](
        gate_up, out, WIDTH=width, BLOCK=block, num_warps=4, **pdl(gate_up)
    )
    return out


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Compute x @ weight.T + bias, by our kernel where it serves (`skinny_linear.py`).

    Args:
        x: [M, K], contiguous.
        weight: [N, K], contiguous.
        bias: [N] or None.

    Returns:
        [M, N].
    """
    out = skinny_linear(x, weight) if bias is None else None
    return functional.linear(x, weight, bias) if out is None else out


def gated_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Compute `gated(linear(x, weight, bias))`, in one kernel where it serves.

    Args:
        x: [M, K], contiguous.
        weight: [2 W, K], contiguous.
        bias: [2 W] or None.

    Returns:
        [M, W].
    """
    out = skinny_linear(x, weight, gated=True) if bias is None else None
    return gated(functional.linear(x, weight, bias)) if out is None else out


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
    """Rotate queries and keys (arXiv 2104.09864), and write keys and values into the pools.

    The kernel launched just before may write `qkv` only: all else is read before that kernel ends.

    Args:
        qkv: [N, (HQ + 2 HK) D], contiguous.
        cos: [P, D] of every position.
        sin: [P, D] of every position.
        positions: [N] int64; those beyond the last count as the last.
        norm: [HQ + HK, D] weights of an RMS norm of each head before it is rotated, or None.
        epsilon: added to the mean square of that norm.
        k_pool: [num_slots, HK, D], contiguous.
        v_pool: [num_slots, HK, D], contiguous.
        slots: [N] int64; a token with slot -1 is not written.

    Returns:
        The queries, [N, HQ, D].
    """
    _, num_kv_heads, width = k_pool.shape
    num_heads = qkv.shape[1] // width - 2 * num_kv_heads
    q = qkv.new_empty(len(qkv), num_heads, width)
    rows = 4
    rotate_and_write_kernel[(len(qkv), triton.cdiv(num_heads + 2 * num_kv_heads, rows))](
        qkv, cos, sin, positions, qkv if norm is None else norm, q, k_pool, v_pool, slots,
        len(cos) - 1, epsilon,
        HQ=num_heads, HK=num_kv_heads, D=width, BD=triton.next_power_of_2(width), BH=rows,
        NORM=norm is not None, num_warps=2, **pdl(qkv),
    )  # fmt: skip
    return q
