"""The shape of a KV forest: nodes of cached tokens, their parents, and the queries that attend.

A forest is given by parent pointers. In depth-first order the queries at or below any node are one
interval `[lo, hi)`, so queries that share KV are neighbours (DeFT, arXiv 2404.00242 section 3.2,
groups them so). Vectorised over nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


def stable_order(keys: np.ndarray) -> np.ndarray:
    """Indices that sort keys >= 0 and keep the order of equal keys.

    Takes linear time (radix sort) if all keys are below 2^16.

    Args:
        keys: [N] integers.

    Returns:
        [N] int64.
    """
    if keys.max(initial=0) < 1 << 16:
        keys = keys.astype(np.uint16)
    return np.argsort(keys, kind="stable")


class DepthFirst(NamedTuple):
    """The order in which the queries below any node are neighbours; each array is [N] int64.

    A node's own queries are rows `lo` to `lo + num_queries`. Those of its children follow, in the
    order of the children's indices.
    """

    lo: np.ndarray  # rows [lo, hi) are the queries at or below the node
    hi: np.ndarray
    end: np.ndarray  # entries on the node's path, its own included


@dataclass(frozen=True, slots=True)
class Forest:
    """N nodes of cached tokens. A node's path is its ancestors' entries and then its own.

    The `num_queries` query tokens of a node are its last entries: query t of T sees the path up to
    entry `length - T + 1 + t` of the node. A node of length 0 may have queries; they see what
    is above it. Nodes with no query at or below them cost nothing.

    Raises:
        ValueError: there is no node, the arrays differ in length, a parent does not precede its
            child, a count is negative, or a node has more queries than entries (and is not empty).
    """

    parent: np.ndarray  # [N] int; -1 for a root; every parent precedes its children
    length: np.ndarray  # [N] int, KV entries
    num_queries: np.ndarray  # [N] int, query tokens
    start: np.ndarray  # [N] int, index of the node's first entry in the slot table

    def __post_init__(self) -> None:
        count = len(self.parent)
        if not count:
            raise ValueError("a forest of no nodes")
        for name in ("length", "num_queries", "start"):
            array = getattr(self, name)
            if len(array) != count:
                raise ValueError(f"{name} has {len(array)} entries, parent has {count}")
            if array.min() < 0:
                raise ValueError(f"{name}[{int(array.argmin())}]={int(array.min())} is negative")
        bad = np.flatnonzero((self.parent >= np.arange(count)) | (self.parent < -1))
        if len(bad):
            node = int(bad[0])
            raise ValueError(
                f"parent[{node}]={int(self.parent[node])} must be -1 or lie before {node}"
            )
        bad = np.flatnonzero((self.num_queries > self.length) & (self.length > 0))
        if len(bad):
            node = int(bad[0])
            raise ValueError(
                f"node {node} has {int(self.num_queries[node])} queries and only "
                f"{int(self.length[node])} entries"
            )

    @classmethod
    def packed(cls, parent: np.ndarray, length: np.ndarray, num_queries: np.ndarray) -> Forest:
        """A forest whose nodes' entries follow one another in the slot table.

        Args:
            parent: [N] int; -1 for a root.
            length: [N] int, KV entries.
            num_queries: [N] int, query tokens.

        Raises:
            ValueError: as of the class.
        """
        length = np.asarray(length)
        return cls(np.asarray(parent), length, np.asarray(num_queries), np.cumsum(length) - length)

    def depth_first(self) -> DepthFirst:
        """Query intervals and path lengths of all nodes, in O(N log depth).

        Sums along paths and over subtrees are taken by pointer doubling: each step sums over twice
        the distance of the step before.
        """
        count = len(self.parent)
        # Node `count` is a virtual root above all roots, so that every node has a parent.
        parent = np.append(self.parent, count)
        parent[parent < 0] = count
        below = np.append(self.num_queries, 0).astype(np.int64)
        ancestors = [parent]
        while (ancestors[-1][:count] != count).any():
            # `below` holds sums over descendants nearer than the distance of the last ancestors.
            below += np.bincount(ancestors[-1], below, count + 1).astype(np.int64)
            below[count] = 0
            ancestors.append(ancestors[-1][ancestors[-1]])
        # What a node adds to its path: entries, and queries of its parent and earlier siblings.
        by_parent = stable_order(parent[:count])
        before = np.cumsum(below[by_parent])
        before -= below[by_parent]
        sorted_parent = parent[by_parent]
        is_first = np.append(True, sorted_parent[1:] != sorted_parent[:-1])
        eldest = before[is_first][np.cumsum(is_first) - 1]
        path = np.zeros((2, count + 1), dtype=np.int64)
        path[0, :count] = self.length
        path[1, by_parent] = before - eldest
        path[1, :count] += np.append(self.num_queries, 0)[parent[:count]]
        for ancestor in ancestors[:-1]:
            path += path[:, ancestor]
        end, lo = path[:, :count]
        return DepthFirst(lo, lo + below[:count], end)
