"""Tree attention in plain PyTorch, for the CPU and for any device without our kernels.

Segments of similar shape are padded to one shape and computed at once. Each segment's keys and
values are gathered once for all the queries below it, each (segment, query) pair gives a partial
result, and the partials of a query are merged by their log-sum-exp (DeFT, arXiv 2404.00242 section
3.3; FlashDecoding's split-KV merge).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from treeshare.kernels.planning.segments import Segment

SHORT = 16  # segments up to this length share a bucket
PADDING_POSITION = np.iinfo(np.int64).max  # later than every query, so causality masks it


@dataclass(frozen=True, slots=True)
class Bucket:
    """S segments of similar shape, padded to L entries and Q queries."""

    slots: torch.Tensor  # [S, L] int64; padding repeats the segment's first slot
    key_positions: torch.Tensor  # [S, L] int64; PADDING_POSITION where padded
    queries: torch.Tensor  # [S, Q] int64 rows of the packed queries; N where padded
    is_full: bool  # nothing padded, and every key is visible to every query by position


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """The attention work of one forward, shared by all layers."""

    query_positions: torch.Tensor  # [N] int64
    buckets: tuple[Bucket, ...]
    num_key_reads: int  # KV entries read per layer: the sum of segment lengths


def build_plan(
    query_positions: Sequence[int], segments: Sequence[Segment], device: torch.device | str = "cpu"
) -> BucketPlan:
    """Group segments by the powers of two of (queries, length) and pad each group.

    Args:
        query_positions: position of each packed query in its own path, [N].
        segments: for each query, the segments of its path must cover positions 0 to its own. One
            that is empty or has no query drops out.
        device: where the plan is to lie.
    """
    live = [segment for segment in segments if segment.hi > segment.lo and len(segment.slots)]
    groups: dict[tuple[int, int], list[Segment]] = defaultdict(list)
    for segment in live:
        length = max(len(segment.slots), SHORT)
        groups[(segment.hi - segment.lo).bit_length(), length.bit_length()].append(segment)
    positions = np.asarray(query_positions, dtype=np.int64)
    return BucketPlan(
        torch.from_numpy(positions).to(device),
        tuple(_pad(group, positions, device) for group in groups.values()),
        sum(len(segment.slots) for segment in live),
    )


def _pad(
    group: Sequence[Segment], query_positions: np.ndarray, device: torch.device | str
) -> Bucket:
    length = max(len(segment.slots) for segment in group)
    width = max(segment.hi - segment.lo for segment in group)
    slots = np.empty((len(group), length), dtype=np.int64)
    key_positions = np.full((len(group), length), PADDING_POSITION)
    queries = np.full((len(group), width), len(query_positions))
    is_full = True
    for row, segment in enumerate(group):
        num_keys, num_queries = len(segment.slots), segment.hi - segment.lo
        slots[row, :num_keys] = segment.slots
        slots[row, num_keys:] = segment.slots[0]
        key_positions[row, :num_keys] = np.arange(segment.start, segment.start + num_keys)
        queries[row, :num_queries] = np.arange(segment.lo, segment.hi)
        earliest = query_positions[segment.lo : segment.hi].min()
        is_full &= num_keys == length and num_queries == width
        is_full &= bool(earliest >= segment.start + num_keys - 1)
    return Bucket(
        torch.from_numpy(slots).to(device),
        torch.from_numpy(key_positions).to(device),
        torch.from_numpy(queries).to(device),
        is_full,
    )


def tree_attention(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    plan: BucketPlan,
    *,
    scale: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of packed queries over their paths in the tree.

    Args:
        q: [N, HQ, D], in the plan's order.
        k_pool: [num_slots, HK, D], HQ a multiple of HK.
        v_pool: [num_slots, HK, DV].
        plan: segments and positions.
        scale: factor on the scores.
        sliding_window: a query sees the keys at the last `sliding_window` positions, its own
            included; None sees all.
        softcap: scores become softcap * tanh(scores / softcap).
        sinks: [HQ], a logit per head that joins the softmax and has no value.

    Returns:
        [N, HQ, DV], dtype of `q`. Accumulated in fp32 (fp64 for fp64 input).
    """
    num_queries, num_heads, _ = q.shape
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    rows, maxima, sums, outputs = [], [], [], []
    for bucket in plan.buckets:
        maximum, total, output = _partial(
            q, k_pool, v_pool, plan, bucket, scale, sliding_window, softcap, dtype
        )
        rows.append(bucket.queries.flatten())
        maxima.append(maximum)
        sums.append(total)
        outputs.append(output)
    row = torch.cat(rows)  # [P]
    maximum = torch.cat(maxima)  # [P, HQ]
    # Row N takes the padding's partials.
    top = maximum.new_full((num_queries + 1, num_heads), float("-inf"))
    top.scatter_reduce_(0, row[:, None].expand_as(maximum), maximum, "amax")
    if sinks is not None:
        top = torch.maximum(top, sinks.to(dtype))
    weight = torch.exp(maximum - top.index_select(0, row))
    weight = torch.where(maximum == float("-inf"), 0.0, weight)
    denominator = torch.zeros_like(top).index_add_(0, row, weight * torch.cat(sums))
    if sinks is not None:
        denominator += torch.exp(sinks.to(dtype) - top)
    numerator = top.new_zeros(num_queries + 1, num_heads, v_pool.shape[-1])
    numerator.index_add_(0, row, weight[..., None] * torch.cat(outputs))
    return (numerator[:num_queries] / denominator[:num_queries, :, None]).to(q.dtype)


