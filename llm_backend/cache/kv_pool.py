"""Memory for keys and values, one row a token, and the allocation of its rows."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import torch


class SlotAllocator:
    """Hands out slots, each once, as one contiguous run if there is a free run that is long enough.

    The shortest such run is taken, and of several the first. Apart from shifts within sorted lists,
    the cost does not grow with the number of runs.

    Args:
        num_slots: slots of the pool.

    Raises:
        ValueError: `num_slots` is below 1.
    """

    def __init__(self, num_slots: int) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots={num_slots} must be at least 1")
        self.num_slots = num_slots
        self.num_free = 0
        self._is_free = np.zeros(num_slots, dtype=bool)
        self._stop_of: dict[int, int] = {}  # free runs [start, stop), never touching
        self._start_of: dict[int, int] = {}
        self._starts: dict[int, list[int]] = {}  # by length, sorted
        self._lengths: list[int] = []  # sorted
        self._free_run(0, num_slots)

    def allocate(self, count: int) -> np.ndarray:
        """Take `count` slots, [count] int64.

        Raises:
            MemoryError: fewer are free; then none is taken.
        """
        if count > self.num_free:
            raise MemoryError(f"{count} KV slots asked for, {self.num_free} free")
        taken: list[np.ndarray] = []
        while count:
            # If no run is long enough: use up the longest.
            index = min(bisect_left(self._lengths, count), len(self._lengths) - 1)
            start = self._starts[self._lengths[index]][0]
            stop = self._remove(start)
            middle = min(start + count, stop)
            if middle < stop:
                self._insert(middle, stop)
            self._is_free[start:middle] = False
            self.num_free -= middle - start
            taken.append(np.arange(start, middle))
            count -= middle - start
        return np.concatenate(taken) if taken else np.empty(0, dtype=np.int64)

    def free(self, slots: np.ndarray) -> None:
        """Give slots back.

        Raises:
            ValueError: a slot is out of range or free already; then none is given back.
        """
        if not len(slots):
            return
        ordered = np.sort(slots)
        first, last = int(ordered[0]), int(ordered[-1])
        is_unique = len(ordered) == 1 or bool(np.diff(ordered).all())
        if first < 0 or last >= self.num_slots or not is_unique or self._is_free[ordered].any():
            raise ValueError(f"slots {first}..{last} are not all in use (pool of {self.num_slots})")
        breaks = np.flatnonzero(np.diff(ordered) != 1) + 1
        for run in np.split(ordered, breaks):
            self._free_run(int(run[0]), int(run[-1]) + 1)

    def free_slots(self) -> np.ndarray:
        """Return all free slots, ascending, [num_free] int64."""
        return np.flatnonzero(self._is_free)

    def _free_run(self, start: int, stop: int) -> None:
        self._is_free[start:stop] = True
        self.num_free += stop - start
        if stop in self._stop_of:
            stop = self._remove(stop)
        if start in self._start_of:
            start = self._start_of[start]
            self._remove(start)
        self._insert(start, stop)

    def _insert(self, start: int, stop: int) -> None:
        self._stop_of[start], self._start_of[stop] = stop, start
        length = stop - start
        if length not in self._starts:
            self._starts[length] = []
            insort(self._lengths, length)
        insort(self._starts[length], start)

    def _remove(self, start: int) -> int:
        """Remove the free run that begins at `start`, and return its stop."""
        stop = self._stop_of.pop(start)
        del self._start_of[stop]
        starts = self._starts[stop - start]
        del starts[bisect_left(starts, start)]
        if not starts:
            del self._starts[stop - start]
            del self._lengths[bisect_left(self._lengths, stop - start)]
        return stop


class KVPool:
    """Keys and values of every layer, one row a token.

    They are zero at first, because tree attention may read an entry that no query sees, and weights
    it with zero.

    Args:
        num_slots: rows.
        layers: (number of KV heads, key width, value width) of each layer.
        dtype: of keys and values.
        device: where they are.

    Attributes:
        slots: the allocator of the rows.
        keys: [num_slots, HK, D] of each layer.
        values: [num_slots, HK, DV] of each layer.
    """

    def __init__(
        self,
        num_slots: int,
        layers: Sequence[tuple[int, int, int]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.slots = SlotAllocator(num_slots)
        self.keys = [
            torch.zeros(num_slots, heads, width, dtype=dtype, device=device)
            for heads, width, _ in layers
        ]
        self.values = [
            torch.zeros(num_slots, heads, width, dtype=dtype, device=device)
            for heads, _, width in layers
        ]

    @property
    def num_bytes(self) -> int:
        """Memory of all keys and values."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def clear(self, slots: np.ndarray) -> None:
        """Write zeros to slots [N] int64."""
        rows = torch.from_numpy(slots).to(self.keys[0].device)
        for tensor in (*self.keys, *self.values):
            tensor.index_fill_(0, rows, 0)
