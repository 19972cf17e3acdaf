"""From nodes of the tree cache to what a forward takes.

`pack` lays any tokens to compute out in depth-first order: the flat arrays a model takes and the
segments attention plans with. `forest_by_slot` names stretches of slots instead, for plans in fixed
memory; `growing_forest` is for leaves that only grow, by a token a step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from treeshare.kernels.planning.forest import Forest
from treeshare.kernels.planning.segments import Segment
from treeshare.llm_backend.cache.tree_cache import CacheNode, Leaf

KVNode = CacheNode | Leaf


@dataclass(slots=True)
class PackedTokens:
    """Tokens to compute, node by node."""

    tokens: list[int] = field(default_factory=list)  # [N] ids
    positions: list[int] = field(default_factory=list)  # [N] in each token's own path
    slots: list[np.ndarray] = field(default_factory=list)  # to be joined to [N]
    first_row: dict[KVNode, int] = field(default_factory=dict)  # of a node's tokens in [0, N)

    def row(self, node: KVNode, offset: int) -> int:
        """Row of the token at `offset` in `node`, which must be among those computed."""
        return self.first_row[node] + offset - node.num_computed

    def add(self, node: KVNode, end: int) -> None:
        begin = node.num_computed
        self.first_row[node] = len(self.tokens)
        self.tokens += node.tokens[begin:end]
        self.positions += range(node.start + begin, node.start + end)
        self.slots.append(node.slots[begin:end])


@dataclass(slots=True)
class PackedForest(PackedTokens):
    segments: list[Segment] = field(default_factory=list)


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
        visible = node.slots[:end]
        if len(above):
            visible = np.concatenate([above, visible])
        below = children.get(node, [])
        has_queries = end > node.num_computed
        if not has_queries and len(visible) * (len(below) - 1) <= num_below[node]:
            # To read the few entries again for each child costs less than a partial result for
            # each query below. With one child it costs nothing: chains become one segment.
            stack += [(child, visible) for child in reversed(below)]
            continue
        start, lo = node.start + end - len(visible), len(forest.tokens)
        if has_queries:
            forest.add(node, end)
        if not below:
            forest.segments.append(Segment(visible, start, lo, len(forest.tokens)))
            continue
        if len(visible):
            stack.append((visible, start, lo))
        stack += [(child, visible[:0]) for child in reversed(below)]
    return forest


def _active_tree(
    ends: Mapping[KVNode, int],
) -> tuple[Mapping[KVNode | None, list[KVNode]], Mapping[KVNode, int]]:
    """The nodes to compute and all above them: children of each, and queries at or below each."""
    children: dict[KVNode | None, list[KVNode]] = defaultdict(list)
    num_below: dict[KVNode, int] = {}
    for queried in ends:
        node: KVNode | None = queried
        while node is not None and node not in num_below:
            children[node.parent].append(node)
            num_below[node] = ends.get(node, node.num_computed) - node.num_computed
            node = node.parent
    downwards = list(children[None])
    for node in downwards:  # which grows meanwhile
        downwards += children.get(node, ())
    for node in reversed(downwards):
        if node.parent is not None:
            num_below[node.parent] += num_below[node]
    return children, num_below


def pack_in_order(ends: Mapping[KVNode, int]) -> PackedTokens:
    """Tokens [num_computed, end) of each node, in the order of the queries of `forest_by_slot`."""
    packed = PackedTokens()
    for node, end in ends.items():
        packed.add(node, end)
    return packed


def growing_forest(leaves: Sequence[Leaf], *, is_grown: bool) -> Forest:
    """The forest in which each leaf's next token is the only query (`forest_by_slot`).

    The last node of leaf i is the i-th that has a query, and its entries go on in the slots after
    it. Its next token's entry is counted in if `is_grown`.
    """
    forest = forest_by_slot({leaf: leaf.num_computed + 1 for leaf in leaves})
    return forest if is_grown else replace(forest, length=forest.length - forest.num_queries)


def forest_by_slot(ends: Mapping[KVNode, int]) -> Forest:
    """The forest whose queries are tokens [num_computed, end) of each node; its `start`s are slots.

    A node whose slots are several runs becomes a chain of nodes. Queries lie in the order of
    `ends`, in which parents precede their children. Costs O(nodes) in Python, and a few passes over
    the slots.
    """
    index: dict[KVNode, int] = {}
    above: list[int] = []  # node above, -1 for none
    computed: list[int] = []  # entries before the node's first query
    slots: list[np.ndarray] = []
    for queried in ends:
        path: list[KVNode] = []
        node: KVNode | None = queried
        while node is not None and node not in index:
            path.append(node)
            node = node.parent
        upper = -1 if node is None else index[node]
        for node in reversed(path):
            seen = node.slots[: ends.get(node, len(node.tokens))]
            if len(seen):
                above.append(upper)
                computed.append(node.num_computed)
                slots.append(seen)
                upper = len(slots) - 1
            index[node] = upper

    lengths = np.array([len(run) for run in slots])
    flat = np.concatenate(slots)
    begin = np.cumsum(lengths) - lengths
    opens_node = np.zeros(len(flat), dtype=bool)
    opens_node[begin] = True
    first = np.flatnonzero(opens_node | (np.diff(flat, prepend=-2) != 1))  # entry of each run
    opening = np.flatnonzero(opens_node[first])
    last = np.append(opening[1:], len(first)) - 1  # run of each node
    parent = np.arange(len(first)) - 1
    parent[opening] = np.where(np.array(above) < 0, -1, last[above])
    end = np.append(first[1:], len(flat))
    first_query = np.repeat(begin + np.array(computed), last - opening + 1)  # of each run's node
    num_queries = np.maximum(end - np.maximum(first, first_query), 0)
    return Forest(parent, end - first, num_queries, flat[first])
