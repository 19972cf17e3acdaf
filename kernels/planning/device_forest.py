"""The shape of a KV forest on the device: depth-first order and queries, in arrays of fixed size.

Does what `Forest.depth_first` and `Segments.of_forest` do in NumPy, by a number of operations that
does not depend on the forest. Unused rows are empty roots. The last row is a sentinel for look-ups
beyond the last query.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from .forest import Forest

Tensor = torch.Tensor

FIELDS = ("parent + 1", "length", "num_queries", "start", "running sum of num_queries")


class Nodes(NamedTuple):
    """Columns of a forest's nodes, [N + 1] int64 each, in depth-first order."""

    lo: Tensor  # queries [lo, hi) are at or below the node
    own_hi: Tensor  # where the node's own queries end
    hi: Tensor
    end: Tensor  # entries on the node's path, its own included
    length: Tensor  # its entries; 0 without a query at or below the node
    start: Tensor  # index of its first entry in the slot table
    row_end: Tensor  # queries of all nodes up to this one, as the forest numbers nodes


class DeviceForest:
    """Finds the depth-first order of forests of at most N nodes and Q queries.

    Args:
        num_nodes: N.
        num_queries: Q.
        device: where.
    """

    def __init__(self, num_nodes: int, num_queries: int, device: torch.device) -> None:
        self.num_nodes, self.num_queries = num_nodes, num_queries
        self._count = torch.arange(max(num_nodes, num_queries) + 2).to(device)
        self._ones, self._zeros = torch.ones_like(self._count), torch.zeros_like(self._count)
        self._keep = torch.tensor([[0], [1], [1], [1]]).to(device)

    def pack(self, forest: Forest, columns: np.ndarray) -> None:
        """Write a forest into the columns that `depth_first` takes.

        Args:
            forest: N nodes at most.
            columns: [len(FIELDS), N + 1] int32, overwritten.
        """
        count = len(forest.parent)
        columns[0, :count] = forest.parent + 1
        columns[1, :count] = forest.length
        columns[2, :count] = forest.num_queries
        columns[3, :count] = forest.start
        np.cumsum(forest.num_queries, out=columns[4, :count])
        columns[:, count:] = 0
        columns[:, -1] = (self.num_nodes + 1, 1, 0, -1, columns[4, count - 1])

    def depth_first(self, columns: Tensor) -> Tensor:
        """The nodes in depth-first order. Device work only.

        A walk around the forest (an Euler tour) enters each node and leaves it again: node v is
        entered at v + 1, and left at N + 2 + v. Sums over the walk so far give the paths' entries,
        the intervals and the depth-first order; they are taken by pointer doubling.

        Args:
            columns: [len(FIELDS), N + 1] int32 on the device, as `pack` writes them.

        Returns:
            [7, N + 1] int64, the fields of `Nodes`.
        """
        count = self.num_nodes
        begun, left = slice(1, count + 2), slice(count + 2, None)  # at 0 and N + 1: of all roots
        parent, length, num_queries, start, row_end = columns.long()
        # After a child is left, the next is entered or, after the last, the parent is left.
        above, child = torch.sort(columns[0], stable=True)
        is_last = above[:-1] != above[1:]
        later = torch.where(is_last, above[:-1] + (count + 1), child[1:] + 1)
        zeros = self._zeros[: count + 1]
        walk = torch.cat([
            zeros[:1], parent[:-1], self._count[: count + 2],  # the step before
            zeros[:1], num_queries, zeros,
            zeros[:1], length, -length,
            zeros[:1], self._ones[: count + 1], zeros,
        ]).view(4, -1)  # fmt: skip
        walk[0].scatter_(0, later, child[:-1] + (count + 2))
        for _ in range((2 * count).bit_length()):
            walk = torch.addcmul(walk.index_select(1, walk[0]), walk, self._keep)
        _, queries, entries, order = walk[:, begun]
        lo, hi = queries - num_queries, walk[1, left]
        nodes = torch.stack([lo, queries, hi, entries, length * (hi > lo), start, row_end])
        return torch.empty_like(nodes).index_copy_(1, order - 1, nodes)

    def queries(self, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Find the queries in depth-first order. Device work only.

        Args:
            nodes: as `depth_first` returns them.

        Returns:
            Each query's row, its position, and where its node ends in the slot table, all [Q]
            int64; beyond the last query q these are q, 0 and -1. And [1] int64, 0 or, if query q
            is the first that sees nothing, Q - q.
        """
        room = self.num_queries
        query = self._count[:room]
        node = torch.searchsorted(nodes[1, :-1], query, right=True)
        own = Nodes(*nodes.index_select(1, node))
        # A node's last entries are hidden from its first queries; an empty node hides nothing.
        hidden = torch.where(own.length > 0, own.own_hi - query, self._ones[:1])
        position = own.end - hidden
        unseen = ((position < 0) * (room - query)).amax(0, keepdim=True)
        return own.row_end - own.own_hi + query, position, own.start + own.length, unseen
