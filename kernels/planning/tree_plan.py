"""A plan of tree attention in device memory, shared by all layers.

Plan once for a forest, run in every layer. A plan of fixed capacity lies at fixed addresses, so one
CUDA graph serves while the tree changes (`update`) and while its leaves grow (`step`). Nothing here
waits for the device except `check`. The work is cut on the host by `variants.py`, or on the device
by `device_plan.py`.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import torch

from treeshare.kernels.launch import captured

from .attention_spec import AttentionSpec
from .cost_model import estimate_capacity
from .device_forest import FIELDS
from .device_plan import STATUS, DevicePlanner, refuse
from .forest import Forest
from .gpu_profile import GpuProfile, gpu_profile
from .plan_buffers import PlanBuffers
from .segments import Segments
from .variants import check_variant, tile_and_split, tile_rows
from .work_list import Capacity, CapacityExceeded, Growth, WorkList, check_growing

__all__ = [
    "AttentionSpec",
    "Capacity",
    "CapacityExceeded",
    "TreePlan",
    "ample_capacity",
    "needed_capacity",
]


class TreePlan:
    """The work of one forest, shared by all layers.

    Row r of the queries belongs to node `np.repeat(np.arange(N), forest.num_queries)[r]`: queries
    lie node by node as the forest numbers them. Depth-first order stays inside the plan.

    Every slot that is named, also of entries still to come, must hold finite numbers: what a
    query does not see is read and then weighted with zero.

    Args:
        forest: its shape; `start` points into `table`.
        table: [entries] int32 on the device, the pool slot of each KV entry.
        spec: the attention.
        variant: a name of `variants.VARIANTS`.
        growth: steps for which every query's path may grow by one entry a step, without a new
            plan. A path's next entries follow its last one in `table`; nodes may then have one
            query at most. `step`, on the device, says how many of them are there, `growth` at most;
            `advance` adds one.
        capacity: the most that later updates may need; None takes just what this forest needs.
            With a capacity, `deft` is planned on the device from the first update on, and its tiles
            are of one height whatever the forest: `needed_capacity` says what a forest then needs.
        gpu: the profile that the plan is made for; None takes that of the device of `table`.

    Attributes:
        num_queries: of the forest, after each update.
        status: [len(STATUS)] int32 on the device, what a plan made there needs (see `check`).
        step: [1] int32 on the device.
        buffers: what attention reads.
        rows: of a tile; one query has `spec.group` of them.
        is_ordered: queries lie in depth-first order already.
        reuse: items that read an entry, on average; 0 for a plan with a capacity.
        has_long_items: there are long items, of several tiles, and no more programs than
            multiprocessors. False for a plan made on the device.

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
        spec: AttentionSpec,
        variant: str = "deft",
        *,
        growth: int = 0,
        capacity: Capacity | None = None,
        gpu: GpuProfile | None = None,
    ) -> None:
        self._begin(_lay_out(forest, growth), table, spec, variant, capacity, gpu)
        if variant == "deft" and capacity is not None:
            device = table.device
            self._planner = DevicePlanner(spec, self.gpu, self.rows, growth, self.capacity, device)
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
        spec: AttentionSpec,
        variant: str = "deft",
    ) -> TreePlan:
        """Plan queries that lie in depth-first order already.

        Args:
            segments: what they see.
            query_positions: [B] in their paths.
            table: [entries] int32 on the device, the pool slot of each KV entry.
            spec: the attention.
            variant: a name of `variants.VARIANTS`.

        Raises:
            ValueError: an unknown variant, or a query that sees nothing.
        """
        rows = np.arange(len(query_positions))
        layout = _Layout(segments, len(segments.length), rows, query_positions, None)
        plan = cls.__new__(cls)
        plan._begin(layout, table, spec, variant, None, None)
        return plan

    def update(self, forest: Forest) -> None:
        """Plan another forest into the same memory; sets `step` to 0.

        `tree_mask` makes a new mask, so a graph that was captured before keeps the old one.

        Raises:
            ValueError: as in the constructor; the plan is unchanged then. What only the device
                finds out, `check` raises; the plan is empty then, and attention writes nothing.
        """
        if self._planner is not None:
            self.num_queries = self._upload(forest)
            self._work, self.has_long_items = None, False
            self._replan()
        else:
            layout = _lay_out(forest, self.growth)
            self._load(self._split(layout), layout)

    @property
    def work(self) -> WorkList:
        """The host's copy of the work list.

        Raises:
            ValueError: the plan was made on the device.
        """
        if self._work is None:
            raise ValueError("the last update was planned on the device; `status` has its sizes")
        return self._work

    def check(self, status: torch.Tensor | None = None) -> None:
        """Refuse a forest that `update` could not refuse.

        Args:
            status: a copy of `self.status` on the host. Without one this waits for the device.

        Raises:
            ValueError: a query sees nothing.
            CapacityExceeded: the forest needs more than the capacity.
        """
        refuse((self.status if status is None else status).tolist(), self.capacity)

    def advance(self) -> None:
        """Add an entry to every path. Device work only."""
        self.step.add_(1)
        self.buffers.settle()

    def _begin(
        self,
        layout: _Layout,
        table: torch.Tensor,
        spec: AttentionSpec,
        variant: str,
        capacity: Capacity | None,
        gpu: GpuProfile | None,
    ) -> None:
        check_variant(variant, grows=layout.growth is not None)
        self.spec, self.variant = spec, variant
        self.gpu = gpu_profile(table.device) if gpu is None else gpu
        self.growth = 0 if layout.growth is None else layout.growth.steps
        # A plan with a capacity is for forests yet unknown.
        is_fixed = capacity is None
        self.rows = tile_rows(variant, layout.segments if is_fixed else None, spec, self.gpu)
        work = self._split(layout)
        self.capacity = layout.capacity(work) if capacity is None else capacity
        # Rows in depth-first order already need no look-up; a plan for updates cannot know.
        self.is_ordered = is_fixed and layout.is_ordered
        num_entries = max(int(layout.segments.length.sum()), 1)
        self.reuse = work.num_reads / num_entries if is_fixed else 0.0
        self.buffers = PlanBuffers.allocate(self.capacity, spec, table)
        self.status, self.step = self.buffers.status, self.buffers.step
        self._load(work, layout)

    def _split(self, layout: _Layout) -> WorkList:
        """Cut the work of a forest on the host."""
        segments, num_queries = layout.segments, len(layout.rows)
        return tile_and_split(
            self.variant, segments, num_queries, self.spec, self.gpu, self.rows, layout.growth
        )

    def _load(self, work: WorkList, layout: _Layout) -> None:
        """Send a work list to the device and lay its entries out.

        Raises:
            ValueError: the queries' order is not that of a plan without capacity.
            CapacityExceeded: the forest needs more than the capacity.
        """
        if self.is_ordered and not layout.is_ordered:
            raise ValueError(
                "the plan was made for queries in depth-first order; give it a capacity to update "
                "it with another order"
            )
        needed = layout.capacity(work)
        if needed != self.capacity:
            self.capacity.check(**asdict(needed))
        self._work = work
        self.num_queries = len(layout.rows)
        self.has_long_items = self._are_items_long(work)
        offsets, unused = work.reduce_offset, self.capacity.queries - self.num_queries
        if unused:  # rows beyond the last have nothing to merge
            offsets = np.concatenate([offsets, np.full(unused, offsets[-1])])
        self.buffers.load({
            "num_items": np.array([len(work.items)]),
            "num_copies": np.array([len(work.copies)]),
            "items": work.items,
            "copies": work.copies,
            "reduce_offset": offsets,
            "reduce_row": work.reduce_row,
            "row": layout.rows,
            "position": layout.positions,
            "status": np.zeros(len(STATUS)),
        })  # fmt: skip
        if self.variant == "tree_mask":
            mask = torch.from_numpy(layout.segments.mask(self.num_queries))
            self.buffers = replace(self.buffers, mask=mask.to(self.buffers.packed.device))
        self.buffers.expand()

    def _are_items_long(self, work: WorkList) -> bool:
        if self.capacity.items * self.spec.num_kv_heads > self.gpu.num_sms:
            return False
        is_long, tiles = work.items[0, 1] >= self.gpu.long_item, work.items[:, 3]
        return bool(is_long and tiles.any())

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
        self.buffers.load_from_device(work, self._filler)
        self.buffers.expand()


