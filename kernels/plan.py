"""Turns a forest of KV segments into work for tree attention, once per forward.

Batch order is depth-first: the queries at or below any node are one interval `[lo, hi)` (DESIGN
section 5.1), so a shared segment is read once for all of them (DeFT, arXiv 2404.00242 section 3).
Knows positions and slots, nothing of models, requests or where the tree comes from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

SHORT = 16  # segments up to this length are not told apart
PADDING_POSITION = np.iinfo(np.int64).max  # later than every query, so causality masks it


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive KV entries and the packed queries that may look at them.

    A query sees a key of its segments if the key's position is not later than its own. This one
    rule gives causality among the tokens of one node, and hides nothing of an ancestor.
    """

    slots: np.ndarray  # [length] int64: where the entries lie in the pool, in order of position
    start: int  # position of the first entry
    lo: int  # queries [lo, hi)
    hi: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """Segments of similar shape, padded to one."""

    slots: torch.Tensor  # [S, L] int64; padding repeats the segment's first slot
    key_positions: torch.Tensor  # [S, L] int64; PADDING_POSITION where padded
    queries: torch.Tensor  # [S, Q] int64 rows of the packed queries; N where padded
    is_full: bool  # nothing padded, and every key is visible to every query by position


@dataclass(frozen=True, slots=True)
class TreePlan:
    """One forward's attention work, shared by all layers."""

    query_positions: torch.Tensor  # [N] int64
    buckets: tuple[Bucket, ...]
    num_key_reads: int  # KV entries read per layer: the sum of segment lengths


def build_plan(
    query_positions: Sequence[int], segments: Sequence[Segment], device: torch.device | str = "cpu"
) -> TreePlan:
    """Group segments by the powers of two of (queries, length) and pad each group.

    Args:
        query_positions: position of each packed query in its own path, [N].
        segments: for each query, the segments of its path must cover positions 0 to its own. One
            that is empty or has no query drops out.
    """
    live = [segment for segment in segments if segment.hi > segment.lo and len(segment.slots)]
    groups: dict[tuple[int, int], list[Segment]] = defaultdict(list)
    for segment in live:
        length = max(len(segment.slots), SHORT)
        groups[(segment.hi - segment.lo).bit_length(), length.bit_length()].append(segment)
    positions = np.asarray(query_positions, dtype=np.int64)
    return TreePlan(
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
