"""The device memory of a plan: what planning writes and the attention kernels read.

All of it lies at fixed addresses, so a CUDA graph that was captured once reads whatever plan lies
there. Of a work list the host or the device writes only runs of entries (`copies`); one kernel lays
their entries out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl

from .attention_spec import AttentionSpec
from .device_plan import STATUS, DeviceWork
from .work_list import COPY_FIELDS, ITEM_FIELDS, Capacity

_LANES = 8  # programs that share a long copy
_BEYOND = 256  # entries that a block may read beyond the last item


@triton.jit
def expand_kernel(
    p_num_copies, p_copies, p_table, p_slot, p_bound, p_position,
    POSITIONS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write slot, visible interval and position of a copy's entries: program (copy, lane)."""
    i_copy = tl.program_id(0)
    if i_copy >= tl.load(p_num_copies):
        return
    p_copy = p_copies + i_copy * 8
    source = tl.load(p_copy)
    target = tl.load(p_copy + 1)
    length = tl.load(p_copy + 2)
    lo = tl.load(p_copy + 3)
    hi = tl.load(p_copy + 4)
    num_visible = tl.load(p_copy + 5)  # to query `lo`; each later one sees one entry more
    stride = tl.load(p_copy + 6)
    position = tl.load(p_copy + 7)
    for i in range(tl.program_id(1) * BLOCK, length, tl.num_programs(1) * BLOCK):
        o_i = i + tl.arange(0, BLOCK)
        m_i = o_i < length
        o_target = target + o_i * stride
        tl.store(p_slot + o_target, tl.load(p_table + source + o_i, mask=m_i), mask=m_i)
        b_lo = tl.minimum(tl.maximum(lo + tl.maximum(o_i + 1 - num_visible, 0), 0), hi)
        tl.store(p_bound + o_target, b_lo | ((hi - b_lo) << 16), mask=m_i)
        if POSITIONS:
            tl.store(p_position + o_target, position + o_i, mask=m_i)


