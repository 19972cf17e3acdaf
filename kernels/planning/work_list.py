"""The work of tree attention, made from segments: items for the kernel, lists for the reduction.

The queries, in depth-first order, are cut into tiles. Each tile reads the segments it can see as
one flattened run of entries (DeFT-Flatten, arXiv 2404.00242 section 3.3, within a tile), and the
run is cut into items. So siblings, chains and small subtrees need no special case, and a query has
one partial result an item, not one a node. Vectorised over nodes: the cost of planning does not
grow with the number of tokens.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

from .forest import stable_order
from .segments import Segments

ITEM_FIELDS = 8  # start, length, growth, tile, lo, hi, partial, num_full
COPY_FIELDS = 8  # source, target, length, lo, hi, num_visible, stride, position
ALIGNMENT = 64  # items begin at multiples of it, and end there, except a tile's last

Count = TypeVar("Count", int, np.ndarray)


@dataclass(frozen=True, slots=True)
class Tiles:
    """The segments that each tile of queries reads: P pairs, by tile and then in depth-first order.

    Tile t serves the queries from `origin[t]` on, `width` of them or fewer.
    """

    width: int
    origin: np.ndarray  # [T] first query
    size: np.ndarray  # [T] number of queries
    tile: np.ndarray  # [P]
    segment: np.ndarray  # [P]


@dataclass(frozen=True, slots=True)
class Growth:
    """Entries that each query's path gains, one a step, while the plan stays as it is."""

    source: np.ndarray  # [B] where a query's next entries begin in the slot table
    position: np.ndarray  # [B] position of the first of them
    steps: int  # the most entries that a path may gain


@dataclass(frozen=True, slots=True)
class WorkList:
    """What one launch of tree attention does. All arrays are int32.

    An item is `length + growth * step` flattened entries from `start` on, for the queries `lo` to
    `hi` of the tile that begins at query `tile`. All queries of the tile see the first `num_full`
    entries. The results go to the partial rows from `partial` on, or straight to the output if
    `partial` is -1.

    A copy lays `length` entries of the slot table, from `source` on, out at `target` and every
    `stride` entries after it. Query `lo + t` of the tile sees the first `num_visible + t` of them,
    up to query `hi`. `position` is that of the first entry in its path.
    """

    items: np.ndarray  # [I, ITEM_FIELDS], longest first as they are halfway through the steps
    copies: np.ndarray  # [C, COPY_FIELDS]
    num_entries: int  # flattened entries, those still to come and padding included
    reduce_offset: np.ndarray  # [B + 1] into reduce_row
    reduce_row: np.ndarray  # [R] the partial rows, query by query, in the order of the tile's run
    num_reads: int  # entries that all items read

    @property
    def num_partials(self) -> int:
        """R, the number of partial rows."""
        return len(self.reduce_row)


class CapacityExceeded(ValueError):
    """A forest needs more than the capacity of a plan; a plan of a larger capacity can hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The most that a plan can hold; an update that needs more is refused."""

    nodes: int
    queries: int
    copies: int
    entries: int  # flattened
    items: int
    partials: int  # partial rows

    @classmethod
    def of(cls, work: WorkList, num_queries: int, num_nodes: int) -> Capacity:
        """The capacity that a work list of a forest needs."""
        return cls(
            nodes=num_nodes,
            queries=num_queries,
            copies=len(work.copies),
            entries=work.num_entries,
            items=len(work.items),
            partials=work.num_partials,
        )

    def times(self, factor: float) -> Capacity:
        """Each of the numbers times `factor`, rounded down, and 16 more."""
        return Capacity(**{name: int(value * factor) + 16 for name, value in asdict(self).items()})

    def union(self, other: Capacity) -> Capacity:
        """The least capacity that holds what fits either."""
        both = asdict(other)
        return Capacity(**{name: max(value, both[name]) for name, value in asdict(self).items()})

    def check(self, **needed: int) -> None:
        """Refuse what the capacity does not hold.

        Args:
            **needed: by the names of the capacity's fields.

        Raises:
            CapacityExceeded: one of the numbers exceeds the capacity.
        """
        for name, wanted in needed.items():
            limit = getattr(self, name)
            if wanted > limit:
                raise CapacityExceeded(
                    f"the forest needs {wanted} {name}, the plan has room for {limit}"
                )


