"""Tree attention on a GPU: runs a plan over one layer's KV pool.

Launches the kernels of `triton_kernels.py` and `hopper_kernels.py`. Nothing here waits for the
device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from treeshare.kernels.launch import pdl
from treeshare.kernels.planning.gpu_profile import TILE_ROWS_LARGE
from treeshare.kernels.planning.tree_plan import TreePlan
from treeshare.kernels.planning.work_list import aligned

from .hopper_kernels import WIDTH, partial_attention_warp_specialized
from .triton_kernels import partial_attention_kernel, reduce_partials_kernel, write_kv_kernel

IS_INTERPRETED = not isinstance(partial_attention_kernel, triton.JITFunction)
_LOG2E = 1.4426950408889634


def tree_attention(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    plan: TreePlan,
    *,
    scale: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of each query over its path in the tree.

    Args:
        q: [B, HQ, D], rows as `plan` counts them; the last dimension contiguous.
        k_pool: [num_slots, HK, D], contiguous.
        v_pool: [num_slots, HK, DV], contiguous.
        plan: of the forest, for this shape of attention.
        scale: factor on the scores, above 0.
        sliding_window: a query sees the keys at the last `sliding_window` positions, its own
            included; None sees all. Keys outside are masked, not skipped.
        softcap: scores become softcap * tanh(scores / softcap).
        sinks: [HQ], a logit per head that joins the softmax and has no value.
        out: [B, HQ, DV] to write to; the head and value dimensions contiguous.

    Returns:
        [B, HQ, DV], dtype of `q`, accumulated in fp32. Rows beyond the plan's queries are left as
        they are.

    Raises:
        ValueError: shapes, dtypes or memory layouts that do not fit the plan, a scale, window or
            softcap that is not above 0, or a sliding window with `tree_mask`, whose mask has none.
    """
    spec, buffers, capacity = plan.spec, plan.buffers, plan.capacity
    options = {"scale": scale, "sliding_window": sliding_window, "softcap": softcap}
    for name, value in options.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value} must be above 0")
    if plan.variant == "tree_mask" and sliding_window is not None:
        raise ValueError("variant='tree_mask' has no sliding_window; its mask is all it does")
    _check(q, k_pool, v_pool, plan)
    if sinks is not None and (sinks.shape != (spec.num_heads,) or sinks.stride() != (1,)):
        raise ValueError(f"sinks is {tuple(sinks.shape)}; it must be ({spec.num_heads},)")
    if out is None:
        out = q.new_empty(len(q), spec.num_heads, spec.dv)
    elif out.dtype != q.dtype or out.shape != (len(q), spec.num_heads, spec.dv):
        raise ValueError(
            f"out is {tuple(out.shape)} {out.dtype}, not "
            f"({len(q)}, {spec.num_heads}, {spec.dv}) {q.dtype}"
        )
    elif out.stride()[1:] != (spec.dv, 1):
        raise ValueError(f"out has strides {out.stride()}; the last two must be ({spec.dv}, 1)")
    mask, launch = buffers.mask, pdl(q)
    factor, cap = scale * _LOG2E, 0.0
    is_plain = sliding_window is None and softcap is None and sinks is None
    if is_plain and use_warp_specialized(q, k_pool, v_pool, plan):
        partial_attention_warp_specialized(q, k_pool, v_pool, out, plan, factor)
    else:
        config = _config(plan)
        if softcap is not None:
            factor, cap = softcap * _LOG2E, 2 * _LOG2E * scale / softcap
        partial_attention_kernel[(capacity.items * spec.num_kv_heads,)](
            q, k_pool, v_pool, out, buffers.partial, buffers.lse, buffers.num_items, buffers.items,
            buffers.slot, buffers.bound, buffers.entry_position, buffers.row, buffers.position,
            q if sinks is None else sinks, q if mask is None else mask, buffers.step,
            q.stride(0), q.stride(1), out.stride(0), 0 if mask is None else mask.shape[1],
            0 if mask is None else aligned(mask.shape[1]), factor, cap, sliding_window or 0,
            HK=spec.num_kv_heads, G=spec.group, D=spec.head_dim, DV=spec.dv,
            BD=_padded(spec.head_dim), BDV=_padded(spec.dv),
            M=plan.rows, BN=config.block, STAGES=config.stages, SOFTCAP=softcap is not None,
            WINDOW=sliding_window is not None, SINKS=sinks is not None, DENSE_MASK=mask is not None,
            ORDERED=plan.is_ordered,
            PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
            num_warps=config.warps, **launch,
        )  # fmt: skip
    if capacity.partials:
        num_together, num_at_once = _reduction(plan)
        reduce_partials_kernel[(capacity.queries, triton.cdiv(spec.num_heads, num_together))](
            out, buffers.partial, buffers.lse, buffers.reduce_offset, buffers.reduce_row,
            buffers.row, q if sinks is None else sinks, out.stride(0),
            HQ=spec.num_heads, DV=spec.dv, BDV=triton.next_power_of_2(spec.dv),
            BH=num_together, BP=num_at_once, SINKS=sinks is not None, num_warps=1, **launch,
        )  # fmt: skip
    return out


