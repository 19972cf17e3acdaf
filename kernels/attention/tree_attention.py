"""Tree attention on a GPU: the run of a plan over one layer's KV pool.

Launches the kernels of `deft.py` and `deft_hopper.py`. Nothing here waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from treeshare.kernels.early_launch import early
from treeshare.kernels.planning.tree_plan import TreePlan
from treeshare.kernels.planning.variants import WIDE
from treeshare.kernels.planning.work_list import aligned

from .hopper_kernels import WIDTH, partial_attention_in_two
from .triton_kernels import partial_attention_kernel, reduce_partials_kernel, write_kv_kernel

IS_INTERPRETED = not isinstance(partial_attention_kernel, triton.JITFunction)
_LOG2E = 1.4426950408889634
_LONG = 512  # entries of an item
_OFTEN = 3  # that an entry is read


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
            softcap that is not above 0, or options with `tree_mask`, whose mask is all it does.
    """
    heads, room = plan.heads, plan.capacity
    options = {"scale": scale, "sliding_window": sliding_window, "softcap": softcap}
    for name, value in options.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value} must be above 0")
    if plan.variant == "tree_mask" and sliding_window is not None:
        raise ValueError("variant='tree_mask' has no sliding_window; its mask is all it does")
    _check(q, k_pool, v_pool, plan)
    if sinks is not None and (sinks.shape != (heads.num_heads,) or sinks.stride() != (1,)):
        raise ValueError(f"sinks is {tuple(sinks.shape)}; it must be ({heads.num_heads},)")
    if out is None:
        out = q.new_empty(len(q), heads.num_heads, heads.dv)
    elif out.dtype != q.dtype or out.shape != (len(q), heads.num_heads, heads.dv):
        raise ValueError(
            f"out is {tuple(out.shape)} {out.dtype}, not "
            f"({len(q)}, {heads.num_heads}, {heads.dv}) {q.dtype}"
        )
    elif out.stride()[1:] != (heads.dv, 1):
        raise ValueError(f"out has strides {out.stride()}; the last two must be ({heads.dv}, 1)")
    part, mask, launch = plan._part, plan._mask, early(q)
    factor, cap = scale * _LOG2E, 0.0
    is_plain = sliding_window is None and softcap is None and sinks is None
    if is_plain and _is_for_two(q, k_pool, v_pool, plan):
        partial_attention_in_two(q, k_pool, v_pool, out, plan, factor)
    else:
        config = _config(plan, _is_small(q))
        if softcap is not None:
            factor, cap = softcap * _LOG2E, 2 * _LOG2E * scale / softcap
        partial_attention_kernel[(room.items * heads.num_kv_heads,)](
            q, k_pool, v_pool, out, plan._partial, plan._lse, part["num_items"], part["items"],
            plan._slot, plan._bound, plan._position, part["row"], part["position"],
            q if sinks is None else sinks, q if mask is None else mask, plan.step,
            q.stride(0), q.stride(1), out.stride(0), 0 if mask is None else mask.shape[1],
            0 if mask is None else aligned(mask.shape[1]), factor, cap, sliding_window or 0,
            HK=heads.num_kv_heads, G=plan.shape.group, D=heads.head_dim, DV=heads.dv,
            BD=_padded(heads.head_dim), BDV=_padded(heads.dv),
            M=plan.rows, BN=config.block, STAGES=config.stages, SOFTCAP=softcap is not None,
            WINDOW=sliding_window is not None, SINKS=sinks is not None, DENSE_MASK=mask is not None,
            ORDERED=plan.is_ordered,
            PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
            num_warps=config.warps, **launch,
        )  # fmt: skip
    if room.partials:
        num_together, num_at_once = _reduction(plan)
        reduce_partials_kernel[(room.queries, triton.cdiv(heads.num_heads, num_together))](
            out, plan._partial, plan._lse, part["reduce_offset"], part["reduce_row"], part["row"],
            q if sinks is None else sinks, out.stride(0),
            HQ=heads.num_heads, DV=heads.dv, BDV=triton.next_power_of_2(heads.dv),
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
    """Store k [N, HK, D] and v [N, HK, DV] in the pools' rows `slots` [N], in one launch; what
    has slot -1 is left out.

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
    warps: int


def _config(plan: TreePlan, is_small: bool) -> _Config:
    """What ran fastest on an H100 of what fits its shared memory without spilling.

    With `is_small` large tiles get settings that fit 99 KiB; these were compiled and not timed. In
    fp32, more than 32 query heads a KV head never fit there at widths above 128.
    """
    heads = plan.heads
    is_tight = is_small and plan.rows == WIDE
    is_big = max(heads.head_dim, heads.dv) > 128
    if heads.dtype == torch.float32:
        return _Config(16 if is_big or is_tight else 32, 5, 4)
    if is_big:
        return _Config(16 if is_tight else 32, 5, 8)
    if plan.variant == "tree_mask":
        return _Config(32, 5, 4)
    if plan.rows == WIDE and not is_tight and _has_an_sm_each(plan):
        return _Config(64, 7, 4)  # at a width of 128, memory for one program an SM
    return _Config(64, 5, 4) if plan.rows == WIDE else _Config(64, 6, 2)


def _is_small(tensor: torch.Tensor) -> bool:
    """Whether a program on the tensor's GPU has at most 99 KiB of shared memory.

    That is so on RTX 30 and 40, A10, L4 and L40S; on an A100 or H100 it has 163 KiB or more.
    """
    if not tensor.is_cuda:
        return False
    device = torch.cuda.get_device_properties(tensor.device)
    shared = getattr(device, "shared_memory_per_block_optin", device.shared_memory_per_block)
    return bool(shared < 128 << 10)


def _is_for_two(
    q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, plan: TreePlan
) -> bool:
    """Whether `deft_hopper` takes it, and is faster: where tiles have an SM each, and what they
    read comes from the cache. It leaves no room for kernels that are launched early beside it."""
    heads = plan.heads
    has_size = plan.rows == WIDE and heads.head_dim == heads.dv == WIDTH
    if plan.reuse < _OFTEN or not has_size or heads.dtype.itemsize != 2 or plan._mask is not None:
        return False
    if not q.is_cuda or torch.cuda.get_device_properties(q.device).major != 9:
        return False
    offsets = [tensor.data_ptr() for tensor in (q, k_pool, v_pool)]
    is_aligned = not any(offset % 16 for offset in [*offsets, *q.stride()[:2]])
    return is_aligned and _has_an_sm_each(plan)


def _has_an_sm_each(plan: TreePlan) -> bool:
    """Whether there are at most as many programs as SMs, and long ones, of several tiles. Launched
    early, where the first SMs to be free have room for two, they would leave other SMs idle. What
    one tile reads comes from memory, where it helps more that the next program begins early."""
    work, num_programs = plan._work, plan.capacity.items * plan.heads.num_kv_heads
    if work is None or num_programs > plan.shape.num_sms:
        return False
    return bool(work.items[0, 1] >= _LONG and work.items[:, 3].any())


def _reduction(plan: TreePlan) -> tuple[int, int]:
    """Heads of a query that a program, one warp, merges, and partial results that it reads at once.
    Where a query has many of these, to read more of them at once saves more than fewer programs;
    else eight heads, if four would be more than four programs an SM and registers allow it."""
    room, heads = plan.capacity, plan.heads
    if room.partials > 4 * room.queries:
        return 1, 8
    are_many = room.queries * heads.num_heads > 16 * plan.shape.num_sms
    return (8 if are_many and heads.dv <= 128 else 4), 4


def _padded(width: int) -> int:
    """A matrix instruction takes 16 at least."""
    power: int = triton.next_power_of_2(width)
    return max(power, 16)


def _check(q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, plan: TreePlan) -> None:
    heads = plan.heads
    wanted = {
        "q": (q, (None, heads.num_heads, heads.head_dim)),
        "k_pool": (k_pool, (None, heads.num_kv_heads, heads.head_dim)),
        "v_pool": (v_pool, (None, heads.num_kv_heads, heads.dv)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor.dim() != 3 or tuple(tensor.shape[1:]) != shape[1:] or tensor.dtype != heads.dtype:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)} {tensor.dtype}; the plan is for "
                f"(..., {shape[1]}, {shape[2]}) {heads.dtype}"
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
