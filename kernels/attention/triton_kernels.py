"""DeFT's tree attention in Triton: partial attention over work items, then the reduction.

One program takes one item of a work list for one KV head: a run of KV entries and the queries of
one tile, with the query heads of the group packed into the rows (arXiv 2404.00242 section 3.3 and
algorithm 1; FastTree packs rows likewise). An entry is seen by an interval of queries, so
ancestors, sibling leaves and causality inside a leaf are one test. A query with one partial result
is written at once; the others are merged by their log-sum-exp, in fixed order. `tree_attention.py`
launches the kernels, and `naive.py` is the reference that they are tested against.

In names, `p_` is a pointer, `o_` offsets, `m_` a mask, `i_` an index and `b_` a block of values.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def prefetch_rows(p_rows, WIDTH: tl.constexpr):
    """Prefetch WIDTH elements at each of the pointers into the L2 cache, without waiting."""
    SECTOR: tl.constexpr = 32 * 8 // p_rows.dtype.element_ty.primitive_bitwidth  # elements
    COUNT: tl.constexpr = triton.cdiv(WIDTH, SECTOR)
    o_d = tl.minimum(tl.arange(0, triton.next_power_of_2(COUNT)), COUNT - 1) * SECTOR
    # Bulk prefetches are issued thread by thread: a block of them takes 3,200 cycles, these 370.
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l",
        [(p_rows[:, None] + o_d[None, :]).to(tl.uint64)], dtype=tl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@triton.jit
def partial_attention_kernel(
    p_q, p_k, p_v, p_o, p_partial, p_lse, p_num_items, p_items, p_slot, p_bound, p_position, p_row,
    p_row_position, p_sink, p_mask, p_step, stride_qn, stride_qh, stride_on, num_columns,
    mask_room, scale, softcap, window,
    HK: tl.constexpr, G: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr,
    BDV: tl.constexpr, M: tl.constexpr, BN: tl.constexpr, STAGES: tl.constexpr,
    SOFTCAP: tl.constexpr, WINDOW: tl.constexpr, SINKS: tl.constexpr, DENSE_MASK: tl.constexpr,
    ORDERED: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Attend to one item of the work list for one KV head: program (item, KV head).

    Scores are base-2 logarithms: `scale` has the factor log2(e).
    """
    if PDL:
        gdc_launch_dependents()
    i_item = tl.program_id(0) // HK
    i_hk = tl.program_id(0) % HK
    # Loaded together: each is a round trip to memory before the first key can be loaded.
    num_items = tl.load(p_num_items)
    step = tl.load(p_step)
    p_item = p_items + i_item * 8
    start = tl.multiple_of(tl.load(p_item), 16)
    length = tl.load(p_item + 1) + tl.load(p_item + 2) * step
    tile = tl.load(p_item + 3)
    lo = tl.load(p_item + 4)
    hi = tl.load(p_item + 5)
    partial = tl.load(p_item + 6)
    num_full = tl.load(p_item + 7)
    p_k += i_hk * D
    p_v += i_hk * DV
    o_n = tl.arange(0, BN)
    if PDL:
        # Safe before gdc_wait: the plan was written earlier (`PlanBuffers.settle`). Prefetch one
        # block only; more competes with the preceding kernel for bandwidth.
        if i_item < num_items:
            b_slot = tl.load(p_slot + start + o_n).to(tl.int64)
            prefetch_rows(p_k + b_slot * (HK * D), D)
            prefetch_rows(p_v + b_slot * (HK * DV), DV)
        gdc_wait()
    if i_item >= num_items:
        return

    HQ: tl.constexpr = HK * G
    o_m = tl.arange(0, M)
    o_d, o_dv = tl.arange(0, BD), tl.arange(0, BDV)
    m_d, m_dv = o_d[None, :] < D, o_dv[None, :] < DV
    o_query = o_m // G  # within the tile
    o_head = i_hk * G + o_m % G
    m_row = (o_query >= lo) & (o_query < hi)
    b_row = (tile + o_query).to(tl.int64)
    if not ORDERED:
        b_row = tl.load(p_row + tile + o_query, mask=m_row, other=0).to(tl.int64)
    p_b_q = p_q + b_row[:, None] * stride_qn + o_head[:, None] * stride_qh + o_d[None, :]
    b_q = tl.load(p_b_q, mask=m_row[:, None] & m_d, other=0.0)  # [M, BD]
    if WINDOW:
        b_position = tl.load(p_row_position + tile + o_query, mask=m_row, other=0) + step
    b_max = tl.full([M], float("-inf"), dtype=tl.float32)
    b_sum = tl.zeros([M], dtype=tl.float32)
    b_acc = tl.zeros([M, BDV], dtype=tl.float32)
    for i_n in tl.range(0, length, BN, num_stages=STAGES):
        i_entry = start + i_n
        # The pipeliner loads the slots ahead and needs two stages for it. Loading them an iteration
        # ahead by hand makes every iteration wait for all copies in flight.
        b_slot = tl.load(p_slot + i_entry + o_n).to(tl.int64)
        p_b_k = p_k + b_slot[:, None] * (HK * D) + o_d[None, :]
        p_b_v = p_v + b_slot[:, None] * (HK * DV) + o_dv[None, :]
        b_k = tl.load(p_b_k) if BD == D else tl.load(p_b_k, mask=m_d, other=0.0)  # [BN, BD]
        b_v = tl.load(p_b_v) if BDV == DV else tl.load(p_b_v, mask=m_dv, other=0.0)  # [BN, BDV]
        b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION)  # [M, BN] fp32
        if SOFTCAP:
            # `softcap` is 2 log2(e) scale / cap, and `scale` is cap log2(e): cap * tanh(s / cap).
            b_s = 1 - 2 / (1 + tl.exp2(b_s * softcap))
        if DENSE_MASK:
            p_b_m = p_mask + (tile + o_query[:, None]).to(tl.int64) * num_columns
            m_n = (i_n + o_n < length)[None, :] & m_row[:, None]
            b_m = tl.load(p_b_m + (start % mask_room + i_n + o_n)[None, :], mask=m_n, other=0)
            b_s = tl.where(b_m != 0, b_s, float("-inf"))
        else:
            b_bound = tl.load(p_bound + i_entry + o_n)
            if i_n + BN > num_full:
                b_lo = b_bound & 0xFFFF
                b_width = b_bound >> 16
                if i_n + BN > length:
                    b_width = tl.where(i_n + o_n < length, b_width, 0)
                b_above = (o_query[:, None] - b_lo[None, :]).to(tl.uint32)
                b_s = tl.where(b_above < b_width[None, :].to(tl.uint32), b_s, float("-inf"))
        if WINDOW:
            b_key = tl.load(p_position + i_entry + o_n)
            b_s = tl.where(b_key[None, :] > b_position[:, None] - window, b_s, float("-inf"))
        b_new = tl.maximum(b_max, tl.max(b_s, 1) * scale)
        # A row that has seen nothing yet keeps the maximum -inf; it must not be subtracted.
        b_shift = tl.where(b_new == float("-inf"), 0.0, b_new)
        b_p = tl.exp2(b_s * scale - b_shift[:, None])
        b_scale = tl.exp2(b_max - b_shift)
        b_sum = b_sum * b_scale + tl.sum(b_p, 1)
        b_acc = tl.dot(b_p.to(b_v.dtype), b_v, b_acc * b_scale[:, None], input_precision=PRECISION)
        b_max = b_new

    m_o = m_row[:, None] & m_dv
    if partial < 0:
        if SINKS:
            b_sum += tl.exp2(tl.load(p_sink + o_head).to(tl.float32) * LOG2E - b_max)
        p_b_o = p_o + b_row[:, None] * stride_on + o_head[:, None] * DV + o_dv[None, :]
        tl.store(p_b_o, (b_acc * (1 / b_sum)[:, None]).to(p_o.dtype.element_ty), mask=m_o)
    else:
        m_seen = b_sum > 0
        b_sum = tl.where(m_seen, b_sum, 1.0)
        b_lse = tl.where(m_seen, b_max + tl.log2(b_sum), float("-inf"))
        o_partial = (partial + o_query - lo).to(tl.int64) * HQ + o_head
        tl.store(p_lse + o_partial, b_lse, mask=m_row)
        p_b_o = p_partial + o_partial[:, None] * DV + o_dv[None, :]
        tl.store(p_b_o, (b_acc * (1 / b_sum)[:, None]).to(p_partial.dtype.element_ty), mask=m_o)


