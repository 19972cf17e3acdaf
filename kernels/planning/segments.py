"""Runs of KV entries in depth-first order, each with the interval of queries that see it.

Every tree attention is planned from these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .forest import Forest, stable_order


class Segment(NamedTuple):
    """Consecutive KV entries and the packed queries that may look at them.

    A query sees a key of its segments if the key's position is not later than its own. This one
    rule gives causality among the tokens of one node, and hides nothing of an ancestor.
    """

    slots: np.ndarray  # [length] int64: where the entries lie in the pool, in order of position
    start: int  # position of the first entry
    lo: int  # queries [lo, hi)
    hi: int


@dataclass(frozen=True, slots=True)
class Segments:
    """S segments as arrays, each [S] int64.

    None is empty or without a query. They are sorted by `lo`, and then from the widest interval to
    the narrowest. Query `lo + t` sees the first `num_visible + t` entries of a segment.
    """

    source: np.ndarray  # index of the first entry in the slot table
    length: np.ndarray  # number of entries
    lo: np.ndarray  # queries [lo, hi)
    hi: np.ndarray
    num_visible: np.ndarray  # entries that query `lo` sees
    position: np.ndarray  # position of the first entry in its path

    @classmethod
    def of_forest(cls, forest: Forest) -> tuple[Segments, np.ndarray, np.ndarray]:
        """Make a segment of each node that a query sees.

        Returns:
            The segments; and of each query in depth-first order its row, counted node by node as
            the forest numbers them, and its position in its path, both [B] int64.
        """
        lo, hi, end = forest.depth_first()
        length, count = forest.length, forest.num_queries
        live = np.flatnonzero((hi > lo) & (length > 0))
        live = live[_depth_first(lo[live], hi[live])]
        hidden = np.maximum(count[live] - 1, 0)
        length = length[live]
        segments = cls(
            forest.start[live], length, lo[live], hi[live], length - hidden, end[live] - length
        )
        nodes = np.flatnonzero(count)
        nodes = nodes[stable_order(lo[nodes])]
        first_row = (np.cumsum(count) - count)[nodes]
        rows = np.arange(count.sum()) + np.repeat(first_row - lo[nodes], count[nodes])
        later = np.repeat(lo[nodes] + count[nodes] - 1, count[nodes]) - np.arange(len(rows))
        later *= np.repeat(forest.length[nodes] > 0, count[nodes])
        positions = np.repeat(end[nodes], count[nodes]) - 1 - later
        return segments, rows, positions

    @classmethod
    def of_list(
        cls, segments: Sequence[Segment], query_positions: np.ndarray
    ) -> tuple[Segments, np.ndarray]:
        """Gather single segments into arrays.

        Args:
            segments: those that are empty or have no query drop out.
            query_positions: [B] int64, of each query in its path.

        Returns:
            The segments, and the slot table they point into, [T] int32.
        """
        live = [segment for segment in segments if segment.hi > segment.lo and len(segment.slots)]
        columns = np.array(
            [(len(segment.slots), segment.lo, segment.hi, segment.start) for segment in live],
            dtype=np.int64,
        ).reshape(-1, 4)
        length, lo, hi, start = columns.T
        num_visible = np.minimum(query_positions[lo] - start + 1, length)
        order = _depth_first(lo, hi)
        table = [segment.slots for segment in live]
        return cls(
            *(
                column[order]
                for column in (np.cumsum(length) - length, length, lo, hi, num_visible, start)
            )
        ), np.concatenate(table).astype(np.int32) if table else np.empty(0, np.int32)

    def mask(self, num_queries: int) -> np.ndarray:
        """[B, T] uint8: 1 where a query sees an entry; T counts all entries, segment by segment."""
        mask = np.zeros((num_queries, int(self.length.sum())), dtype=np.uint8)
        begin = 0
        columns = (self.length, self.lo, self.hi, self.num_visible)
        for length, lo, hi, num_visible in zip(*columns, strict=True):
            seen = np.arange(length)[None, :] < num_visible + np.arange(hi - lo)[:, None]
            mask[lo:hi, begin : begin + length] = seen
            begin += length
        return mask


def _depth_first(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    widest_first = stable_order(hi.max(initial=0) - hi)
    order: np.ndarray = widest_first[stable_order(lo[widest_first])]
    return order
