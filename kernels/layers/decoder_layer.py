"""The small kernels between the matrix products of a Llama-like layer, one where each is needed.

Knows no plan and no model; the PyTorch they must equal is in `decoder_layer_reference.py`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.nn import functional
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from treeshare.kernels.early_launch import early

from .skinny_linear import skinny_linear


@triton.jit
def add_norm_kernel(
    p_x, p_residual, p_weight, p_out, epsilon,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Program (row): the residual stream gets x added, in place; out is its RMS norm."""
    i_n = tl.program_id(0).to(tl.int64)
    o_d = tl.arange(0, BLOCK)
    m_d = o_d < WIDTH
    if PDL:
        gdc_launch_dependents()
    b_weight = tl.load(p_weight + o_d, mask=m_d, other=0.0)  # no kernel makes it
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
    """Program (row, block): silu(gate) * up."""
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
    """Program (token, BH heads): queries and keys normed and turned; keys and values to their slot,
    if that is not -1."""
    if PDL:
        gdc_launch_dependents()
    # Not the kernel ahead's: it makes queries, keys and values only.
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
    """The RMS norm (arXiv 1910.07467) of the residual stream after x was added to it, in place.

    Args:
        x, residual: [N, hidden], contiguous.
        weight: [hidden].
    """
    out = torch.empty_like(x)
    width = x.shape[1]
    add_norm_kernel[(len(x),)](
        x, residual, weight, out, epsilon,
        WIDTH=width, BLOCK=triton.next_power_of_2(width), num_warps=4 if width <= 2048 else 8,
        **early(x),
    )  # fmt: skip
    return out


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up of [N, 2 W], contiguous: [N, W]."""
    width = gate_up.shape[1] // 2
    out = gate_up.new_empty(len(gate_up), width)
    block = min(triton.next_power_of_2(width), 1024)
    gated_kernel[(len(gate_up), triton.cdiv(width, block))](
        gate_up, out, WIDTH=width, BLOCK=block, num_warps=4, **early(gate_up)
    )
    return out


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x @ weight.T + bias of [M, K], [N, K] and [N]."""
    out = skinny_linear(x, weight) if bias is None else None
    return functional.linear(x, weight, bias) if out is None else out


def gated_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`gated` of `linear`: [M, K], [2 W, K] and [2 W] give [M, W]."""
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
    """Rotary embedding (arXiv 2104.09864) of queries and keys; keys and values into the pool.

    The kernel launched just before may make `qkv` alone: the rest is read before its end.

    Args:
        qkv: [N, (HQ + 2 HK) D], contiguous.
        cos, sin: [P, D] of every position.
        positions: [N] int64; those beyond the last count as the last.
        norm: [HQ + HK, D] weights of an RMS norm of each head before it is turned, or None.
        k_pool, v_pool: [num_slots, HK, D], contiguous.
        slots: [N] int64; -1 is left out.

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
        NORM=norm is not None, num_warps=2, **early(qkv),
    )  # fmt: skip
    return q