def needed_capacity(
    forest: Forest,
    spec: AttentionSpec,
    variant: str = "deft",
    *,
    growth: int = 0,
    device: torch.device | str,
) -> Capacity:
    """The capacity with which a plan that has one can hold this forest. Works on the host alone.

    A plan without a capacity may need less, since it chooses the height of its tiles by the forest.

    Args:
        forest: to plan.
        spec: the attention.
        variant: a name of `variants.VARIANTS`.
        growth: steps for which every query's path may grow.
        device: where the plan would lie; the profile of its GPU counts.

    Raises:
        ValueError: as of `TreePlan`.
    """
    layout = _lay_out(forest, growth)
    check_variant(variant, grows=growth > 0)
    gpu = gpu_profile(device)
    rows = tile_rows(variant, None, spec, gpu)
    segments, num_queries = layout.segments, len(layout.rows)
    work = tile_and_split(variant, segments, num_queries, spec, gpu, rows, layout.growth)
    return layout.capacity(work)


def ample_capacity(
    num_queries: int,
    num_entries: int,
    spec: AttentionSpec,
    variant: str = "deft",
    *,
    device: torch.device | str,
) -> Capacity:
    """A capacity that holds nearly any forest of some size (`cost_model.estimate_capacity`).

    Args:
        num_queries: of the forest, at most.
        num_entries: of the slot table.
        spec: the attention.
        variant: a name of `variants.VARIANTS`.
        device: where the plan would lie; the profile of its GPU counts.
    """
    gpu = gpu_profile(device)
    rows = tile_rows(variant, None, spec, gpu)
    return estimate_capacity(num_queries, num_entries, spec, gpu, rows)


class _Layout(NamedTuple):
    """A forest's segments; and of each query in depth-first order its row, position and growth."""

    segments: Segments
    num_nodes: int
    rows: np.ndarray  # [B]
    positions: np.ndarray  # [B]
    growth: Growth | None

    @property
    def is_ordered(self) -> bool:
        """Whether the rows are in depth-first order already."""
        return bool((self.rows == np.arange(len(self.rows))).all())

    def capacity(self, work: WorkList) -> Capacity:
        """What this forest needs, its work being cut like this."""
        return Capacity.of(work, len(self.rows), self.num_nodes)


def _lay_out(forest: Forest, steps: int) -> _Layout:
    segments, rows, positions = Segments.of_forest(forest)
    if not steps:
        return _Layout(segments, len(forest.parent), rows, positions, None)
    check_growing(forest.num_queries)
    node = np.flatnonzero(forest.num_queries)[rows]
    growth = Growth((forest.start + forest.length)[node], positions + 1, steps)
    return _Layout(segments, len(forest.parent), rows, positions, growth)