@triton.jit
def reduce_partials_kernel(
    p_o, p_partial, p_lse, p_offset, p_partial_row, p_row, p_sink, stride_on,
    HQ: tl.constexpr, DV: tl.constexpr, BDV: tl.constexpr, BH: tl.constexpr, BP: tl.constexpr,
    SINKS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Merge a query's partial results, o = sum_i 2^(lse_i - lse) o_i: program (query, BH heads)."""
    if PDL:
        gdc_launch_dependents()
    i_q = tl.program_id(0)
    o_h = tl.program_id(1) * BH + tl.arange(0, BH)
    begin = tl.load(p_offset + i_q)
    end = tl.load(p_offset + i_q + 1)
    row = tl.load(p_row + i_q).to(tl.int64)
    if begin >= end:
        if PDL:
            gdc_wait()  # else this grid could end, and the next start, before the partial one ends
        return
    o_p, o_d = tl.arange(0, BP), tl.arange(0, BDV)
    m_h, m_d = o_h < HQ, o_d < DV
    b_row = tl.load(p_partial_row + begin + o_p, mask=begin + o_p < end, other=0)
    if PDL:
        gdc_wait()
    b_max = tl.full([BH], float("-inf"), dtype=tl.float32)
    b_sum = tl.zeros([BH], dtype=tl.float32)
    b_acc = tl.zeros([BH, BDV], dtype=tl.float32)
    for i_p in range(begin, end, BP):
        m_p = (i_p + o_p < end)[:, None] & m_h[None, :]
        o_partial = b_row.to(tl.int64)[:, None] * HQ + o_h[None, :]
        b_lse = tl.load(p_lse + o_partial, mask=m_p, other=float("-inf"))  # [BP, BH]
        p_b_o = p_partial + o_partial[:, :, None] * DV + o_d[None, None, :]
        b_o = tl.load(p_b_o, mask=m_p[:, :, None] & m_d[None, None, :], other=0.0)  # [BP, BH, BDV]
        b_row = tl.load(p_partial_row + i_p + BP + o_p, mask=i_p + BP + o_p < end, other=0)
        b_new = tl.maximum(b_max, tl.max(b_lse, 0))
        b_shift = tl.where(b_new == float("-inf"), 0.0, b_new)
        b_w = tl.exp2(b_lse - b_shift[None, :])
        b_scale = tl.exp2(b_max - b_shift)
        b_sum = b_sum * b_scale + tl.sum(b_w, 0)
        b_acc = b_acc * b_scale[:, None] + tl.sum(b_w[:, :, None] * b_o.to(tl.float32), 0)
        b_max = b_new
    if SINKS:
        b_sink = tl.load(p_sink + o_h, mask=m_h, other=0.0).to(tl.float32)
        b_sum += tl.exp2(b_sink * LOG2E - b_max)
    p_b_o = p_o + row * stride_on + o_h[:, None] * DV + o_d[None, :]
    b_o = (b_acc * (1 / b_sum)[:, None]).to(p_o.dtype.element_ty)
    tl.store(p_b_o, b_o, mask=m_h[:, None] & m_d[None, :])


@triton.jit
def write_kv_kernel(
    p_k, p_v, p_k_pool, p_v_pool, p_slot, stride_kn, stride_kh, stride_vn, stride_vh,
    HK: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BHK: tl.constexpr, BD: tl.constexpr,
    BDV: tl.constexpr,
):  # fmt: skip
    """Write a token's keys and values of all KV heads to its slot, unless -1: program (token)."""
    i_n = tl.program_id(0).to(tl.int64)
    slot = tl.load(p_slot + i_n).to(tl.int64)
    if slot < 0:
        return
    o_h, o_d, o_dv = (
        tl.arange(0, BHK)[:, None],
        tl.arange(0, BD)[None, :],
        tl.arange(0, BDV)[None, :],
    )
    m_k, m_v = (o_h < HK) & (o_d < D), (o_h < HK) & (o_dv < DV)
    b_k = tl.load(p_k + i_n * stride_kn + o_h * stride_kh + o_d, mask=m_k)
    b_v = tl.load(p_v + i_n * stride_vn + o_h * stride_vh + o_dv, mask=m_v)
    tl.store(p_k_pool + slot * (HK * D) + o_h * D + o_d, b_k, mask=m_k)
    tl.store(p_v_pool + slot * (HK * DV) + o_h * DV + o_dv, b_v, mask=m_v)
