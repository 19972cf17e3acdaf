"""A plan of tree attention in device memory, shared by all layers.

Plan once for a shape of the forest, run in every layer. A plan of fixed capacity lies at fixed
addresses, so one CUDA graph serves while the tree changes underneath (`update`) and while its
leaves grow (`step`). Nothing here waits for the device but `check`. Knows no model; the work is cut
by `variants.py`, or on the device by `device_plan.py`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch
import triton

from treeshare.kernels.attention.triton_kernels import expand_kernel
from treeshare.kernels.cuda_graph import captured

from .device_forest import FIELDS
from .device_plan import STATUS, DevicePlanner, refuse
from .forest import Forest
from .heads import Heads
from .segments import Segments
from .variants import GROWING, NARROW, VARIANTS, Shape, ample, cut, num_rows
from .work_list import (
    COPY_FIELDS,
    ITEM_FIELDS,
    Capacity,
    CapacityExceeded,
    Growth,
    WorkList,
    check_growing,
)

__all__ = ["Capacity", "CapacityExceeded", "Heads", "TreePlan", "ample_capacity", "needed_capacity"]

_LANES = 8  # programs that share a long copy
_TAIL = 256  # entries that a block may read beyond the last item


class TreePlan:
    """The work of one forest, shared by all layers.

    Row r of the queries belongs to node `np.repeat(np.arange(N), forest.num_queries)[r]`, that is,
    queries lie node by node as the forest numbers them; depth-first order stays inside.

    Args:
        forest: its shape; `start` points into `table`.
        table: [entries] int32 on the device, the pool slot of each KV entry.
        heads: the attention.
        variant: a name of `variants.VARIANTS`.
        growth: steps for which every query's path may grow by one entry a step, without a new
            plan. A path's next entries follow its last one in `table`; nodes may then have one
            query at most. `step`, on the device, says how many of them are there, `growth` at most;
            `advance` adds one.
        capacity: room for later updates; None takes just what this forest needs. With a capacity,
            `deft` is planned on the device from the first update on, and its tiles are of one
            height whatever the forest: `needed_capacity` says what a forest then needs.

    After each update `num_queries` is the forest's number of queries, and `status` says, on the
    device, what a plan made there needs (see `check`).

    Every slot that is named, also of entries still to come, must hold finite numbers: what a
    query does not see is read and then weighted with zero.

    Raises:
        ValueError: an unknown variant or one that cannot grow and is to, a query that sees nothing,
            or a node of several queries that is to grow.
        CapacityExceeded: the forest needs more than the capacity.
    """

    _work: WorkList | None
    _planner: DevicePlanner | None = None

    def __init__(
        self,
        forest: Forest,
        table: torch.Tensor,
        heads: Heads,
        variant: str = "deft",
        *,
        growth: int = 0,
        capacity: Capacity | None = None,
    ) -> None:
        self._begin(_lay_out(forest, growth), table, heads, variant, capacity)
        if variant == "deft" and capacity is not None:
            device = table.device
            self._planner = DevicePlanner(self.shape, self.rows, growth, capacity, device)
            size = (len(FIELDS), capacity.nodes + 1)
            self._columns = torch.zeros(size, dtype=torch.int32, device=device)
            self._filler = torch.zeros(3, dtype=torch.int64, device=device)
            self._upload(forest)
            self._replan = captured(self._plan_on_device, device)

    @classmethod
    def of_segments(
        cls,
        segments: Segments,
        query_positions: np.ndarray,
        table: torch.Tensor,
        heads: Heads,
        variant: str = "deft",
    ) -> TreePlan:
        """A plan whose queries lie in depth-first order already; [B] positions in their paths."""
        rows = np.arange(len(query_positions))
        layout = _Layout(segments, len(segments.length), rows, query_positions, None)
        plan = cls.__new__(cls)
        plan._begin(layout, table, heads, variant, None)
        return plan

    def update(self, forest: Forest) -> None:
        """Plan another forest into the same memory; sets `step` to 0. (`tree_mask` makes a new
        mask, so a graph that was captured before keeps the old one.)

        Raises:
            ValueError: as in the constructor; the plan is unchanged then. What only the device
                finds out, `check` raises; the plan is empty then, and attention writes nothing.
        """
        if self._planner is not None:
            self.num_queries = self._upload(forest)
            self._work = None
            self._replan()
        else:
            layout = _lay_out(forest, self.growth)
            self._load(self._cut(layout), layout)

    @property
    def work(self) -> WorkList:
        """The host's side of the plan.

        Raises:
            ValueError: the plan was made on the device.
        """
        if self._work is None:
            raise ValueError("the last update was planned on the device; `status` has its sizes")
        return self._work

    def check(self, status: torch.Tensor | None = None) -> None:
        """Refuse a forest that `update` could not.

        Args:
            status: a copy of `self.status` on the host. Without one this waits for the device.

        Raises:
            ValueError: a query sees nothing.
            CapacityExceeded: the forest needs more than the capacity.
        """
        refuse((self.status if status is None else status).tolist(), self.capacity)

    def advance(self) -> None:
        """Every path has one entry more. Device work only."""
        self.step.add_(1)
        self._settle()

    def next_slots(self) -> torch.Tensor:
        """[B] int64 slots of the entries that step `step`, from 1 on, adds, by query row; -1 for
        rows of the capacity that no query has. Device work only."""
        entry = (self._tail + self.step - 1).clamp_(min=0)
        return torch.where(self._tail < 0, -1, self._table[entry]).long()

    def _begin(
        self,
        layout: _Layout,
        table: torch.Tensor,
        heads: Heads,
        variant: str,
        capacity: Capacity | None,
    ) -> None:
        rows, growth = layout.rows, layout.growth
        _check_variant(variant, growth is not None)
        device = table.device
        self.heads, self.variant = heads, variant
        self.growth = 0 if growth is None else growth.steps
        self.shape = _shape(heads, device)
        # A plan with a capacity is for forests yet unknown.
        known = layout.segments if capacity is None else None
        self.rows = _tile_rows(variant, heads.dtype, self.shape, known)
        work = self._cut(layout)
        self.capacity = room = capacity or Capacity.of(work, len(rows), layout.num_nodes)
        # Rows in depth-first order already need no look-up; a plan for updates cannot know.
        self.is_ordered = capacity is None and bool((rows == np.arange(len(rows))).all())
        # Items that read an entry, on average; of forests to come nothing is known.
        tokens = max(int(layout.segments.length.sum()), 1)
        self.reuse = work.num_reads / tokens if capacity is None else 0.0
        self._table = table
        sizes = {
            "num_items": 1,
            "num_copies": 1,
            "items": room.items * ITEM_FIELDS,
            "copies": room.copies * COPY_FIELDS,
            "reduce_offset": room.queries + 1,
            "reduce_row": room.partials,
            "row": room.queries,
            "position": room.queries,
            "tail": room.queries if self.growth else 0,
            "status": len(STATUS),
        }
        self._sizes = {name: -(-size // 4) * 4 for name, size in sizes.items()}
        self._buffer = torch.zeros(sum(self._sizes.values()), dtype=torch.int32, device=device)
        parts = torch.split(self._buffer, list(self._sizes.values()))
        self._part = dict(zip(self._sizes, parts, strict=True))
        self._tail = self._part["tail"][: room.queries]
        self.status = self._part["status"][: len(STATUS)]
        self.step = torch.zeros(1, dtype=torch.int32, device=device)
        self._settled = torch.zeros(1, dtype=torch.int32, device=device)
        # Entries that no copy has written yet are read and not used; let them name a real slot.
        self._slot = table[:1].expand(room.entries + _TAIL).contiguous()
        self._bound, self._position = torch.zeros_like(self._slot), torch.zeros_like(self._slot)
        partial_shape = (max(room.partials, 1), heads.num_heads, heads.dv)
        self._partial = torch.empty(partial_shape, dtype=heads.dtype, device=device)
        self._lse = torch.empty(partial_shape[:2], dtype=torch.float32, device=device)
        self._mask: torch.Tensor | None = None
        self._load(work, layout)

    def _cut(self, layout: _Layout) -> WorkList:
        segments, num_queries = layout.segments, len(layout.rows)
        return cut(self.variant, segments, num_queries, self.shape, self.rows, layout.growth)

    def _load(self, work: WorkList, layout: _Layout) -> None:
        segments, num_nodes, rows, positions, growth = layout
        if self.is_ordered and (rows != np.arange(len(rows))).any():
            raise ValueError(
                "the plan was made for queries in depth-first order; give it a capacity to update "
                "it with another order"
            )
        self.capacity.check(**asdict(Capacity.of(work, len(rows), num_nodes)))
        self._work = work
        self.num_queries = len(rows)
        # Each plan takes pinned memory of its own: the allocator reuses it when the copy is done.
        host = torch.empty(len(self._buffer), dtype=torch.int32, pin_memory=self._buffer.is_cuda)
        offsets = work.reduce_offset
        if len(rows) < self.capacity.queries:  # rows beyond the last have nothing to merge
            extra = np.full(self.capacity.queries - len(rows), offsets[-1])
            offsets = np.concatenate([offsets, extra])
        content = {
            "num_items": np.array([len(work.items)]),
            "num_copies": np.array([len(work.copies)]),
            "items": work.items.ravel(),
            "copies": work.copies.ravel(),
            "reduce_offset": offsets,
            "reduce_row": work.reduce_row,
            "row": rows,
            "position": positions,
            "status": np.zeros(len(STATUS)),
        }
        if growth is not None:
            tail = np.full(self.capacity.queries, -1)
            tail[rows] = growth.source
            content["tail"] = tail
        flat, at = host.numpy(), 0
        for name, size in self._sizes.items():
            values = content.get(name, ())
            flat[at : at + len(values)] = values
            at += size
        self._buffer.copy_(host, non_blocking=True)
        if self.variant == "tree_mask":
            self._mask = torch.from_numpy(segments.mask(len(rows))).to(self._buffer.device)
        self._expand()

    def _upload(self, forest: Forest) -> int:
        """Send a forest to the device; returns the number of its queries."""
        assert self._planner is not None
        shape = self._columns.shape
        host = torch.empty(shape, dtype=torch.int32, pin_memory=self._columns.is_cuda)
        num_queries = self._planner.pack(forest, host.numpy())
        self._columns.copy_(host, non_blocking=True)
        return num_queries

    def _plan_on_device(self) -> None:
        assert self._planner is not None
        work = self._planner.plan(self._columns)
        pieces = []
        for name, size in self._sizes.items():
            values = getattr(work, name).flatten()
            pieces += [values, self._filler[: size - len(values)]]
        self._buffer.copy_(torch.cat(pieces))
        self._expand()

    def _expand(self) -> None:
        """Lay out the entries that the copies name, for step 0."""
        self.step.zero_()
        if self.capacity.copies:
            expand_kernel[(self.capacity.copies, _LANES)](
                self._part["num_copies"], self._part["copies"], self._table, self._slot,
                self._bound, self._position, POSITIONS=True, BLOCK=256,
            )  # fmt: skip
        self._settle()

    def _settle(self) -> None:
        """Attention reads the plan before it waits for the kernel ahead, and so may be launched
        early behind this one only, which began when all that changed the plan had ended."""
        self._settled.zero_()


def needed_capacity(
    forest: Forest,
    heads: Heads,
    variant: str = "deft",
    *,
    growth: int = 0,
    device: torch.device | str,
) -> Capacity:
    """What a plan that has a capacity needs to hold this forest. Works on the host alone.

    A plan without a capacity may need less, since it chooses the height of its tiles by the forest.

    Args:
        device: where the plan would lie; the number of its multiprocessors counts.

    Raises:
        ValueError: as of `TreePlan`.
    """
    layout = _lay_out(forest, growth)
    _check_variant(variant, growth > 0)
    shape = _shape(heads, torch.device(device))
    rows = _tile_rows(variant, heads.dtype, shape, None)
    work = cut(variant, layout.segments, len(layout.rows), shape, rows, layout.growth)
    return Capacity.of(work, len(layout.rows), layout.num_nodes)


def ample_capacity(
    num_queries: int,
    num_entries: int,
    heads: Heads,
    variant: str = "deft",
    *,
    device: torch.device | str,
) -> Capacity:
    """Room for about any forest of so many queries over a table of so many entries
    (`variants.ample`)."""
    shape = _shape(heads, torch.device(device))
    return ample(num_queries, num_entries, shape, _tile_rows(variant, heads.dtype, shape, None))


def _check_variant(variant: str, is_to_grow: bool) -> None:
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r} is not one of {', '.join(VARIANTS)}")
    if is_to_grow and variant not in GROWING:
        raise ValueError(f"variant={variant!r} cannot grow; {', '.join(GROWING)} can")


def _shape(heads: Heads, device: torch.device) -> Shape:
    num_sms = 132
    if device.type == "cuda":
        num_sms = torch.cuda.get_device_properties(device).multi_processor_count
    mean_width = (heads.head_dim + heads.dv) // 2
    return Shape(heads.num_heads, heads.num_kv_heads, mean_width, heads.dtype.itemsize, num_sms)


def _tile_rows(variant: str, dtype: torch.dtype, shape: Shape, known: Segments | None) -> int:
    """Rows of a tile; `known` are the segments of the only forest that a plan is for."""
    if dtype == torch.float32:  # registers hold no more
        group: int = triton.next_power_of_2(shape.group)
        return max(NARROW, group)
    return num_rows(variant, known, shape)


class _Layout(NamedTuple):
    """A forest's segments; and of each query in depth-first order its row, position and growth."""

    segments: Segments
    num_nodes: int
    rows: np.ndarray  # [B]
    positions: np.ndarray  # [B]
    growth: Growth | None


def _lay_out(forest: Forest, steps: int) -> _Layout:
    segments, rows, positions = Segments.of_forest(forest)
    if not steps:
        return _Layout(segments, len(forest.parent), rows, positions, None)
    check_growing(forest.num_queries)
    node = np.flatnonzero(forest.num_queries)[rows]
    growth = Growth((forest.start + forest.length)[node], positions + 1, steps)
    return _Layout(segments, len(forest.parent), rows, positions, growth)
