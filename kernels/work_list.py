"""From segments to the work of tree attention: items for the kernel, lists for the reduction.

The depth-first row of queries is cut into tiles. Each tile reads the segments it can see as one
flattened run of entries (DeFT-Flatten, arXiv 2404.00242 section 3.3, within a tile), and the run
is cut into items. So siblings, chains and small subtrees are packed without being looked for, and
a query has one partial result an item, not one a node. Vectorised over nodes: no cost here grows
with the number of tokens. Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .forest import stable_order
from .segments import Segments

ITEM_FIELDS = 8  # start, length, growth, tile, lo, hi, partial, num_full
COPY_FIELDS = 8  # source, target, length, lo, hi, num_visible, stride, position
ALIGNMENT = 64  # items start and, but for a tile's last, end at multiples of it


@dataclass(frozen=True, slots=True)
class Tiles:
    """Which segments each tile of queries reads: P pairs, by tile and then in depth-first order.

    Tile t serves the queries from `origin[t]` on, `width` of them or fewer.
    """

    width: int
    origin: np.ndarray  # [T]
    size: np.ndarray  # [T] queries
    tile: np.ndarray  # [P]
    segment: np.ndarray  # [P]


@dataclass(frozen=True, slots=True)
class Growth:
    """Entries that each query's path gains, one a step (a frozen plan, DESIGN 5.8)."""

    source: np.ndarray  # [B] where a query's next entries begin in the slot table
    position: np.ndarray  # [B] position of the first of them
    steps: int  # there is room for


@dataclass(frozen=True, slots=True)
class WorkList:
    """Host side of a plan. All arrays are int32.

    An item is `length + growth * step` flattened entries from `start` on, for the queries `lo` to
    `hi` of the tile that begins at query `tile`. All of the tile's see the first `num_full`. Its
    results go to partial rows `partial` on, or straight to the output if that is -1.
    """

    items: np.ndarray  # [I, ITEM_FIELDS], longest first
    copies: np.ndarray  # [C, COPY_FIELDS], runs of the slot table and where they go
    num_entries: int  # room that the flattened entries need
    num_partials: int
    reduce_offset: np.ndarray  # [B + 1] into reduce_row
    reduce_row: np.ndarray  # [R] partial rows of each query, in a fixed order
    num_reads: int  # entries the items read


