"""A matrix product of few rows with a large matrix, as fast as the matrix can be read.

A decode step reads every weight for a few rows. Each program takes an equal share of the matrix,
one program a multiprocessor, and streams it through shared memory by the tensor memory accelerator
(TMA). It starts to load before the preceding kernel, which writes the rows, has ended (programmatic
dependent launch). The kernel is for Hopper, and in Gluon because Triton cannot place a load before
that wait. `torch.nn.functional.linear` is the reference, and serves all other cases.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from treeshare.kernels.planning.gpu_profile import GpuProfile, gpu_profile

MAX_ROWS = 128  # rows of x that the kernel takes
_COLUMNS = 128  # columns of a step
_BOX = 16  # rows of the matrix that one copy takes
_MAX_SHARE = 128  # rows of each half that a program takes
_BARRIER_BYTES = 2 << 10  # shared memory that is kept from the stages
# Triton 3.9 removed the older name.
_copy = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
_GL_TYPES = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}


@gluon.jit
def _load_weights(
    d_w, s_w, barrier, i_row, i_col, size, pred,
    BOX: gl.constexpr, BOXES: gl.constexpr, HALVES: gl.constexpr, ROOM: gl.constexpr,
):  # fmt: skip
    """Start to load some columns of a share's rows, which are `size` apart in the two halves."""
    for half in gl.static_range(HALVES):
        for box in gl.static_range(BOXES):
            at = [i_row + half * size + box * BOX, i_col]
            _copy(d_w, at, barrier, s_w.slice(half * ROOM + box * BOX, BOX), pred=pred)


