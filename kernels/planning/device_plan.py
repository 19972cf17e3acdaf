"""The work list of `deft`, made on the device by a fixed number of operations.

The NumPy planner (`segments.py`, `cost_model.py`, `work_list.py`) is the reference: of one forest
both make the same list. Here arrays are as long as a capacity allows and not as a forest needs, so
that one CUDA graph plans any forest and nothing waits for the device. What a forest does not need
sorts last. The very last pair, tile and item are never used: look-ups beyond the others end there.
(DeFT, arXiv 2404.00242 section 3.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from .attention_spec import AttentionSpec
from .cost_model import CostModel
from .device_forest import DeviceForest, Nodes
from .forest import Forest
from .gpu_profile import GpuProfile
from .work_list import ALIGNMENT, Capacity, check_growing

Tensor = torch.Tensor

# What a forest needs, in the order in which it is computed: a number is right if those before it
# are within the capacity. `unseen` is 0, or Q - q if query q of a capacity of Q sees nothing.
STATUS = ("unseen", "copies", "entries", "items", "partials")


def refuse(status: list[int], capacity: Capacity) -> None:
    """Raise what the status of a plan says is wrong, if anything.

    Args:
        status: the numbers named by `STATUS`.
        capacity: that of the plan.

    Raises:
        ValueError: a query sees nothing.
        CapacityExceeded: the forest needs more than the capacity.
    """
    unseen, *needed = status
    if unseen:
        query = capacity.queries - unseen
        raise ValueError(f"query {query} in depth-first order sees no KV entry")
    capacity.check(**dict(zip(STATUS[1:], needed, strict=True)))


class DeviceWork(NamedTuple):
    """A `WorkList` in int64 tensors of the capacity's sizes.

    It has no items and no copies if the forest exceeds the capacity or a query sees nothing.
    """

    num_items: Tensor  # [1]
    num_copies: Tensor  # [1]
    items: Tensor  # [items, ITEM_FIELDS]
    copies: Tensor  # [copies, COPY_FIELDS]
    reduce_offset: Tensor  # [queries + 1]
    reduce_row: Tensor  # [partials]
    row: Tensor  # [queries] row of each query in depth-first order
    position: Tensor  # [queries] its position in its path
    status: Tensor  # [len(STATUS)]


class _Tiles(NamedTuple):
    """Columns, [tiles] int64 each. Some tiles have no query; the last tile never has one."""

    origin: Tensor  # the tile's first query
    size: Tensor  # its number of queries
    tokens: Tensor  # its number of entries
    num_full: Tensor  # how many of its first entries all of its queries see
    begin: Tensor  # where it begins among the entries of all tiles, counted without padding
    start: Tensor  # where it begins among the flattened entries
    part: Tensor  # entries of one of its items
    last_begin: Tensor  # where its last item begins, and the others have ended
    first_item: Tensor  # the number of its first item


class DevicePlanner:
    """Plans forests within a capacity.

    Args:
        spec: the attention.
        gpu: where it runs.
        rows: of a tile.
        steps: for which every query's path may grow; 0 for none.
        capacity: sizes of all that is made.
        device: where to plan.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        gpu: GpuProfile,
        rows: int,
        steps: int,
        capacity: Capacity,
        device: torch.device,
    ) -> None:
        self.steps, self.capacity = steps, capacity
        self.forest = DeviceForest(capacity.nodes, capacity.queries, device)
        self.half = -(-steps // 2)  # entries that grow on a path, on average
        self.width = spec.tile_width(rows)
        self.cost = CostModel(
            spec, gpu, rows, torch, lambda array: torch.from_numpy(array).to(device)
        )
        longest = max(
            capacity.nodes, capacity.queries, capacity.copies, capacity.items, capacity.partials
        )
        self._count = torch.arange(longest + 3).to(device)
        self._count_32 = self._count.int()
        self._ones, self._zeros = torch.ones_like(self._count), torch.zeros_like(self._count)
        self._widths = torch.tensor([[1], [self.width]]).to(device)
        self._up = self._widths - 1
        self._apart = torch.tensor([False]).to(device)
        limits = [0, *(getattr(capacity, name) for name in STATUS[1:])]
        self._limits = torch.tensor(limits).to(device)

    def pack(self, forest: Forest, columns: np.ndarray) -> int:
        """Write a forest into an array that `plan` takes.

        Args:
            forest: to plan.
            columns: [len(FIELDS), nodes + 1] int32 (`DeviceForest.pack`).

        Returns:
            The number of its queries.

        Raises:
            CapacityExceeded: the forest has more nodes or queries than the capacity.
            ValueError: it has no query, or a node of several queries where paths are to grow.
        """
        num_queries = int(forest.num_queries.sum())
        self.capacity.check(nodes=len(forest.parent), queries=num_queries)
        if not num_queries:
            raise ValueError("no node has a query")
        if self.steps:
            check_growing(forest.num_queries)
        self.forest.pack(forest, columns)
        return num_queries

    def plan(self, columns: Tensor) -> DeviceWork:
        """The work list of a forest, from the columns of `pack` on the device.

        Device work only; no operation's size depends on a value.
        """
        room = self.capacity
        nodes = self.forest.depth_first(columns)
        row, position, source, unseen = self.forest.queries(nodes)
        width, node, tile, num_pairs = self._pairs(nodes)
        tiles, copies, *runs = self._runs(nodes, width, node, tile)
        columns_of_items = self._items(tiles, copies, *runs)
        items, offset, reduce_row, num_partials = self._partials(*columns_of_items)
        num_copies = num_pairs
        if self.steps:
            grown = self._growth_copies(tiles, width, source, position)
            number = self._count[: room.copies]
            beyond = (number - num_pairs + len(copies)).clamp(max=len(copies) + room.queries - 1)
            number = torch.where(number < num_pairs, number, beyond)
            copies = torch.cat([copies, grown]).index_select(0, number)
            num_copies = num_pairs + nodes[0, -1:]
        num_entries, num_items = tiles.start[-1:], tiles.first_item[-1:]
        status = torch.cat([unseen, num_copies, num_entries, num_items, num_partials])
        is_possible = (status <= self._limits).all()
        kept = status * is_possible
        offset = offset * is_possible
        copies = copies[: room.copies]
        return DeviceWork(
            kept[3:4], kept[1:2], items, copies, offset, reduce_row, row, position, status
        )

    def _pairs(self, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Find which nodes each tile reads.

        Returns:
            [1] the width of a tile; [copies + 1] node and tile of each pair, by tile and then depth
            first; [1] the number of pairs.
        """
        lo, _, hi, _, length, *_ = nodes
        stop = (hi + self._up) // self._widths
        spanned = (stop - lo // self._widths) * (length > 0)
        reads = (spanned * length).sum(1)
        is_single = self.cost.are_reads_alike(reads) & self.cost.are_few(lo[-1:])
        width = torch.where(is_single, self._widths[0], self._widths[1])
        ends = torch.cumsum(torch.where(is_single, spanned[0], spanned[1]), 0)
        first = torch.where(is_single, stop[0], stop[1]) - ends
        number = self._count[: self.capacity.copies + 1]
        node = torch.searchsorted(ends[:-1], number, right=True)
        tile = (first.index_select(0, node) + number).clamp(max=self.capacity.queries)
        tile, by_tile = torch.sort(tile.int(), stable=True)
        return width, node.index_select(0, by_tile), tile, ends[-1:]

    def _runs(
        self, nodes: Tensor, width: Tensor, node: Tensor, tile: Tensor
    ) -> tuple[_Tiles, Tensor, Tensor, Tensor]:
        """Lay out the entries that each tile reads, one pair's run after the other.

        Returns:
            The tiles; the pairs' copies; where the run of each pair ends among the entries of all
            tiles; in which item it begins.
        """
        nodes_of_pairs = nodes.index_select(1, node)
        own = Nodes(*nodes_of_pairs)
        number = self._count_32[: self.capacity.queries + 2]
        origin = number[:-1] * width
        size = torch.minimum((nodes[0, -1:] - origin).clamp(min=0), width)
        lo, own_hi, hi = nodes_of_pairs[:3] - tile * width
        hi = torch.minimum(hi, width)
        own_hi_here = torch.minimum(own_hi, hi)
        length = own.length - (own_hi - own_hi_here)  # the rest is for the node's later queries
        # In a tile, the runs that all of its queries see to the end come first. Of a node's own
        # queries each sees an entry more than the one before.
        is_full = (lo <= 0) & (own_hi_here <= 1) & (hi >= size.index_select(0, tile))
        sums = torch.cumsum(torch.stack([own.length, length, length * is_full]), 1)
        sums = torch.cat([self._zeros[:3, None], sums], 1)
        bounds = sums.index_select(1, torch.searchsorted(tile, number))
        tiles = self._tiles(nodes, origin, size, bounds)
        of = _Tiles(*torch.stack(tiles).index_select(1, tile))
        within = sums[1, :-1] - of.begin
        in_last = of.last_begin + of.part - 1
        item = of.first_item + torch.where(within < of.last_begin, within, in_last) // of.part
        item = item.clamp(max=self.capacity.items)
        visible = own.length - (own_hi - lo - 1).clamp(min=0)
        copies = torch.stack([
            own.start, of.start + within, length, lo, hi, visible, self._ones[: len(lo)],
            own.end - own.length,
        ], 1)  # fmt: skip
        return tiles, copies, sums[1, 1:], item

    def _tiles(self, nodes: Tensor, origin: Tensor, size: Tensor, bounds: Tensor) -> _Tiles:
        """Split what each tile reads into items.

        Args:
            nodes: of the forest.
            origin: the tiles' first queries.
            size: their numbers of queries.
            bounds: [3, tiles + 1] sums before each tile: the entries of its pairs' segments, of
                their runs, and of the runs that all of the tile's queries see.
        """
        whole, tokens, num_full = bounds[:, 1:] - bounds[:, :-1]
        room = expected = tokens
        if self.steps:
            room = tokens + size * self.steps
            ahead = size * self.half
            whole, expected = whole + ahead, tokens + ahead
        chunk = self._item_length(nodes, whole, size)
        # a // b rounds down, and -(-a // b) up.
        room = -room // ALIGNMENT * -ALIGNMENT
        least = (-expected).clamp(max=-1)
        num_parts = -(least // chunk)
        part = least // (num_parts * ALIGNMENT) * -ALIGNMENT
        last_begin = torch.minimum((num_parts - 1) * part, tokens // ALIGNMENT * ALIGNMENT)
        num_items = (1 - -last_begin // part) * size.clamp(max=1)
        first_item = torch.cumsum(num_items, 0) - num_items
        start = torch.cumsum(room, 0) - room
        begin = bounds[1, :-1]
        return _Tiles(origin, size, tokens, num_full, begin, start, part, last_begin, first_item)

    def _item_length(self, nodes: Tensor, tokens: Tensor, size: Tensor) -> Tensor:
        """[1] entries of an item, as by `cost_model.best_item_length`.

        `tokens` are those of the tiles' segments, and half of what grows.
        """
        unique = nodes[4].sum() + nodes[0, -1:] * self.half
        length, seconds = self.cost.item_lengths(tokens, size, unique)
        best: Tensor = length.index_select(0, seconds.argmin(0, keepdim=True))
        return (best * ALIGNMENT).long()

    def _items(
        self, tiles: _Tiles, copies: Tensor, run_end: Tensor, item_of_pair: Tensor
    ) -> tuple[Tensor, ...]:
        """The columns of the items, tile by tile, all except `partial`."""
        number = self._count[: self.capacity.items + 1]
        tile = torch.searchsorted(tiles.first_item[1:], number, right=True)
        own = _Tiles(*torch.stack(tiles).index_select(1, tile))
        begin = torch.minimum((number - own.first_item) * own.part, own.last_begin)
        is_last = begin == own.last_begin
        end = torch.where(is_last, own.tokens, torch.minimum(begin + own.part, own.last_begin))
        length = end - begin
        first = torch.searchsorted(run_end[:-1], own.begin + begin, right=True)
        first = copies.index_select(0, first)
        # In a tile, `lo` rises from pair to pair; `hi` need not.
        lo = first[:, 3].clamp(min=0)
        hi = first[:, 4].scatter_reduce(0, item_of_pair, copies[:, 4], "amax")
        grow = self._zeros[: len(number)]
        if self.steps:
            grow = own.size * is_last
            lo, hi = lo * (grow == 0), torch.where(grow > 0, grow, hi)
        num_full = torch.minimum((own.num_full - begin).clamp(min=0), length)
        return own.start + begin, length, grow, own.origin, lo, hi, num_full

    def _partials(
        self, start: Tensor, length: Tensor, grow: Tensor, origin: Tensor, lo: Tensor, hi: Tensor,
        num_full: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """Number the partial rows, as by `work_list._place_partials`.

        Returns:
            The items, longest first; the reduction's offsets and rows; [1] the number of partial
            rows.
        """
        begin, end = origin + lo, origin + hi
        begin_from = torch.cummin(begin.flip(0), 0).values.flip(0) if self.steps else begin
        overlap = torch.cummax(end, 0).values[:-1] > begin_from[1:]  # of an item and the next
        is_merged = torch.cat([self._apart, overlap]) | torch.cat([overlap, self._apart])
        rows = (hi - lo) * is_merged
        ends = torch.cumsum(rows, 0)
        first = ends - rows
        partial = torch.where(is_merged, first, -1)
        number = self._count[: self.capacity.partials]
        item = torch.searchsorted(ends[:-1], number, right=True)
        query = (begin - first).index_select(0, item) + number
        query, by_query = torch.sort(query.int(), stable=True)
        offset = torch.searchsorted(query, self._count_32[: self.capacity.queries + 1])
        table = torch.stack([start, length, grow, origin, lo, hi, partial, num_full], 1)
        length = length + grow * self.half
        longest_first = torch.sort(length.int(), stable=True, descending=True).indices
        longest_first = longest_first[: self.capacity.items]
        return table.index_select(0, longest_first), offset, by_query, ends[-1:]

    def _growth_copies(
        self, tiles: _Tiles, width: Tensor, source: Tensor, position: Tensor
    ) -> Tensor:
        """[queries, COPY_FIELDS], as by `work_list._growth_copies`."""
        query = self._count[: len(source)]
        tile = query // width
        within = query - tile * width
        start, size = torch.stack([tiles.start + tiles.tokens, tiles.size]).index_select(1, tile)
        steps = self._ones[: len(source)] * self.steps
        return torch.stack([
            source, start + within, steps, within, within + 1, steps, size, position + 1,
        ], 1)  # fmt: skip
