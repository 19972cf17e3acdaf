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

    items: np.ndarray  # [I, ITEM_FIELDS], longest first, halfway through the steps
    copies: np.ndarray  # [C, COPY_FIELDS], runs of the slot table and where they go
    num_entries: int  # room that the flattened entries need
    reduce_offset: np.ndarray  # [B + 1] into reduce_row
    reduce_row: np.ndarray  # [R] the partial rows, query by query, in the order of the tile's run
    num_reads: int  # entries the items read

    @property
    def num_partials(self) -> int:
        return len(self.reduce_row)


class CapacityExceeded(ValueError):
    """A forest needs more than a plan can hold; a plan of a larger capacity can hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The most that a plan can hold; an update that needs more is refused."""

    nodes: int
    queries: int
    copies: int
    entries: int
    items: int
    partials: int

    @classmethod
    def of(cls, work: WorkList, num_queries: int, num_nodes: int) -> Capacity:
        return cls(
            nodes=num_nodes,
            queries=num_queries,
            copies=len(work.copies),
            entries=work.num_entries,
            items=len(work.items),
            partials=work.num_partials,
        )

    def times(self, factor: float) -> Capacity:
        """Each of the numbers times `factor`, and room for a few more."""
        names = self.__slots__
        return Capacity(**{name: int(getattr(self, name) * factor) + 16 for name in names})

    def union(self, other: Capacity) -> Capacity:
        """Room for what fits either."""
        names = self.__slots__
        return Capacity(**{name: max(getattr(self, name), getattr(other, name)) for name in names})

    def check(self, **needed: int) -> None:
        """Refuse what there is no room for.

        Raises:
            CapacityExceeded: one of the numbers, given by name, exceeds the capacity.
        """
        for name, wanted in needed.items():
            limit = getattr(self, name)
            if wanted > limit:
                raise CapacityExceeded(
                    f"the forest needs {wanted} {name}, the plan has room for {limit}"
                )


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

    # The last item of a tile grows: all are as long halfway through the steps to come, unless it
    # would be longer even with nothing else in it.
    half = -(-steps // 2)
    expected = tokens + grows * half
    num_parts = np.maximum(-(-expected // chunk), 1)
    even = np.maximum(aligned(-(-expected // num_parts)), ALIGNMENT)
    last_begin = np.minimum((num_parts - 1) * even, tokens // ALIGNMENT * ALIGNMENT)
    tile, part = _repeat((-(-last_begin // even) + 1) * (tokens > 0))
    begin = np.minimum(part * even[tile], last_begin[tile])
    is_last = begin == last_begin[tile]
    end = np.where(is_last, tokens[tile], np.minimum(begin + even[tile], last_begin[tile]))
    grow = np.where(is_last, grows[tile], 0)
    # Which of its tile's queries an item serves; and the leading entries that all of them see.
    first = np.searchsorted(pair_end, token_start[tile] + begin, "right")
    last = np.searchsorted(pair_start, token_start[tile] + end, "left")
    item_lo = np.where(grow > 0, 0, np.append(np.maximum(lo, 0), 0)[first])
    ranges = np.stack([first, last], axis=1).ravel()
    item_hi = np.maximum.reduceat(np.append(hi, 0), ranges)[::2]
    item_hi = np.where(grow > 0, grow, item_hi)
    is_shared = (lo <= 0) & (hi >= tiles.size[tiles.tile]) & (length <= num_visible - lo)
    ragged = np.flatnonzero(~is_shared)
    stop = np.append(pair_start[ragged], pair_end[-1:])[np.searchsorted(ragged, first)]
    num_full = np.clip(stop - token_start[tile] - begin, 0, end - begin)

    items = _table(
        tile_start[tile] + begin, end - begin, grow, tiles.origin[tile], item_lo, item_hi,
        0, num_full,
    )  # fmt: skip
    offset, row = _place_partials(items, num_queries)
    length = items[:, 1] + items[:, 2] * half
    longest_first = stable_order(length.max(initial=0) - length)
    return WorkList(
        items[longest_first],
        copies,
        int(room.sum()),
        offset.astype(np.int32),
        row.astype(np.int32),
        int(tokens.sum()),
    )


def aligned(count: Any) -> Any:
    """`count`, an integer or an array of them, rounded up to a multiple of `ALIGNMENT`."""
    return -(-count // ALIGNMENT) * ALIGNMENT


def check_growing(num_queries: np.ndarray) -> None:
    """Refuse nodes of several queries, which cannot each go on after the node's last entry.

    Raises:
        ValueError: there is one.
    """
    if num_queries.max() > 1:
        node = int(num_queries.argmax())
        raise ValueError(
            f"node {node} has {int(num_queries[node])} queries; one that grows has one"
        )


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


def _place_partials(items: np.ndarray, num_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Number the partial rows, item by item; fills in `partial`, returns the reduction's lists.

    An item has none if no other serves a query of it, that is, if from the items before it to it,
    and from it to those after it, no query is in common.
    """
    begin, end = items[:, 3] + items[:, 4], items[:, 3] + items[:, 5]
    begin_from = np.minimum.accumulate(begin[::-1])[::-1]
    is_apart = np.maximum.accumulate(end)[:-1] <= begin_from[1:]  # each item and the next
    is_alone = np.append(True, is_apart) & np.append(is_apart, True)
    rows = np.where(is_alone, 0, end - begin)
    items[:, 6] = np.where(is_alone, -1, np.cumsum(rows) - rows)
    item, within = _repeat(rows)
    query = begin[item] + within  # of each partial row
    ends = np.cumsum(np.bincount(query, minlength=num_queries))
    return np.append(0, ends), stable_order(query)


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
