"""What planning needs to know of a GPU: its sizes, and times that were measured on it.

Every threshold that was chosen by measuring on a GPU stands here. `H100` and `H200` are data; any
other GPU gets the times of an H100 and its own number of multiprocessors and shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

# Rows of a tile of queries: those of one matrix instruction of a warp group, and of a warp.
TILE_ROWS_LARGE, TILE_ROWS_SMALL = 64, 16

# Programs a multiprocessor, each a candidate for the length of items. The last leaves tiles whole.
OCCUPANCY_CANDIDATES = np.array([0.8, 0.9, 1, 1.7, 1.9, 2, 3, 4, 6, 1e-9])


class TileSeconds(NamedTuple):
    """How fast programs of one tile size work through 64 KV entries."""

    resident: int  # programs that a multiprocessor holds
    alone: float  # seconds of a program that has the multiprocessor to itself
    full: float  # seconds of each of `resident` programs


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile:
    """One GPU as planning sees it. Bandwidths are in bytes a second, times in seconds.

    Args:
        name: the device's name, for people.
        compute_capability: the major number; 9 is Hopper.
        num_sms: streaming multiprocessors.
        shared_bytes: shared memory that one program may ask for.
        memory_bandwidth: of KV entries read from memory.
        partial_bandwidth: of partial results, written and read again.
        tile_seconds_large: for tiles of `TILE_ROWS_LARGE` rows.
        tile_seconds_small: for tiles of fewer rows.
        stall_seconds: more for 64 entries that a lone program reads from memory, not from the
            cache.
        reduction_seconds: of a query's first 16 partial results, and of each 16 more.
        small_tile_reads: small tiles are taken if they read at most this many times as much.
        single_query_reads: (a, b): tiles of one query are taken if they read at most a / b times
            as much. Integers, so that the host and the device decide alike.
        long_item: KV entries; from this length on an item is worth a multiprocessor of its own.
        cached_reads: from this many reads of each entry on, reads are served by the cache.
        many_partials: partial results a query, above which a program merges eight at a time.
        many_heads: query heads a multiprocessor, above which a program merges eight heads.
        least_balance: least share of the multiprocessors' time in use for `skinny_linear`.
    """

    name: str
    compute_capability: int
    num_sms: int
    shared_bytes: int
    memory_bandwidth: float
    partial_bandwidth: float
    tile_seconds_large: TileSeconds
    tile_seconds_small: TileSeconds
    stall_seconds: float
    reduction_seconds: tuple[float, float]
    small_tile_reads: float
    single_query_reads: tuple[int, int]
    long_item: int
    cached_reads: float
    many_partials: int
    many_heads: int
    least_balance: float

    def tile_seconds(self, rows: int) -> TileSeconds:
        """The times of tiles of `rows` rows."""
        return self.tile_seconds_large if rows == TILE_ROWS_LARGE else self.tile_seconds_small

    @property
    def has_small_shared_memory(self) -> bool:
        """Whether a program has at most 99 KiB, as on RTX 30 and 40, A10, L4 and L40S.

        An A100 or H100 gives it 163 KiB or more.
        """
        return self.shared_bytes < 128 << 10


# Measured on 2026-11-24 (docs/log/2026-11.md).
H100 = GpuProfile(
    name="NVIDIA H100",
    compute_capability=9,
    num_sms=132,
    shared_bytes=227 << 10,
    memory_bandwidth=2.9e12,
    partial_bandwidth=2e12,
    tile_seconds_large=TileSeconds(resident=2, alone=0.8e-6, full=1.6e-6),
    tile_seconds_small=TileSeconds(resident=3, alone=0.9e-6, full=2.0e-6),
    stall_seconds=0.5e-6,
    reduction_seconds=(3e-6, 1.2e-6),
    small_tile_reads=1.2,
    single_query_reads=(21, 20),
    long_item=512,
    cached_reads=3,
    many_partials=4,
    many_heads=16,
    least_balance=0.85,
)
# Its memory is faster, 4.27 TB/s measured. Planning still takes the bandwidth of an H100, because
# only the plans that this gives were timed on an H200.
H200 = replace(H100, name="NVIDIA H200")
MEASURED = {"H200": H200, "H100": H100}


def gpu_profile(device: torch.device | str) -> GpuProfile:
    """The profile of a device; that of an H100 for a CPU, on which kernels are interpreted."""
    device = torch.device(device)
    if device.type != "cuda":
        return H100
    return cuda_profile(torch.cuda.current_device() if device.index is None else device.index)


@lru_cache
def cuda_profile(index: int) -> GpuProfile:
    """The profile of a CUDA device, kept after the first call."""
    found = torch.cuda.get_device_properties(index)
    measured = next((MEASURED[key] for key in MEASURED if key in found.name), H100)
    return replace(
        measured,
        name=found.name,
        compute_capability=found.major,
        num_sms=found.multi_processor_count,
        shared_bytes=getattr(found, "shared_memory_per_block_optin", found.shared_memory_per_block),
    )