@gluon.jit
def skinny_linear_kernel(
    d_w, d_x, p_out, num_rows, num_columns, num_steps,
    BM: gl.constexpr, BX: gl.constexpr, BK: gl.constexpr, BOX: gl.constexpr, BOXES: gl.constexpr,
    HALVES: gl.constexpr, ROOM: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Compute BOX * BOXES columns of x @ w.T: program (share).

    Where w is [gate; up] (HALVES = 2), they are columns of silu(x @ gate.T) * (x @ up.T). Shared
    memory has room for BM rows of x and ROOM of each half. Copies fill BX and BOX * BOXES of them;
    the others hold anything, and what is computed from them is not stored.
    """
    SHARE: gl.constexpr = BOX * BOXES
    BYTES: gl.constexpr = (HALVES * SHARE + BX) * BK * 2
    s_w = gl.allocate_shared_memory(d_w.dtype, [STAGES, HALVES * ROOM, BK], d_w.layout)
    s_x = gl.allocate_shared_memory(d_x.dtype, [STAGES, BM, BK], d_x.layout)
    barriers = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(barriers.index(stage), count=1)
    fence_async_shared()
    gdc_launch_dependents()
    i_row = gl.program_id(0) * SHARE
    for stage in gl.static_range(STAGES):
        barrier, pred = barriers.index(stage), stage < num_steps
        mbarrier.expect(barrier, BYTES, pred=pred)
        _load_weights(
            d_w, s_w.index(stage), barrier, i_row, stage * BK, num_columns, pred,
            BOX, BOXES, HALVES, ROOM,
        )  # fmt: skip
    gdc_wait()  # for x, and for the memory of `out`
    for stage in gl.static_range(STAGES):
        s_rows = s_x.index(stage).slice(0, BX)
        _copy(d_x, [0, stage * BK], barriers.index(stage), s_rows, pred=stage < num_steps)

    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[BM // 16, 1], instr_shape=[16, ROOM, 16]
    )
    b_first = gl.zeros([BM, ROOM], gl.float32, layout)
    b_second = gl.zeros([BM, ROOM], gl.float32, layout)
    for i in range(num_steps):
        i_stage = i % STAGES
        i_bar, i_w, i_x = barriers.index(i_stage), s_w.index(i_stage), s_x.index(i_stage)
        mbarrier.wait(i_bar, (i // STAGES) & 1)
        b_first = warpgroup_mma(i_x, i_w.slice(0, ROOM).permute((1, 0)), b_first)
        if HALVES == 2:
            b_second = warpgroup_mma(i_x, i_w.slice(ROOM, ROOM).permute((1, 0)), b_second)
        i_col, is_more = (i + STAGES) * BK, i + STAGES < num_steps
        mbarrier.expect(i_bar, BYTES, pred=is_more)
        _load_weights(d_w, i_w, i_bar, i_row, i_col, num_columns, is_more, BOX, BOXES, HALVES, ROOM)
        _copy(d_x, [0, i_col], i_bar, i_x.slice(0, BX), pred=is_more)

    b_out = b_first.to(d_x.dtype)
    if HALVES == 2:
        b_gate = b_out.to(gl.float32)
        b_out = (b_gate / (1 + gl.exp(-b_gate))).to(d_x.dtype) * b_second.to(d_x.dtype)
    o_m = gl.arange(0, BM, layout=gl.SliceLayout(1, layout))[:, None]
    o_n = gl.arange(0, ROOM, layout=gl.SliceLayout(0, layout))[None, :]
    m_out = (o_m < num_rows) & (o_n < SHARE) & (i_row + o_n < num_columns)
    gl.store(p_out + o_m * num_columns + i_row + o_n, b_out, mask=m_out)


class Shares(NamedTuple):
    """Equal shares of a matrix, one a program."""

    rounds: int  # in which the programs run, at most one a multiprocessor in each
    boxes: int  # copies of _BOX rows that a program's share takes, of each half
    room: int  # rows that shared memory has for them, a power of two
    programs: int


def shares(num_columns: int, halves: int, gpu: GpuProfile) -> Shares | None:
    """Deal a matrix out to programs, in as few rounds as shared memory allows.

    Args:
        num_columns: of the product, which are rows of each half of the matrix.
        halves: 1, or 2 for [gate; up].
        gpu: where it runs.

    Returns:
        The shares; None if they would leave too many multiprocessors idle.
    """
    rounds = -(-num_columns // (gpu.num_sms * _MAX_SHARE))
    boxes = -(-num_columns // (rounds * gpu.num_sms * _BOX))
    room = triton.next_power_of_2(boxes * _BOX)
    programs = -(-num_columns // (boxes * _BOX))
    is_even = num_columns >= gpu.least_balance * rounds * gpu.num_sms * boxes * _BOX
    return Shares(rounds, boxes, room, programs) if is_even else None


def skinny_linear(
    x: torch.Tensor, weight: torch.Tensor, *, gated: bool = False
) -> torch.Tensor | None:
    """Compute x @ weight.T for few rows, accumulated in fp32.

    Args:
        x: [M, K], float16 or bfloat16, contiguous.
        weight: [N, K], contiguous, of the same dtype; or [gate; up], [2 N, K], if gated.
        gated: computes silu(x @ gate.T) * (x @ up.T), rounded where PyTorch rounds.

    Returns:
        [M, N]; or None where the caller must use `torch.nn.functional.linear`: no rows or more than
        `MAX_ROWS`, no Hopper GPU, another dtype, K no multiple of 128, or a size that cannot be
        dealt out to the multiprocessors evenly.
    """
    (num_rows, depth), halves = x.shape, 2 if gated else 1
    is_skinny = 0 < num_rows <= MAX_ROWS
    if not is_skinny or not x.is_cuda or x.dtype not in _GL_TYPES or depth % _COLUMNS:
        return None
    gpu = gpu_profile(x.device)
    dealt = shares(len(weight) // halves, halves, gpu)
    if gpu.compute_capability != 9 or dealt is None:
        return None
    return launch(x, weight, dealt, halves, gpu)


def launch(
    x: torch.Tensor, weight: torch.Tensor, dealt: Shares, halves: int, gpu: GpuProfile
) -> torch.Tensor:
    """Launch the kernel, on a Hopper GPU; `skinny_linear` has checked that it can be used.

    Args:
        x: [M, K].
        weight: [halves * N, K].
        dealt: the programs' shares of it.
        halves: 1, or 2 for [gate; up].
        gpu: where it runs.

    Returns:
        [M, N].
    """
    (num_rows, depth), num_columns = x.shape, len(weight) // halves
    rows = max(triton.next_power_of_2(num_rows), 8)
    block = max(rows, 64)  # a matrix instruction takes no fewer
    # In several rounds two programs share a multiprocessor: one begins while the other ends.
    memory = (gpu.shared_bytes - _BARRIER_BYTES) // (1 if dealt.rounds == 1 else 2)
    stages = memory // ((halves * dealt.room + block) * _COLUMNS * x.element_size())
    out = x.new_empty(num_rows, num_columns)
    skinny_linear_kernel[(dealt.programs,)](
        _descriptor(weight, _BOX, halves * dealt.room), _descriptor(x, rows, block), out,
        num_rows, num_columns, depth // _COLUMNS,
        BM=block, BX=rows, BK=_COLUMNS, BOX=_BOX, BOXES=dealt.boxes, HALVES=halves,
        ROOM=dealt.room, STAGES=max(min(stages, 8), 2), num_warps=block // 16, launch_pdl=True,
    )  # fmt: skip
    return out


def _descriptor(tensor: torch.Tensor, rows: int, room: int) -> TensorDescriptor:
    """Describe copies of `rows` rows into shared memory that is laid out for `room` rows."""
    shape = [room, _COLUMNS]
    layout = gl.NVMMASharedLayout.get_default_for(shape, _GL_TYPES[tensor.dtype])
    return TensorDescriptor.from_tensor(tensor, [rows, _COLUMNS], layout)
