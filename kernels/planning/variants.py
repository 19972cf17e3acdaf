"""Tree attention by name: each variant is a way to cut the same work list for the same kernel.

`deft` is the default. The algorithms of the DeFT paper (arXiv 2404.00242 section 3.3) and two
baselines stand beside it: `sequence`, paged flash-decoding of each query's whole path, which is
what a radix cache without tree attention reads; `tree_mask`, a dense mask over the whole forest as
in Medusa (arXiv 2401.10774 section 2.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .segments import Segments
from .work_list import (
    ALIGNMENT,
    Capacity,
    Growth,
    Tiles,
    WorkList,
    build_work_list,
    check_seen,
    tiles_by_segment,
    tiles_by_width,
)

VARIANTS = ("deft", "deft_node", "deft_node_chunk", "deft_flatten", "sequence", "tree_mask")
GROWING = ("deft", "deft_flatten", "sequence")  # those in which a query is in one tile only
BLOCK = 128  # entries of a block, and
GROUP = 32  # queries of a group, in the DeFT authors' code
WIDE, NARROW = 64, 16  # rows of a tile: a warp group's matrix instruction, and a warp's


@dataclass(frozen=True, slots=True)
class Shape:
    """What the cut of the work depends on besides the forest."""

    num_heads: int
    num_kv_heads: int
    head_dim: int  # mean of the key's and the value's
    itemsize: int  # bytes of a KV element
    num_sms: int = 132

    @property
    def group(self) -> int:
        return self.num_heads // self.num_kv_heads


# Measured on an H100 (experiments/LOG.md, 2026-11-24), in seconds and bytes a second. By rows of a
# tile: programs an SM holds, and the time of 64 entries in one that is alone or among as many.
PACE = {WIDE: (2, 0.8e-6, 1.6e-6), NARROW: (3, 0.9e-6, 2.0e-6)}
STALL_SECONDS = 0.5e-6  # more, for 64 entries that come from memory to a program that is alone
REDUCTION_SECONDS = (3e-6, 1.2e-6)  # of a query's first 16 partial results, of 16 more
_PARTIAL_BANDWIDTH = 2e12
_MEMORY_BANDWIDTH = 2.9e12
# Programs an SM, to be weighed up. With the last, tiles are left whole.
LOADS = np.array([0.8, 0.9, 1, 1.7, 1.9, 2, 3, 4, 6, 1e-9])


def num_rows(variant: str, segments: Segments | None, shape: Shape) -> int:
    """Rows of the variant's tiles. Where hardly anything is shared, small tiles read no more; that
    is decided by the segments, which are None for a plan of forests yet unknown."""
    if shape.group > NARROW or variant not in ("deft", "sequence"):
        return WIDE
    if variant == "sequence":
        return NARROW
    if segments is None:
        return WIDE
    reads = [_num_reads(segments, rows // shape.group) for rows in (NARROW, WIDE)]
    return NARROW if reads[0] <= 1.2 * reads[1] else WIDE


def ample(num_queries: int, num_entries: int, shape: Shape, rows: int) -> Capacity:
    """Room for about any forest of so many queries over a pool of so many entries, cut by `deft`.

    A guess, so that plans seldom need be made anew: four nodes a query, each entry read by four
    tiles, and as many items as run at once. Unused room costs memory, a dozen bytes an entry, and
    programs that end as they begin.
    """
    width = min(max(rows // shape.group, 1), num_queries)
    few = min(num_queries, shape.num_sms // shape.num_kv_heads)  # tiles of one query each
    num_tiles = max(-(-num_queries // width), few)
    num_resident, *_ = PACE[WIDE if rows == WIDE else NARROW]
    num_items = num_tiles + num_resident * shape.num_sms // shape.num_kv_heads
    num_nodes = 4 * num_queries + 64
    return Capacity(
        nodes=num_nodes,
        queries=num_queries,
        copies=num_nodes + 16 * num_tiles,
        entries=4 * num_entries + ALIGNMENT * num_tiles,
        items=num_items,
        partials=num_items * width,
    )


def cut(
    variant: str,
    segments: Segments,
    num_queries: int,
    shape: Shape,
    rows: int,
    growth: Growth | None = None,
) -> WorkList:
    """The work list of a variant with tiles of `rows` rows.

    Raises:
        ValueError: no such variant, or a query sees no entry.
    """
    check_seen(segments, num_queries)
    width = max(rows // shape.group, 1)
    if variant == "deft_node":
        chunk = max(int(segments.length.max(initial=1)), 1)
        tiles = tiles_by_segment(segments, min(width, GROUP))
    elif variant == "deft_node_chunk":
        chunk, tiles = BLOCK, tiles_by_segment(segments, min(width, GROUP))
    elif variant == "deft_flatten":
        chunk, tiles = BLOCK, tiles_by_width(segments, num_queries, min(width, GROUP))
    elif variant in ("deft", "sequence", "tree_mask"):
        if variant == "tree_mask":  # every tile reads every segment, seen or not
            zero, all_queries = np.zeros_like(segments.lo), np.full_like(segments.hi, num_queries)
            segments = replace(segments, lo=zero, hi=all_queries, num_visible=segments.length)
        is_alone = variant == "deft" and _is_alone(segments, num_queries, shape, width)
        if variant == "sequence" or is_alone:
            width = 1
        tiles = tiles_by_width(segments, num_queries, width)
        chunk = _best_chunk(segments, tiles, shape, rows, 0 if growth is None else growth.steps)
    else:
        raise ValueError(f"variant={variant!r} is not one of {', '.join(VARIANTS)}")
    return build_work_list(segments, num_queries, tiles, chunk, growth)


def _is_alone(segments: Segments, num_queries: int, shape: Shape, width: int) -> bool:
    """Whether tiles of one query are as good: they read hardly more, and are few for the GPU."""
    are_few = num_queries * shape.num_kv_heads <= shape.num_sms
    return are_few and 20 * _num_reads(segments, 1) <= 21 * _num_reads(segments, width)


def _num_reads(segments: Segments, width: int) -> int:
    spanned = (segments.hi - 1) // width - segments.lo // width + 1
    return int((segments.length * spanned).sum())


def _best_chunk(
    segments: Segments, tiles: Tiles, shape: Shape, rows: int, num_steps: int = 0
) -> int:
    """Entries of an item that make the attention shortest, halfway through the steps to come.

    Few long items leave SMs idle; many short ones write and merge more partial results. With c
    items of at most n entries, the time is max(waves(c) * n * tile time, bytes / bandwidth) and,
    if anything is cut, what its partial results cost: for R rows, 2 R (D + 2) itemsize bytes.
    """
    half = -(-num_steps // 2)
    length = segments.length / ALIGNMENT
    tokens = np.bincount(tiles.tile, length[tiles.segment]) + tiles.size * half / ALIGNMENT
    unique = length.sum() + tiles.size.sum() * half / ALIGNMENT
    even = tokens.sum() * shape.num_kv_heads / (LOADS * shape.num_sms)
    chunk = np.ceil(np.minimum(np.maximum(even, 2), tokens.max()))  # [candidates] blocks
    parts = np.ceil(tokens / chunk[:, None])  # [candidates, tiles]
    longest = np.ceil((tokens / parts).max(axis=1))
    programs = parts.sum(axis=1) * shape.num_kv_heads
    resident, alone_seconds, full_seconds = PACE[WIDE if rows == WIDE else NARROW]
    alone = unique * STALL_SECONDS / tokens.sum() + alone_seconds
    waves = np.ceil(programs / (resident * shape.num_sms))
    pace = np.where(programs <= shape.num_sms, alone, waves * full_seconds)
    seconds = np.maximum(longest * pace, unique * block_seconds(shape))
    merged = (np.where(parts > 1, parts, 0) * tiles.size).sum(axis=1)
    most = parts.max(axis=1)
    first, more = REDUCTION_SECONDS
    reduction = (most > 1) * first + most // 16 * more
    seconds = seconds + merged * row_seconds(shape) + reduction
    return int(chunk[seconds.argmin()]) * ALIGNMENT


def block_seconds(shape: Shape) -> float:
    """To read `ALIGNMENT` entries from memory."""
    size = shape.num_kv_heads * 2 * shape.head_dim * shape.itemsize
    return ALIGNMENT * size / _MEMORY_BANDWIDTH


def row_seconds(shape: Shape) -> float:
    """To write and read a query's partial result."""
    size = shape.num_heads * (shape.head_dim + 2) * shape.itemsize
    return 2 * size / _PARTIAL_BANDWIDTH
