"""The rules by which DeFT's work is cut, from times measured on a GPU (`gpu_profile.py`).

Both planners use them: on the host with NumPy, on the device with PyTorch. The order of operations
is the same in both, and what is rounded is rounded alike, so both cut a forest in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .attention_spec import AttentionSpec
from .gpu_profile import OCCUPANCY_CANDIDATES, TILE_ROWS_LARGE, TILE_ROWS_SMALL, GpuProfile
from .segments import Segments
from .work_list import ALIGNMENT, Capacity, Tiles, tiles_by_width

Array = Any  # of NumPy or PyTorch


class CostModel:
    """The cost of work lists for one attention on one GPU, by tiles of one height.

    Args:
        spec: the attention.
        gpu: where it runs.
        rows: of a tile.
        xp: the array module, `numpy` or `torch`.
        asarray: makes an array of that module from one of NumPy, on the device that is to plan.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        gpu: GpuProfile,
        rows: int,
        xp: Any = np,
        asarray: Callable[[np.ndarray], Array] = np.asarray,
    ) -> None:
        self.spec, self.gpu = spec, gpu
        self._xp = xp
        # The functions that NumPy and PyTorch have in common are slower in NumPy.
        self._at_least = np.maximum if xp is np else xp.clamp
        self._amax = np.maximum.reduce if xp is np else xp.amax
        self._tile_seconds = gpu.tile_seconds(rows)
        # Arrays in place of numbers: PyTorch divides by a number with its rounded inverse, and
        # launches a kernel to fill a tensor with a number that `where` is given.
        self._alignment = asarray(np.array([float(ALIGNMENT)]))
        self._wanted = asarray(OCCUPANCY_CANDIDATES * gpu.num_sms)
        self._at_once = asarray(np.array([self._tile_seconds.resident * gpu.num_sms]))
        self._zero = asarray(np.array([0.0]))
        extra, base = gpu.single_query_reads
        self._read_weights = asarray(np.array([base, extra]))

    def are_few(self, num_queries: Array) -> Array:
        """Whether all programs run at once with tiles of one query.

        Args:
            num_queries: an integer, or an array of integers.
        """
        return num_queries <= self.gpu.num_sms // self.spec.num_kv_heads

    def are_reads_alike(self, reads: Array) -> Array:
        """Whether tiles of one query read hardly more than full tiles.

        Args:
            reads: [2] int64, entries that all tiles read: with one query a tile, and with as many
                as a tile has room for.
        """
        single, full = reads * self._read_weights
        return single <= full

    def item_lengths(self, tokens: Array, num_queries: Array, unique: Array) -> tuple[Array, Array]:
        """Candidates for the length of an item, and the time attention takes with each.

        Few long items leave multiprocessors idle; many short ones write and merge more partial
        results. With c programs of at most n blocks of 64 entries, the time is
        max(waves(c) * n * seconds a block, bytes / bandwidth) and, if a tile has several items,
        that of its partial results: for R rows, 2 R (D + 2) itemsize bytes.

        Args:
            tokens: [T] entries that each tile reads; 0 for tiles without a query.
            num_queries: [T] of each tile.
            unique: an integer or [1], entries of all segments.

        Returns:
            The candidates [C], float64, in blocks of 64 entries; their times [C] in seconds.
        """
        xp, gpu, num_kv_heads = self._xp, self.gpu, self.spec.num_kv_heads
        _, alone_seconds, full_seconds = self._tile_seconds
        unique = unique / self._alignment
        tokens = tokens / self._alignment
        read = tokens.sum()
        even = read * num_kv_heads / self._wanted
        most_tokens = self._at_least(self._amax(tokens, 0), 1)
        length = xp.ceil(xp.minimum(self._at_least(even, 2), most_tokens))
        parts = xp.ceil(tokens / length[:, None])  # [C, T]
        longest = xp.ceil(self._amax(tokens / self._at_least(parts, 1), 1))
        programs = parts.sum(1) * num_kv_heads
        alone = unique * gpu.stall_seconds / read + alone_seconds
        waves = xp.ceil(programs / self._at_once)
        pace = xp.where(programs <= gpu.num_sms, alone, waves * full_seconds)
        seconds = xp.maximum(longest * pace, unique * self.block_seconds())
        merged = (xp.where(parts > 1, parts, self._zero) * num_queries).sum(1)
        most = self._amax(parts, 1)
        first, more = gpu.reduction_seconds
        reduction = xp.where(most > 1, most // 16 * more + first, self._zero)
        return length, seconds + merged * self.row_seconds() + reduction

    def block_seconds(self) -> float:
        """Seconds in which 64 entries of all KV heads are read from memory."""
        size = self.spec.num_kv_heads * 2 * self.spec.mean_dim * self.spec.dtype.itemsize
        return ALIGNMENT * size / self.gpu.memory_bandwidth

    def row_seconds(self) -> float:
        """Seconds in which a partial result of all heads of a query is written and read."""
        size = self.spec.num_heads * (self.spec.mean_dim + 2) * self.spec.dtype.itemsize
        return 2 * size / self.gpu.partial_bandwidth


def deft_tile_rows(segments: Segments | None, spec: AttentionSpec, gpu: GpuProfile) -> int:
    """Rows of DeFT's tiles: small tiles where hardly anything is shared and they read no more.

    Args:
        segments: those of the forest; None for a plan whose forests are not known yet.
        spec: the attention; its data type has 16 bits.
        gpu: where it runs.
    """
    if segments is None or spec.group > TILE_ROWS_SMALL:
        return TILE_ROWS_LARGE
    small, large = (
        num_reads(segments, rows // spec.group) for rows in (TILE_ROWS_SMALL, TILE_ROWS_LARGE)
    )
    return TILE_ROWS_SMALL if small <= gpu.small_tile_reads * large else TILE_ROWS_LARGE


def deft_tiles(segments: Segments, num_queries: int, width: int, cost: CostModel) -> Tiles:
    """DeFT's tiles, of `width` queries or of one each.

    Tiles of one query are taken where they are few for the GPU and read hardly more.
    """
    is_single = cost.are_few(num_queries) and cost.are_reads_alike(
        np.array([num_reads(segments, 1), num_reads(segments, width)])
    )
    return tiles_by_width(segments, num_queries, 1 if is_single else width)


def best_item_length(segments: Segments, tiles: Tiles, cost: CostModel, steps: int = 0) -> int:
    """Entries of an item with which attention takes the least time.

    Args:
        segments: those of the forest.
        tiles: which of them each tile reads.
        cost: of the attention on its GPU.
        steps: entries by which every path is to grow; the time counts halfway through them.
    """
    half = -(-steps // 2)
    tokens = np.bincount(tiles.tile, segments.length[tiles.segment]) + tiles.size * half
    unique = segments.length.sum() + tiles.size.sum() * half
    length, seconds = cost.item_lengths(tokens, tiles.size, unique)
    return int(length[seconds.argmin()]) * ALIGNMENT


def num_reads(segments: Segments, width: int) -> int:
    """Entries that tiles of `width` queries read: each segment once a tile that sees it."""
    spanned = (segments.hi - 1) // width - segments.lo // width + 1
    return int((segments.length * spanned).sum())


def estimate_capacity(
    num_queries: int, num_entries: int, spec: AttentionSpec, gpu: GpuProfile, rows: int
) -> Capacity:
    """A capacity that holds nearly any forest of some size, cut by `deft`.

    An estimate, so that plans seldom need to be made anew: four nodes a query, each entry read by
    four tiles, and as many items as run at once. Unused capacity costs memory, a dozen bytes an
    entry, and programs that end as they begin.

    Args:
        num_queries: of the forest.
        num_entries: of the slot table.
        spec: the attention.
        gpu: where it runs.
        rows: of a tile.
    """
    width = min(spec.tile_width(rows), num_queries)
    num_single = min(num_queries, gpu.num_sms // spec.num_kv_heads)  # if each has one query
    num_tiles = max(-(-num_queries // width), num_single)
    resident = gpu.tile_seconds(rows).resident
    num_items = num_tiles + resident * gpu.num_sms // spec.num_kv_heads
    num_nodes = 4 * num_queries + 64
    return Capacity(
        nodes=num_nodes,
        queries=num_queries,
        copies=num_nodes + 16 * num_tiles,
        entries=4 * num_entries + ALIGNMENT * num_tiles,
        items=num_items,
        partials=num_items * width,
    )