def tiles_by_width(segments: Segments, num_queries: int, width: int) -> Tiles:
    """Tiles of `width` queries, wherever nodes begin and end."""
    index, step = _repeat((segments.hi - 1) // width - segments.lo // width + 1)
    tile = segments.lo[index] // width + step
    by_tile = stable_order(tile)
    origin = np.arange(0, num_queries, width)
    size = np.minimum(width, num_queries - origin)
    return Tiles(width, origin, size, tile[by_tile], index[by_tile])


def tiles_by_segment(segments: Segments, width: int) -> Tiles:
    """Tiles of one segment each: DeFT-Node, arXiv 2404.00242 section 3.3."""
    index, step = _repeat(-(-(segments.hi - segments.lo) // width))
    origin = segments.lo[index] + step * width
    size = np.minimum(width, segments.hi[index] - origin)
    return Tiles(width, origin, size, np.arange(len(index)), index)


def build_work_list(
    segments: Segments, num_queries: int, tiles: Tiles, chunk: int, growth: Growth | None = None
) -> WorkList:
    """Cut every tile's run into items of about equal length, at most `chunk` entries.

    Every query must see an entry (`check_seen`).
    """
    origin = tiles.origin[tiles.tile]
    lo = segments.lo[tiles.segment] - origin  # negative where the segment began in an earlier tile
    hi = np.minimum(segments.hi[tiles.segment] - origin, tiles.width)
    num_visible = segments.num_visible[tiles.segment]
    # Entries after the last that any of the tile's queries sees are left out.
    seen = np.maximum(num_visible + np.maximum(hi, 1) - 1 - lo, 0)
    length = np.minimum(segments.length[tiles.segment], seen)

    num_tiles = len(tiles.origin)
    tokens = np.bincount(tiles.tile, length, num_tiles).astype(np.int64)
    grows = np.zeros(num_tiles, dtype=np.int64) if growth is None else tiles.size
    steps = 0 if growth is None else growth.steps
    room = aligned(tokens + grows * steps)
    tile_start = np.cumsum(room) - room
    token_start = np.cumsum(tokens) - tokens
    pair_end = np.cumsum(length)
    pair_start = pair_end - length

    target = tile_start[tiles.tile] + pair_start - token_start[tiles.tile]
    copies = _table(
        segments.source[tiles.segment], target, length, lo, hi, num_visible, 1,
        segments.position[tiles.segment],
    )  # fmt: skip
    if growth is not None:
        copies = np.concatenate([copies, _growth_copies(tiles, tile_start + tokens, growth)])

    # The last item of a tile grows: it is cut as if half of what may come were there.
    expected = tokens + grows * steps // 2
    num_items = np.maximum(-(-expected // chunk), (expected + grows > 0).astype(np.int64))
    even = -(-expected // np.maximum(num_items, 1))
    even = np.maximum(aligned(even), ALIGNMENT)
    most = np.where(grows > 0, tokens // even + 1, np.maximum(-(-tokens // even), 1))
    num_items = np.minimum(num_items, most)
    tile, part = _repeat(num_items)
    is_last = part == num_items[tile] - 1
    begin = part * even[tile]
    end = np.where(is_last, tokens[tile], begin + even[tile])
    grow = np.where(is_last, grows[tile], 0)
    # Which of its tile's queries an item serves; and the leading entries that all of them see.
    first = np.searchsorted(pair_end, token_start[tile] + begin, "right")
    last = np.searchsorted(pair_start, token_start[tile] + end, "left")
    item_lo = np.where(grow > 0, 0, _reduce_ranges(np.minimum, np.maximum(lo, 0), first, last))
    item_hi = np.where(grow > 0, grow, _reduce_ranges(np.maximum, hi, first, last))
    is_shared = (lo <= 0) & (hi >= tiles.size[tiles.tile]) & (length <= num_visible - lo)
    ragged = np.flatnonzero(~is_shared)
    stop = np.append(pair_start[ragged], pair_end[-1:])[np.searchsorted(ragged, first)]
    num_full = np.clip(stop - token_start[tile] - begin, 0, end - begin)

    items = _table(
        tile_start[tile] + begin, end - begin, grow, tiles.origin[tile], item_lo, item_hi,
        0, num_full,
    )  # fmt: skip
    lengths = items[:, 1]
    items = items[stable_order(lengths.max(initial=0) - lengths)]
    num_partials, offset, row = _place_partials(items, num_queries)
    return WorkList(
        items,
        copies,
        int(room.sum()),
        num_partials,
        offset.astype(np.int32),
        row.astype(np.int32),
        int(tokens.sum()),
    )


def aligned(count: Any) -> Any:
    """`count`, an integer or an array of them, rounded up to a multiple of `ALIGNMENT`."""
    return -(-count // ALIGNMENT) * ALIGNMENT


def check_seen(segments: Segments, num_queries: int) -> None:
    """Refuse queries that no segment is for.

    Raises:
        ValueError: there is no query, or one sees no entry.
    """
    if not num_queries:
        raise ValueError("no node has a query")
    opened = np.bincount(segments.lo, minlength=num_queries)[:num_queries]
    closed = np.bincount(segments.hi, minlength=num_queries)[:num_queries]
    num_seen = np.cumsum(opened - closed)
    if num_seen.min(initial=1) < 1:
        query = int(num_seen.argmin())
        raise ValueError(f"query {query} in depth-first order sees no KV entry")


def _place_partials(items: np.ndarray, num_queries: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Fill in each item's `partial`; returns the number of partial rows, and which are whose."""
    rows = items[:, 5] - items[:, 4]
    if rows.sum() == num_queries:  # one item each: nothing to merge
        items[:, 6] = -1
        return 0, np.zeros(num_queries + 1, dtype=np.int32), np.empty(0, dtype=np.int32)
    item, within = _repeat(rows)
    query = items[item, 3] + items[item, 4] + within
    has_siblings = np.zeros(len(items), dtype=bool)
    has_siblings[item[np.bincount(query)[query] > 1]] = True
    rows = np.where(has_siblings, rows, 0)
    base = np.cumsum(rows) - rows
    items[:, 6] = np.where(has_siblings, base, -1)
    kept = has_siblings[item]
    query, partial = query[kept], (base[item] + within)[kept]
    ends = np.cumsum(np.bincount(query, minlength=num_queries))
    return int(rows.sum()), np.append(0, ends), partial[stable_order(query)]


def _growth_copies(tiles: Tiles, start: np.ndarray, growth: Growth) -> np.ndarray:
    """Entries to come, laid out by step and within one by query, so that growing is a length."""
    tile, within = _repeat(tiles.size)
    query = tiles.origin[tile] + within
    return _table(
        growth.source[query], start[tile] + within, growth.steps, within, within + 1, growth.steps,
        tiles.size[tile], growth.position[query],
    )  # fmt: skip


def _repeat(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index i `counts[i]` times over, and the running number within each."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - (np.cumsum(counts) - counts)[index]


def _table(*columns: np.ndarray | int) -> np.ndarray:
    rows = max(len(column) for column in columns if not isinstance(column, int))
    table = np.empty((rows, len(columns)), dtype=np.int32)
    for i, column in enumerate(columns):
        table[:, i] = column
    return table


def _reduce_ranges(
    ufunc: np.ufunc, values: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """ufunc over values[first:last] of each range; a range that is empty gives anything."""
    if not len(values):
        return np.zeros(len(first), dtype=values.dtype)
    ends = np.stack([first, last], axis=1).ravel()
    return ufunc.reduceat(np.append(values, values[-1]), ends)[::2]
