"""Memory for keys and values: one row a token, and who owns which row.

Knows neither the tree nor what the tokens are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import torch


class SlotAllocator:
    """Hands out slots, each once; a request gets one contiguous run wherever there is one."""

    def __init__(self, num_slots: int) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots={num_slots} must be at least 1")
        self.num_slots = num_slots
        self.num_free = num_slots
        self._starts = [0]  # free runs [start, stop), sorted, never touching
        self._stops = [num_slots]

    def allocate(self, count: int) -> np.ndarray:
        """`count` slots, [count] int64.

        Raises:
            MemoryError: fewer are free. Nothing is taken then.
        """
        if count > self.num_free:
            raise MemoryError(f"{count} KV slots asked for, {self.num_free} free")
        self.num_free -= count
        taken: list[np.ndarray] = []
        while count:
            lengths = [stop - start for start, stop in zip(self._starts, self._stops, strict=True)]
            run = next((i for i, length in enumerate(lengths) if length >= count), None)
            if run is None:  # no run is long enough: use up the longest
                run = max(range(len(lengths)), key=lengths.__getitem__)
            start = self._starts[run]
            stop = min(start + count, self._stops[run])
            taken.append(np.arange(start, stop))
            count -= stop - start
            if stop == self._stops[run]:
                del self._starts[run], self._stops[run]
            else:
                self._starts[run] = stop
        return np.concatenate(taken) if taken else np.empty(0, dtype=np.int64)

    def free(self, slots: np.ndarray) -> None:
        """Give slots back.

        Raises:
            ValueError: a slot is out of range or free already.
        """
        if not len(slots):
            return
        ordered = np.sort(slots)
        breaks = np.flatnonzero(np.diff(ordered) != 1) + 1
        for run in np.split(ordered, breaks):
            self._free_run(int(run[0]), int(run[-1]) + 1)

    def free_slots(self) -> np.ndarray:
        """All free slots, ascending, [num_free] int64."""
        runs = [np.arange(*run) for run in zip(self._starts, self._stops, strict=True)]
        return np.concatenate(runs) if runs else np.empty(0, dtype=np.int64)

    def _free_run(self, start: int, stop: int) -> None:
        after = bisect_left(self._starts, start)
        overlaps_before = after > 0 and self._stops[after - 1] > start
        overlaps_after = after < len(self._starts) and self._starts[after] < stop
        if start < 0 or stop > self.num_slots or overlaps_before or overlaps_after:
            raise ValueError(
                f"slots {start}..{stop - 1} are not all in use (pool of {self.num_slots})"
            )
        self.num_free += stop - start
        if after < len(self._starts) and self._starts[after] == stop:
            stop = self._stops[after]
            del self._starts[after], self._stops[after]
        if after > 0 and self._stops[after - 1] == start:
            self._stops[after - 1] = stop
        else:
            self._starts.insert(after, start)
            self._stops.insert(after, stop)


class KVPool:
    """Keys and values of every layer, token-granular; zero at first, since tree attention may read
    an entry that nothing sees, and weights it with zero.

    Args:
        num_slots: rows.
        layers: (number of KV heads, key width, value width) of each layer.
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
        ]  # each [num_slots, HK, D]
        self.values = [
            torch.zeros(num_slots, heads, width, dtype=dtype, device=device)
            for heads, _, width in layers
        ]  # each [num_slots, HK, DV]