def tiles_by_width(segments: Segments, num_queries: int, width: int) -> Tiles:
    """Cut the queries into tiles of `width`, wherever nodes begin and end."""
    index, step = _repeat((segments.hi - 1) // width - segments.lo // width + 1)
    tile = segments.lo[index] // width + step
    by_tile = stable_order(tile)
    origin = np.arange(0, num_queries, width)
    size = np.minimum(width, num_queries - origin)
    return Tiles(width, origin, size, tile[by_tile], index[by_tile])


def tiles_by_segment(segments: Segments, width: int) -> Tiles:
    """Make tiles of one segment each (DeFT-Node, arXiv 2404.00242 section 3.3)."""
    index, step = _repeat(-(-(segments.hi - segments.lo) // width))
    origin = segments.lo[index] + step * width
    size = np.minimum(width, segments.hi[index] - origin)
    return Tiles(width, origin, size, np.arange(len(index)), index)


def build_work_list(
    segments: Segments, num_queries: int, tiles: Tiles, most: int, growth: Growth | None = None
) -> WorkList:
    """Cut every tile's run into items of about equal length.

    Args:
        segments: those of the forest; every query must see an entry (`check_seen`).
        num_queries: B, of the forest.
        tiles: which segments each tile reads.
        most: entries of an item; only an item that is to grow may get longer.
        growth: by which every path is to grow.
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

    # The last item of a tile grows. Items are cut so that all of a tile's are equally long halfway
    # through the steps, unless what grows is longer by itself.
    half = -(-steps // 2)
    expected = tokens + grows * half
    num_parts = np.maximum(-(-expected // most), 1)
    even = np.maximum(aligned(-(-expected // num_parts)), ALIGNMENT)
    last_begin = np.minimum((num_parts - 1) * even, tokens // ALIGNMENT * ALIGNMENT)
    tile, part = _repeat((-(-last_begin // even) + 1) * (tokens > 0))
    begin = np.minimum(part * even[tile], last_begin[tile])
    is_last = begin == last_begin[tile]
    end = np.where(is_last, tokens[tile], np.minimum(begin + even[tile], last_begin[tile]))
    grow = np.where(is_last, grows[tile], 0)
    # The queries of its tile that an item serves, and the leading entries that all of them see.
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


def aligned(count: Count) -> Count:
    """`count`, an integer or an array of integers, rounded up to a multiple of `ALIGNMENT`."""
    return -(-count // ALIGNMENT) * ALIGNMENT


def check_growing(num_queries: np.ndarray) -> None:
    """Refuse nodes of several queries where paths are to grow.

    The queries of a node would all have to go on after its last entry.

    Args:
        num_queries: [N] of each node.

    Raises:
        ValueError: a node has several queries.
    """
    if num_queries.max() > 1:
        node = int(num_queries.argmax())
        raise ValueError(
            f"node {node} has {int(num_queries[node])} queries; one that grows has one"
        )


def check_seen(segments: Segments, num_queries: int) -> None:
    """Refuse queries that see no segment.

    Args:
        segments: those of the forest.
        num_queries: B, of the forest.

    Raises:
        ValueError: there is no query, or a query sees no entry.
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
    """Number the partial rows, item by item.

    An item has none if no other item serves one of its queries: the items before it have no query
    in common with it, and those after it have none.

    Args:
        items: [I, ITEM_FIELDS], tile by tile; the field `partial` is filled in.
        num_queries: B, of the forest.

    Returns:
        The reduction's lists, `reduce_offset` and `reduce_row`.
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
    """Lay out the entries to come, by step and within a step by query.

    So an item grows by being read to a greater length.
    """
    tile, within = _repeat(tiles.size)
    query = tiles.origin[tile] + within
    return _table(
        growth.source[query], start[tile] + within, growth.steps, within, within + 1, growth.steps,
        tiles.size[tile], growth.position[query],
    )  # fmt: skip


def _repeat(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each index i, `counts[i]` times; and a running number from 0 within each."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - (np.cumsum(counts) - counts)[index]


def _table(*columns: np.ndarray | int) -> np.ndarray:
    """[rows, columns] int32; an integer stands for a column of it."""
    rows = max(len(column) for column in columns if not isinstance(column, int))
    table = np.empty((rows, len(columns)), dtype=np.int32)
    for i, column in enumerate(columns):
        table[:, i] = column
    return table