def write_kv(
    k: torch.Tensor,
    v: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
) -> None:
    """Store keys and values in the pools, in one launch.

    Args:
        k: [N, HK, D], the last dimension contiguous.
        v: [N, HK, DV], the last dimension contiguous.
        k_pool: [num_slots, HK, D], contiguous.
        v_pool: [num_slots, HK, DV], contiguous.
        slots: [N] int64, the slot of each token; tokens with slot -1 are left out.

    Raises:
        ValueError: the pools are not contiguous, or shapes or lengths differ.
    """
    if k.shape[1:] != k_pool.shape[1:] or v.shape[1:] != v_pool.shape[1:]:
        raise ValueError(
            f"k {tuple(k.shape)} and v {tuple(v.shape)} do not fit the pools "
            f"{tuple(k_pool.shape)} and {tuple(v_pool.shape)}"
        )
    if not len(k) == len(v) == len(slots):
        raise ValueError(f"{len(k)} keys, {len(v)} values and {len(slots)} slots")
    if k.stride(2) != 1 or v.stride(2) != 1:
        raise ValueError(f"k has strides {k.stride()} and v {v.stride()}; the last must be 1")
    _check_contiguous(k_pool, v_pool)
    if not len(k):
        return
    _, num_kv_heads, width = k.shape
    value_width = v.shape[2]
    write_kv_kernel[(len(k),)](
        k, v, k_pool, v_pool, slots, k.stride(0), k.stride(1), v.stride(0), v.stride(1),
        HK=num_kv_heads, D=width, DV=value_width, BHK=triton.next_power_of_2(num_kv_heads),
        BD=triton.next_power_of_2(width), BDV=triton.next_power_of_2(value_width),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Config:
    block: int  # entries of an iteration
    stages: int  # of the pipeline; the slots take two of them
    warps: int  # of a program


def _config(plan: TreePlan) -> _Config:
    """The settings that ran fastest on an H100, of those that fit without spilling registers.

    Where shared memory is small, large tiles get settings that fit 99 KiB; these were compiled and
    not timed. In fp32, more than 32 query heads a KV head never fit there at widths above 128.
    """
    spec = plan.spec
    is_large = plan.rows == TILE_ROWS_LARGE
    is_tight = is_large and plan.gpu.has_small_shared_memory
    is_big = max(spec.head_dim, spec.dv) > 128
    if spec.dtype == torch.float32:
        return _Config(16 if is_big or is_tight else 32, 5, 4)
    if is_big:
        return _Config(16 if is_tight else 32, 5, 8)
    if plan.variant == "tree_mask":
        return _Config(32, 5, 4)
    if is_large and not is_tight and plan.has_long_items:
        return _Config(64, 7, 4)  # at a width of 128, shared memory for one program an SM
    return _Config(64, 5, 4) if is_large else _Config(64, 6, 2)


def use_warp_specialized(
    q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, plan: TreePlan
) -> bool:
    """Whether the kernel of `hopper_kernels.py` can do the work and is faster.

    It is faster where tiles have a multiprocessor each and read from the cache. Kernels that are
    launched early find no room next to it on a multiprocessor. So where every entry is read by few
    tiles, and comes from memory, the Triton kernel is faster: the next kernel begins earlier.

    Args:
        q: [B, HQ, D].
        k_pool: [num_slots, HK, D].
        v_pool: [num_slots, HK, DV].
        plan: of the work.
    """
    spec, gpu = plan.spec, plan.gpu
    if not plan.has_long_items or plan.reuse < gpu.cached_reads or plan.buffers.mask is not None:
        return False
    if plan.rows != TILE_ROWS_LARGE or not spec.head_dim == spec.dv == WIDTH:
        return False
    if spec.dtype.itemsize != 2 or not q.is_cuda or gpu.compute_capability != 9:
        return False
    offsets = [tensor.data_ptr() for tensor in (q, k_pool, v_pool)]
    return not any(offset % 16 for offset in [*offsets, *q.stride()[:2]])


def _reduction(plan: TreePlan) -> tuple[int, int]:
    """Choose heads of a query that a program merges, and partial results that it reads at once.

    A program is one warp. Where a query has many partial results, to read more of them at once
    saves more than fewer programs. Elsewhere a program merges eight heads if four would make more
    than four programs a multiprocessor, and registers allow it.
    """
    capacity, spec, gpu = plan.capacity, plan.spec, plan.gpu
    if capacity.partials > gpu.many_partials * capacity.queries:
        return 1, 8
    are_many = capacity.queries * spec.num_heads > gpu.many_heads * gpu.num_sms
    return (8 if are_many and spec.dv <= 128 else 4), 4


def _padded(width: int) -> int:
    """The next power of two, and at least 16, the least that a matrix instruction takes."""
    power: int = triton.next_power_of_2(width)
    return max(power, 16)


def _check(q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, plan: TreePlan) -> None:
    spec = plan.spec
    wanted = {
        "q": (q, (None, spec.num_heads, spec.head_dim)),
        "k_pool": (k_pool, (None, spec.num_kv_heads, spec.head_dim)),
        "v_pool": (v_pool, (None, spec.num_kv_heads, spec.dv)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor.dim() != 3 or tuple(tensor.shape[1:]) != shape[1:] or tensor.dtype != spec.dtype:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)} {tensor.dtype}; the plan is for "
                f"(..., {shape[1]}, {shape[2]}) {spec.dtype}"
            )
    if len(q) < plan.num_queries or q.stride(2) != 1:
        raise ValueError(
            f"q has {len(q)} rows with a last stride of {q.stride(2)}; the plan needs "
            f"{plan.num_queries} rows and a last stride of 1"
        )
    _check_contiguous(k_pool, v_pool)


def _check_contiguous(k_pool: torch.Tensor, v_pool: torch.Tensor) -> None:
    for name, pool in (("k_pool", k_pool), ("v_pool", v_pool)):
        if not pool.is_contiguous():
            raise ValueError(f"{name} has strides {pool.stride()}; it must be contiguous")