def _partial(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    plan: BucketPlan,
    bucket: Bucket,
    scale: float,
    sliding_window: int | None,
    softcap: float | None,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attend to one bucket.

    Returns:
        Maximum [S*Q, HQ], sum of exponentials [S*Q, HQ] and weighted values [S*Q, HQ, DV].
    """
    width = bucket.queries.shape[1]
    _, num_heads, head_dim = q.shape
    num_kv_heads = k_pool.shape[1]
    group = num_heads // num_kv_heads
    # A padded query reads row 0; its partial goes to the row that is thrown away.
    in_range = bucket.queries < q.shape[0]
    query_rows = torch.where(in_range, bucket.queries, 0)
    b_q = q[query_rows].to(dtype)  # [S, Q, HQ, D]
    b_q = b_q.reshape(-1, width, num_kv_heads, group, head_dim).transpose(1, 2).flatten(2, 3)
    b_k = k_pool[bucket.slots].to(dtype).permute(0, 2, 3, 1)  # [S, HK, D, L]
    b_v = v_pool[bucket.slots].to(dtype).permute(0, 2, 1, 3)  # [S, HK, L, DV]
    scores = torch.matmul(b_q, b_k).mul_(scale)  # [S, HK, Q*G, L]
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if not bucket.is_full or sliding_window is not None:
        key = bucket.key_positions[:, None, :]
        query = plan.query_positions[query_rows][:, :, None]
        hidden = key > query  # [S, Q, L]
        if sliding_window is not None:
            hidden |= key <= query - sliding_window
        scores.masked_fill_(hidden.repeat_interleave(group, dim=1)[:, None], float("-inf"))
    maximum = scores.amax(-1)  # [S, HK, Q*G]
    shift = torch.where(maximum == float("-inf"), 0.0, maximum)
    weights = scores.sub_(shift[..., None]).exp_()
    total, output = weights.sum(-1), torch.matmul(weights, b_v)
    # [S, HK, Q*G, ...] to [S*Q, HQ, ...]
    split = (len(bucket.queries), num_kv_heads, width, group)
    maximum = maximum.view(split).transpose(1, 2).reshape(-1, num_heads)
    total = total.view(split).transpose(1, 2).reshape(-1, num_heads)
    output = output.view(*split, -1).transpose(1, 2).reshape(-1, num_heads, b_v.shape[-1])
    return maximum, total, output