@dataclass(frozen=True, slots=True)
class PlanBuffers:
    """A plan's tensors, int32 where nothing else is said.

    The first nine, the work list as in `DeviceWork`, are views of `packed`, so that one copy fills
    them all. The shapes name the fields of the plan's capacity; what a forest does not need of them
    is unused.
    """

    num_items: torch.Tensor  # [1]
    num_copies: torch.Tensor  # [1]
    items: torch.Tensor  # [items, ITEM_FIELDS], see `WorkList`
    copies: torch.Tensor  # [copies, COPY_FIELDS], see `WorkList`
    reduce_offset: torch.Tensor  # [queries + 1] into `reduce_row`
    reduce_row: torch.Tensor  # [partials] rows of `partial`, query by query
    row: torch.Tensor  # [queries] row of q of each query in depth-first order
    position: torch.Tensor  # [queries] in its path, at step 0
    status: torch.Tensor  # [len(STATUS)] what a plan made on the device needs
    packed: torch.Tensor  # [.] the nine above, each padded to 16 bytes
    step: torch.Tensor  # [1] entries by which every path has grown
    table: torch.Tensor  # [.] the pool slot of each KV entry of the forest
    slot: torch.Tensor  # [entries + 256] the pool slot of each flattened entry
    bound: torch.Tensor  # [entries + 256] lo | (hi - lo) << 16: the tile's queries that see it
    entry_position: torch.Tensor  # [entries + 256] its position in its path
    partial: torch.Tensor  # [max(partials, 1), HQ, DV] of the attention's dtype
    lse: torch.Tensor  # [max(partials, 1), HQ] float32, base 2
    settled: torch.Tensor  # [1] written after every change, see `settle`
    mask: torch.Tensor | None = None  # [B, entries] uint8, of `tree_mask` alone

    @classmethod
    def allocate(cls, capacity: Capacity, spec: AttentionSpec, table: torch.Tensor) -> PlanBuffers:
        """Memory for plans of a capacity, without items.

        Args:
            capacity: the most that a plan needs.
            spec: the attention.
            table: [.] int32 on the device, at least one entry; kept, not copied.
        """
        device = table.device
        sizes = _packed_sizes(capacity)
        paddings = (_padded(size) - size for size in sizes.values())
        parts = [part for pair in zip(sizes.values(), paddings, strict=True) for part in pair]
        packed = torch.zeros(sum(parts), dtype=torch.int32, device=device)
        views = dict(zip(sizes, torch.split(packed, parts)[::2], strict=True))
        views["items"] = views["items"].view(-1, ITEM_FIELDS)
        views["copies"] = views["copies"].view(-1, COPY_FIELDS)
        # Entries that no copy has written yet are read and not used: they must name a real slot.
        slot = table[:1].expand(capacity.entries + _BEYOND).contiguous()
        partial_shape = (max(capacity.partials, 1), spec.num_heads, spec.dv)
        return cls(
            **views,
            packed=packed,
            step=torch.zeros(1, dtype=torch.int32, device=device),
            table=table,
            slot=slot,
            bound=torch.zeros_like(slot),
            entry_position=torch.zeros_like(slot),
            partial=torch.empty(partial_shape, dtype=spec.dtype, device=device),
            lse=torch.empty(partial_shape[:2], dtype=torch.float32, device=device),
            settled=torch.zeros(1, dtype=torch.int32, device=device),
        )

    def load(self, content: Mapping[str, np.ndarray]) -> None:
        """Copy a work list of the host without waiting for the device.

        Args:
            content: integers for each of the packed tensors, as many as there are or fewer.
        """
        # Each call takes pinned memory of its own: the allocator reuses it when the copy is done.
        host = torch.empty(len(self.packed), dtype=torch.int32, pin_memory=self.packed.is_cuda)
        flat, begin = host.numpy(), 0
        for name in DeviceWork._fields:
            values = content[name].ravel()
            flat[begin : begin + len(values)] = values
            begin += _padded(getattr(self, name).numel())
        self.packed.copy_(host, non_blocking=True)

    def load_from_device(self, work: DeviceWork, filler: torch.Tensor) -> None:
        """Copy a work list of the device. Device work only.

        Args:
            work: a plan of this capacity.
            filler: [3] int64 on the device, to pad with.
        """
        pieces = []
        for tensor in work:
            values = tensor.flatten()
            pieces += [values, filler[: _padded(len(values)) - len(values)]]
        self.packed.copy_(torch.cat(pieces))

    def expand(self) -> None:
        """Lay out the entries that the copies name, for step 0. Device work only."""
        self.step.zero_()
        if len(self.copies):
            expand_kernel[(len(self.copies), _LANES)](
                self.num_copies, self.copies, self.table, self.slot, self.bound,
                self.entry_position, POSITIONS=True, BLOCK=256,
            )  # fmt: skip
        self.settle()

    def settle(self) -> None:
        """Launch a kernel of one element after every change of the plan. Device work only.

        Attention is launched early (`kernels/launch.py`) and reads the plan before `gdc_wait`. Only
        this kernel may precede it, because it starts after all that wrote the plan has finished.
        """
        self.settled.zero_()


def _packed_sizes(capacity: Capacity) -> dict[str, int]:
    """Elements of each packed tensor, in the order of `DeviceWork`."""
    return {
        "num_items": 1,
        "num_copies": 1,
        "items": capacity.items * ITEM_FIELDS,
        "copies": capacity.copies * COPY_FIELDS,
        "reduce_offset": capacity.queries + 1,
        "reduce_row": capacity.partials,
        "row": capacity.queries,
        "position": capacity.queries,
        "status": len(STATUS),
    }


def _padded(size: int) -> int:
    """A multiple of four elements, so that what follows begins at a multiple of 16 bytes."""
    return -(-size // 4) * 4
