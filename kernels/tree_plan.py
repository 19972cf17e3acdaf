"""A plan of tree attention in device memory, shared by all layers.

Plan once for a shape of the forest, run in every layer. A plan of fixed capacity lies at fixed
addresses, so one CUDA graph serves while the tree changes underneath (`update`) and while its
leaves grow (`step`). Nothing here waits for the device. Knows no model; the work is cut by
`variants.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton

from .deft import expand_kernel
from .forest import Forest
from .segments import Segments
from .variants import GROWING, NARROW, VARIANTS, WIDE, Shape, cut, num_rows
from .work_list import COPY_FIELDS, ITEM_FIELDS, Growth, WorkList

_LANES = 8  # programs that share a long copy
_TAIL = 256  # entries that a block may read beyond the last item
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class Capacity:
    """The most that a plan can hold; an update that needs more is refused."""

    queries: int
    items: int
    copies: int
    entries: int
    partials: int
    reduced: int  # (query, partial result) pairs

    @classmethod
    def of(cls, work: WorkList, num_queries: int) -> Capacity:
        return cls(
            num_queries,
            len(work.items),
            len(work.copies),
            work.num_entries,
            work.num_partials,
            len(work.reduce_row),
        )

    def times(self, factor: float) -> Capacity:
        """Each of the numbers times `factor`, and room for a few more."""
        names = self.__slots__
        return Capacity(**{name: int(getattr(self, name) * factor) + 16 for name in names})


@dataclass(frozen=True, slots=True)
class Heads:
    """The attention a plan is for.

    Raises:
        ValueError: heads that do not divide, more than 64 query heads a KV head, a head dimension
            above 256, or a dtype other than float16, bfloat16 and float32.
    """

    num_heads: int  # HQ
    num_kv_heads: int  # HK
    head_dim: int  # D
    value_dim: int | None = None  # DV; None is D
    dtype: torch.dtype = torch.float16

    def __post_init__(self) -> None:
        if min(self.num_heads, self.num_kv_heads) < 1 or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.num_heads // self.num_kv_heads > WIDE:
            raise ValueError(
                f"{self.num_heads} heads share {self.num_kv_heads} KV heads; at most {WIDE} may "
                "share one"
            )
        if max(self.head_dim, self.dv) > 256:
            raise ValueError(f"a head dimension of {max(self.head_dim, self.dv)} exceeds 256")
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype={self.dtype} is not one of {', '.join(map(str, _DTYPES))}")

    @property
    def dv(self) -> int:
        return self.head_dim if self.value_dim is None else self.value_dim


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
            query at most. `step`, on the device, says how many of them are there, `growth` at most.
        capacity: room for later updates; None takes just what this forest needs.

    Every slot that is named, also of entries still to come, must hold finite numbers: what a
    query does not see is read and then weighted with zero.

    Raises:
        ValueError: an unknown variant or one that cannot grow and is to, a query that sees nothing,
            a node of several queries that is to grow, or a forest that exceeds the capacity.
    """

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
        segments, rows, positions, grown = _lay_out(forest, growth)
        self._begin(segments, rows, positions, table, heads, variant, grown, capacity)

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
        plan = cls.__new__(cls)
        rows = np.arange(len(query_positions))
        plan._begin(segments, rows, query_positions, table, heads, variant, None, None)
        return plan

    def update(self, forest: Forest) -> None:
        """Plan another forest into the same memory; sets `step` to 0. (`tree_mask` makes a new
        mask, so a graph that was captured before keeps the old one.)

        Raises:
            ValueError: as in the constructor. The plan is unchanged then.
        """
        segments, rows, positions, grown = _lay_out(forest, self.growth)
        work = self._cut(segments, len(rows), grown)
        self._load(work, segments, rows, positions, grown)

    def next_slots(self) -> torch.Tensor:
        """[B] int64 slots of the entries that step `step`, from 1 on, adds, by query row; -1 for
        rows of the capacity that no query has. Device work only."""
        entry = (self._tail + self.step - 1).clamp_(min=0)
        return torch.where(self._tail < 0, -1, self._table[entry]).long()

    def _begin(
        self,
        segments: Segments,
        rows: np.ndarray,
        positions: np.ndarray,
        table: torch.Tensor,
        heads: Heads,
        variant: str,
        growth: Growth | None,
        capacity: Capacity | None,
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant!r} is not one of {', '.join(VARIANTS)}")
        if growth is not None and variant not in GROWING:
            raise ValueError(f"variant={variant!r} cannot grow; {', '.join(GROWING)} can")
        device = table.device
        num_sms = 132
        if device.type == "cuda":
            num_sms = torch.cuda.get_device_properties(device).multi_processor_count
        self.heads, self.variant = heads, variant
        self.growth = 0 if growth is None else growth.steps
        self.shape = Shape(
            heads.num_heads,
            heads.num_kv_heads,
            (heads.head_dim + heads.dv) // 2,
            heads.dtype.itemsize,
            num_sms,
        )
        is_open = variant == "deft" and capacity is not None  # for forests yet unknown
        self.rows = WIDE if is_open else num_rows(variant, segments, self.shape)
        if heads.dtype == torch.float32:  # registers hold no more
            self.rows = max(NARROW, triton.next_power_of_2(self.shape.group))
        work = self._cut(segments, len(rows), growth)
        self.capacity = room = capacity or Capacity.of(work, len(rows))
        # Rows in depth-first order already need no look-up; a plan for updates cannot know.
        self.is_ordered = capacity is None and bool((rows == np.arange(len(rows))).all())
        self._table = table
        sizes = {
            "num_items": 1,
            "num_copies": 1,
            "items": room.items * ITEM_FIELDS,
            "copies": room.copies * COPY_FIELDS,
            "reduce_offset": room.queries + 1,
            "reduce_row": room.reduced,
            "row": room.queries,
            "position": room.queries,
            "tail": room.queries if self.growth else 0,
        }
        self._sizes = {name: -(-size // 4) * 4 for name, size in sizes.items()}
        self._buffer = torch.zeros(sum(self._sizes.values()), dtype=torch.int32, device=device)
        parts = torch.split(self._buffer, list(self._sizes.values()))
        self._part = dict(zip(self._sizes, parts, strict=True))
        self._tail = self._part["tail"][: room.queries]
        self.step = torch.zeros(1, dtype=torch.int32, device=device)
        # Entries that no copy has written yet are read and not used; let them name a real slot.
        self._slot = table[:1].expand(room.entries + _TAIL).contiguous()
        self._bound, self._position = torch.zeros_like(self._slot), torch.zeros_like(self._slot)
        partial_shape = (max(room.partials, 1), heads.num_heads, heads.dv)
        self._partial = torch.empty(partial_shape, dtype=heads.dtype, device=device)
        self._lse = torch.empty(partial_shape[:2], dtype=torch.float32, device=device)
        self._mask: torch.Tensor | None = None
        self._load(work, segments, rows, positions, growth)

    def _cut(self, segments: Segments, num_queries: int, growth: Growth | None) -> WorkList:
        return cut(self.variant, segments, num_queries, self.shape, self.rows, growth)

    def _load(
        self,
        work: WorkList,
        segments: Segments,
        rows: np.ndarray,
        positions: np.ndarray,
        growth: Growth | None,
    ) -> None:
        need = Capacity.of(work, len(rows))
        if self.is_ordered and (rows != np.arange(len(rows))).any():
            raise ValueError(
                "the plan was made for queries in depth-first order; give it a capacity to update "
                "it with another order"
            )
        for name in Capacity.__slots__:
            wanted, limit = getattr(need, name), getattr(self.capacity, name)
            if wanted > limit:
                raise ValueError(f"the forest needs {wanted} {name}, the plan has room for {limit}")
        self.work = work
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
        self.step.zero_()
        if self.variant == "tree_mask":
            self._mask = _dense_mask(segments, len(rows), self._buffer.device)
        if self.capacity.copies:
            expand_kernel[(self.capacity.copies, _LANES)](
                self._part["num_copies"], self._part["copies"], self._table, self._slot,
                self._bound, self._position, POSITIONS=True, BLOCK=256,
            )  # fmt: skip


def _lay_out(forest: Forest, steps: int) -> tuple[Segments, np.ndarray, np.ndarray, Growth | None]:
    """Segments; and of each query in depth-first order its row, its position and its growth."""
    segments, rows, positions = Segments.of_forest(forest)
    if not steps:
        return segments, rows, positions, None
    count = forest.num_queries
    if (count > 1).any():
        node = int(count.argmax())
        raise ValueError(f"node {node} has {int(count[node])} queries; one that grows has one")
    node = np.flatnonzero(count)[rows]
    growth = Growth((forest.start + forest.length)[node], positions + 1, steps)
    return segments, rows, positions, growth


def _dense_mask(segments: Segments, num_queries: int, device: torch.device) -> torch.Tensor:
    """[B, T] uint8: which of all entries, segment by segment, each query sees."""
    mask = np.zeros((num_queries, int(segments.length.sum())), dtype=np.uint8)
    begin = 0
    columns = (segments.length, segments.lo, segments.hi, segments.num_visible)
    for length, lo, hi, num_visible in zip(*columns, strict=True):
        seen = np.arange(length)[None, :] < num_visible + np.arange(hi - lo)[:, None]
        mask[lo:hi, begin : begin + length] = seen
        begin += length
    return torch.from_numpy(mask).to(device)
