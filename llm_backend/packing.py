"""Lays the tokens to compute in one forward out in depth-first order of the tree they hang in.

From nodes of the tree cache to the flat arrays a model takes and the segments attention plans with.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..kernels.segments import Segment
from .tree_cache import CacheNode, Leaf

KVNode = CacheNode | Leaf


@dataclass(slots=True)
class PackedForest:
    tokens: list[int] = field(default_factory=list)  # [N] ids
    positions: list[int] = field(default_factory=list)  # [N] in each token's own path
    slots: list[np.ndarray] = field(default_factory=list)  # to be joined to [N]
    segments: list[Segment] = field(default_factory=list)
    first_row: dict[KVNode, int] = field(default_factory=dict)  # of a node's tokens in [0, N)

    def row(self, node: KVNode, offset: int) -> int:
        """Row of the token at `offset` in `node`, which must be among those computed."""
        return self.first_row[node] + offset - node.num_computed


def pack(ends: Mapping[KVNode, int]) -> PackedForest:
    """Lay out tokens [num_computed, end) of each node.

    Every ancestor of a node must be computed, or be computed to its end in the same forward.
    """
    children, num_below = _active_tree(ends)
    forest = PackedForest()
    # Entries are visits, and (on the way back) segments that wait for the end of their interval.
    stack: list[tuple[KVNode, np.ndarray] | tuple[np.ndarray, int, int]] = [
        (root, root.slots[:0]) for root in children[None]
    ]
    while stack:
        entry = stack.pop()
        if len(entry) == 3:
            forest.segments.append(Segment(*entry, hi=len(forest.tokens)))
            continue
        node, above = entry
        end = ends.get(node, len(node.tokens))
        visible = np.concatenate([above, node.slots[:end]])
        below = children[node]
        has_queries = end > node.num_computed
        if not has_queries and len(visible) * (len(below) - 1) <= num_below[node]:
            # To read the few entries again for each child costs less than a partial result for
            # each query below. With one child it costs nothing: chains become one segment.
            stack += [(child, visible) for child in reversed(below)]
            continue
        if len(visible):
            stack.append((visible, node.start + end - len(visible), len(forest.tokens)))
        if has_queries:
            _add_queries(forest, node, end)
        stack += [(child, visible[:0]) for child in reversed(below)]
    return forest


def _active_tree(
    ends: Mapping[KVNode, int],
) -> tuple[Mapping[KVNode | None, list[KVNode]], Mapping[KVNode, int]]:
    """The nodes to compute and all above them: children of each, and queries at or below each."""
    children: dict[KVNode | None, list[KVNode]] = defaultdict(list)
    num_below: Counter[KVNode] = Counter()
    for queried, end in ends.items():
        node: KVNode | None = queried
        while node is not None:
            if node not in num_below:
                children[node.parent].append(node)
            num_below[node] += end - queried.num_computed
            node = node.parent
    return children, num_below


def _add_queries(forest: PackedForest, node: KVNode, end: int) -> None:
    begin = node.num_computed
    forest.first_row[node] = len(forest.tokens)
    forest.tokens += node.tokens[begin:end]
    forest.positions += range(node.start + begin, node.start + end)
    forest.slots.append(node.slots[begin:end])
