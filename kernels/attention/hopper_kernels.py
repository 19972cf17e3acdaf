"""DeFT's partial attention with specialized warp groups, for tiles with a Hopper SM each.

The kernel of `triton_kernels.py` needs two programs a multiprocessor, so that the matrix products
of one overlap the softmax of the other. Where there is one program a multiprocessor, this kernel
overlaps them within the program. Of its three warp groups one copies keys and values, and two
attend to the same tile, each to every other block of entries. A warp group computes the softmax of
a block while the product of the previous block with its values runs (FlashAttention-3, arXiv
2407.08608 section 3.2). At the end the two halves are merged.

It is written in Gluon, because Triton cannot assign work to warp groups. It replaces
`triton_kernels.partial_attention_kernel` where no option is used, and is tested against it.
"""

from __future__ import annotations

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    async_copy,
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from treeshare.kernels.planning.gpu_profile import TILE_ROWS_LARGE
from treeshare.kernels.planning.tree_plan import TreePlan

WIDTH = 128  # head dimension that the kernel is for, of keys and of values
_ENTRIES = 64  # KV entries of a block
_STAGES = 5  # blocks in shared memory
_ATTENDING, _COPYING = 216, 72  # registers of a thread that attends, and of one that copies
# Triton 3.9 removed the older name.
_copy = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared


@gluon.jit
def _copy_entries(
    p_q, p_k, p_v, p_slot, p_row, s_q, s_k, s_v, full_q, full_k, full_v, empty_k, empty_v, start,
    length, num_blocks, tile, lo, hi, i_hk, stride_qn, stride_qh,
    HK: gl.constexpr, G: gl.constexpr, D: gl.constexpr, M: gl.constexpr, BN: gl.constexpr,
    STAGES: gl.constexpr, ORDERED: gl.constexpr,
):  # fmt: skip
    """Copy the queries and then every block to shared memory, beginning with the last block.

    The last block may be short. Rows without a query or an entry are filled with zeros.
    """
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [256 // D, D // 8], [4, 1], [1, 0])
    o_n = gl.arange(0, BN, layout=gl.SliceLayout(1, layout))
    o_m = gl.arange(0, M, layout=gl.SliceLayout(1, layout))
    o_d = gl.arange(0, D, layout=gl.SliceLayout(0, layout))[None, :]
    p_slot += start + (num_blocks - 1) * BN
    b_slot = gl.load(p_slot + o_n, mask=num_blocks > 0, other=0)
    b_later = gl.load(p_slot - BN + o_n, mask=num_blocks > 1, other=0)
    o_query = o_m // G
    m_row = (o_query >= lo) & (o_query < hi)
    b_row = tile + o_query
    if not ORDERED:
        b_row = gl.load(p_row + b_row, mask=m_row, other=0)
    o_row = b_row.to(gl.int64) * stride_qn + (i_hk * G + o_m % G) * stride_qh
    p_k += i_hk * D + o_d
    p_v += i_hk * D + o_d
    size = length - (num_blocks - 1) * BN  # of the last block
    gdc_wait()
    _copy(s_q, p_q + o_row[:, None] + o_d, mask=m_row[:, None])
    async_copy.mbarrier_arrive(full_q, increment_count=False)
    for i in range(num_blocks):
        stage = i % STAGES
        phase = (i // STAGES) & 1
        o_slot = b_slot.to(gl.int64)[:, None] * (HK * D)
        m_n = (o_n < size + i * BN)[:, None]
        b_slot = b_later
        b_later = gl.load(p_slot - (i + 2) * BN + o_n, mask=i + 2 < num_blocks, other=0)
        mbarrier.wait(empty_k.index(stage), phase ^ 1)
        _copy(s_k.index(stage), p_k + o_slot, mask=m_n)
        async_copy.mbarrier_arrive(full_k.index(stage), increment_count=False)
        mbarrier.wait(empty_v.index(stage), phase ^ 1)
        _copy(s_v.index(stage), p_v + o_slot, mask=m_n)
        async_copy.mbarrier_arrive(full_v.index(stage), increment_count=False)


@gluon.jit
def _softmax(b_s, b_max, b_sum, b_bound, o_query, o_entry, length, scale, is_masked):
    """Update an online softmax, as in `triton_kernels.partial_attention_kernel`.

    Returns the weights, the maximum, the sum, and the factor on what was accumulated before.
    """
    if is_masked:
        b_width = gl.where(o_entry < length, b_bound >> 16, 0)
        b_above = (o_query[:, None] - (b_bound & 0xFFFF)[None, :]).to(gl.uint32)
        b_s = gl.where(b_above < b_width[None, :].to(gl.uint32), b_s, float("-inf"))
    b_new = gl.maximum(b_max, gl.max(b_s, axis=1) * scale)
    b_shift = gl.where(b_new == float("-inf"), 0.0, b_new)
    b_p = gl.exp2(b_s * scale - b_shift[:, None])
    b_scale = gl.exp2(b_max - b_shift)
    b_sum = b_sum * b_scale + gl.sum(b_p, axis=1)
    return b_p, b_new, b_sum, b_scale


@gluon.jit
def _attend_blocks(
    p_bound, s_q, s_k, s_v, full_k, full_v, empty_k, empty_v, o_query, o_n, b_p, b_acc, b_max,
    b_sum, b_bound, begin, end, num_blocks, size, scale,
    BN: gl.constexpr, STAGES: gl.constexpr, MASKED: gl.constexpr, scores: gl.constexpr,
    weights: gl.constexpr, rows: gl.constexpr,
):  # fmt: skip
    """Attend to every other block from `begin` on.

    `b_p` are the weights of the previous block, which are not multiplied with its values yet. The
    keys of the next block have arrived.
    """
    b_zero = gl.zeros([b_p.shape[0], BN], gl.float32, scores)
    for i in range(begin, end, 2):
        stage = i % STAGES
        before = (i + STAGES - 2) % STAGES
        b_seen = b_bound
        if MASKED:
            b_bound = gl.load(p_bound - (i + 2) * BN + o_n, mask=i + 2 < num_blocks, other=0)
        mbarrier.wait(full_v.index(before), ((i - 2) // STAGES) & 1)
        fence_async_shared()
        b_keys = s_k.index(stage).permute((1, 0))
        b_s = warpgroup_mma(s_q, b_keys, b_zero, use_acc=False, is_async=True)
        b_sent = warpgroup_mma(b_p, s_v.index(before), b_acc, is_async=True)
        b_s = warpgroup_mma_wait(1, [b_s])
        mbarrier.arrive(empty_k.index(stage))
        b_w, b_max, b_sum, b_scale = _softmax(
            b_s, b_max, b_sum, b_seen, o_query, o_n - i * BN, size, scale, MASKED
        )
        b_w = b_w.to(s_v.dtype)
        # The branch of this wait keeps the assembler from moving the softmax behind the wait for
        # the product. Copies end in order: if those of block i have ended, so have those of block
        # i - 3, whose place block i + 2 takes.
        is_more = i + 2 < num_blocks
        mbarrier.wait(full_k.index((i + 2) % STAGES), ((i + 2) // STAGES) & 1, pred=is_more)
        b_acc = warpgroup_mma_wait(0, [b_sent])
        mbarrier.arrive(empty_v.index(before))
        b_acc = b_acc * gl.convert_layout(b_scale, rows)[:, None]
        b_p = gl.convert_layout(b_w, weights)
    return b_p, b_acc, b_max, b_sum


@gluon.jit
def _attend(
    common, WHO: gl.constexpr, G: gl.constexpr, D: gl.constexpr, M: gl.constexpr, BN: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    """Attend to every other block, as warp group WHO.

    Group 0 returns its half; group 1 leaves its half in shared memory.
    """
    (p_bound, s_q, s_k, s_v, s_acc, s_max, s_sum, full_q, full_k, full_v, empty_k, empty_v, start,
     length, num_blocks, num_full, scale) = common  # fmt: skip
    scores: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BN, 16])
    outputs: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    weights: gl.constexpr = gl.DotOperandLayout(0, outputs, 2)
    rows: gl.constexpr = gl.SliceLayout(1, outputs)
    o_query = gl.arange(0, M, layout=gl.SliceLayout(1, scores)) // G
    o_n = gl.arange(0, BN, layout=gl.SliceLayout(0, scores))
    b_max = gl.full([M], float("-inf"), gl.float32, gl.SliceLayout(1, scores))
    b_sum = gl.zeros([M], gl.float32, gl.SliceLayout(1, scores))
    b_acc = gl.zeros([M, D], gl.float32, outputs)
    p_bound += start + (num_blocks - 1) * BN
    size = length - (num_blocks - 1) * BN  # of the last block
    num_masked = num_blocks - num_full // BN
    b_bound = gl.load(p_bound - WHO * BN + o_n, mask=num_blocks > WHO, other=0)
    mbarrier.wait(full_q, 0)
    mbarrier.wait(full_k.index(WHO), 0, pred=num_blocks > WHO)
    fence_async_shared()
    b_zero = gl.zeros([M, BN], gl.float32, scores)
    b_keys = s_k.index(WHO).permute((1, 0))
    b_s = warpgroup_mma(s_q, b_keys, b_zero, use_acc=False, is_async=True)
    b_s = warpgroup_mma_wait(0, [b_s])
    mbarrier.arrive(empty_k.index(WHO))  # without a block, no copy waits for it
    b_p, b_max, b_sum, _ = _softmax(
        b_s, b_max, b_sum, b_bound, o_query, o_n - WHO * BN, size, scale, num_masked > WHO
    )
    b_p = gl.convert_layout(b_p.to(s_v.dtype), weights)
    is_more = num_blocks > WHO + 2
    mbarrier.wait(full_k.index(WHO + 2), 0, pred=is_more)
    b_bound = gl.load(p_bound - (WHO + 2) * BN + o_n, mask=is_more, other=0)
    free = WHO + 2 + gl.maximum(num_masked - WHO - 1, 0) // 2 * 2
    b_p, b_acc, b_max, b_sum = _attend_blocks(
        p_bound, s_q, s_k, s_v, full_k, full_v, empty_k, empty_v, o_query, o_n, b_p, b_acc, b_max,
        b_sum, b_bound, WHO + 2, gl.minimum(free, num_blocks), num_blocks, size, scale,
        BN, STAGES, True, scores, weights, rows,
    )  # fmt: skip
    b_p, b_acc, b_max, b_sum = _attend_blocks(
        p_bound, s_q, s_k, s_v, full_k, full_v, empty_k, empty_v, o_query, o_n, b_p, b_acc, b_max,
        b_sum, b_bound, free, num_blocks, num_blocks, size, scale,
        BN, STAGES, False, scores, weights, rows,
    )  # fmt: skip
    last = num_blocks - 1 - (num_blocks - 1 - WHO) % 2
    stage = (last + STAGES) % STAGES
    mbarrier.wait(full_v.index(stage), (last // STAGES) & 1, pred=num_blocks > WHO)
    fence_async_shared()
    b_sent = warpgroup_mma(b_p, s_v.index(stage), b_acc, is_async=True)
    b_acc = warpgroup_mma_wait(0, [b_sent])
    b_max, b_sum = gl.convert_layout(b_max, rows), gl.convert_layout(b_sum, rows)
    if WHO == 1:
        s_acc.store(b_acc)
        s_max.store(b_max)
        s_sum.store(b_sum)
    return b_acc, b_max, b_sum


@gluon.jit
def partial_attention_warp_specialized_kernel(
    p_q, p_k, p_v, p_o, p_partial, p_lse, p_num_items, p_items, p_slot, p_bound, p_row, p_step,
    stride_qn, stride_qh, stride_on, scale,
    HK: gl.constexpr, G: gl.constexpr, D: gl.constexpr, M: gl.constexpr, BN: gl.constexpr,
    STAGES: gl.constexpr, ORDERED: gl.constexpr, ATTENDING: gl.constexpr, COPYING: gl.constexpr,
):  # fmt: skip
    """Attend to one item of the work list for one KV head: program (item, KV head).

    It is launched early. `scale` has the factor log2(e).
    """
    gdc_launch_dependents()
    i_item = gl.program_id(0) // HK
    i_hk = gl.program_id(0) % HK
    num_items = gl.load(p_num_items)
    step = gl.load(p_step)
    p_item = p_items + i_item * 8
    start = gl.load(p_item)
    length = gl.load(p_item + 1) + gl.load(p_item + 2) * step
    tile = gl.load(p_item + 3)
    lo = gl.load(p_item + 4)
    hi = gl.load(p_item + 5)
    partial = gl.load(p_item + 6)
    num_full = gl.load(p_item + 7)
    if i_item >= num_items:
        length = 0
        hi = lo
    num_blocks = (length + BN - 1) // BN
    dtype: gl.constexpr = p_k.dtype.element_ty
    tiled: gl.constexpr = gl.NVMMASharedLayout.get_default_for([M, D], dtype)
    blocked: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BN, D], dtype)
    s_q = gl.allocate_shared_memory(dtype, [M, D], tiled)
    s_k = gl.allocate_shared_memory(dtype, [STAGES, BN, D], blocked)
    s_v = gl.allocate_shared_memory(dtype, [STAGES, BN, D], blocked)
    s_acc = gl.allocate_shared_memory(gl.float32, [M, D], gl.SwizzledSharedLayout(8, 1, 8, [1, 0]))
    flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    s_max = gl.allocate_shared_memory(gl.float32, [M], flat)
    s_sum = gl.allocate_shared_memory(gl.float32, [M], flat)
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    full_k = gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier)
    full_v = gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier)
    empty_k = gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier)
    empty_v = gl.allocate_shared_memory(gl.int64, [STAGES, 1], barrier)
    full_q = gl.allocate_shared_memory(gl.int64, [1], barrier)
    mbarrier.init(full_q, count=128)  # threads that copy
    for stage in gl.static_range(STAGES):
        mbarrier.init(full_k.index(stage), count=128)
        mbarrier.init(full_v.index(stage), count=128)
        mbarrier.init(empty_k.index(stage), count=1)
        mbarrier.init(empty_v.index(stage), count=1)
    fence_async_shared()
    common = (
        p_bound, s_q, s_k, s_v, s_acc, s_max, s_sum, full_q, full_k, full_v, empty_k, empty_v,
        start, length, num_blocks, num_full, scale,
    )  # fmt: skip
    b_acc, b_max, b_sum = gl.warp_specialize([
        (_attend, (common, 0, G, D, M, BN, STAGES)),
        (_attend, (common, 1, G, D, M, BN, STAGES)),
        (_copy_entries, (
            p_q, p_k, p_v, p_slot, p_row, s_q, s_k, s_v, full_q, full_k, full_v, empty_k, empty_v,
            start, length, num_blocks, tile, lo, hi, i_hk, stride_qn, stride_qh,
            HK, G, D, M, BN, STAGES, ORDERED,
        )),
    ], [4, 4], [ATTENDING, COPYING])  # fmt: skip
    outputs: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    rows: gl.constexpr = gl.SliceLayout(1, outputs)
    if num_blocks > 1:
        b_their_max = s_max.load(rows)
        b_new = gl.maximum(b_max, b_their_max)
        b_shift = gl.where(b_new == float("-inf"), 0.0, b_new)
        b_own = gl.exp2(b_max - b_shift)
        b_their = gl.exp2(b_their_max - b_shift)
        b_max = b_new
        b_sum = b_sum * b_own + s_sum.load(rows) * b_their
        b_acc = b_acc * b_own[:, None] + s_acc.load(outputs) * b_their[:, None]
    HQ: gl.constexpr = HK * G
    o_m = gl.arange(0, M, layout=rows)
    o_query = o_m // G
    o_head = i_hk * G + o_m % G
    o_d = gl.arange(0, D, layout=gl.SliceLayout(0, outputs))[None, :]
    m_row = (o_query >= lo) & (o_query < hi)
    m_seen = b_sum > 0
    b_sum = gl.where(m_seen, b_sum, 1.0)
    b_o = b_acc * (1 / b_sum)[:, None]
    if partial < 0:
        b_row = tile + o_query
        if not ORDERED:
            b_row = gl.load(p_row + b_row, mask=m_row, other=0)
        o_o = b_row.to(gl.int64) * stride_on + o_head * D
        gl.store(p_o + o_o[:, None] + o_d, b_o.to(p_o.dtype.element_ty), mask=m_row[:, None])
    else:
        b_lse = gl.where(m_seen, b_max + gl.log2(b_sum), float("-inf"))
        o_partial = (partial + o_query - lo).to(gl.int64) * HQ + o_head
        gl.store(p_lse + o_partial, b_lse, mask=m_row)
        p_b_o = p_partial + (o_partial * D)[:, None] + o_d
        gl.store(p_b_o, b_o.to(p_partial.dtype.element_ty), mask=m_row[:, None])


def partial_attention_warp_specialized(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    out: torch.Tensor,
    plan: TreePlan,
    factor: float,
) -> None:
    """Launch the kernel. Nothing is checked: `tree_attention` has done so.

    Args:
        q: [B, HQ, 128], float16 or bfloat16.
        k_pool: [num_slots, HK, 128], contiguous.
        v_pool: [num_slots, HK, 128], contiguous.
        out: [B, HQ, 128]; items with partial results write those instead.
        plan: of tiles of 64 rows.
        factor: the scale times log2(e).
    """
    spec, buffers = plan.spec, plan.buffers
    partial_attention_warp_specialized_kernel[(plan.capacity.items * spec.num_kv_heads,)](
        q, k_pool, v_pool, out, buffers.partial, buffers.lse, buffers.num_items, buffers.items,
        buffers.slot, buffers.bound, buffers.row, buffers.step,
        q.stride(0), q.stride(1), out.stride(0), factor,
        HK=spec.num_kv_heads, G=spec.group, D=WIDTH, M=TILE_ROWS_LARGE, BN=_ENTRIES, STAGES=_STAGES,
        ORDERED=plan.is_ordered, ATTENDING=_ATTENDING, COPYING=_COPYING,
        num_warps=4, launch_pdl=True,
    )  # fmt: skip
