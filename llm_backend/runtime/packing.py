"""The arrays that a forward takes, made from nodes of the tree cache.

`pack` lays the tokens to compute out in depth-first order: the flat arrays that a model takes and
the segments that attention plans with. `forest_by_slot` names runs of slots instead, for plans in
fixed memory; `growing_forest` is for leaves that only grow, by a token a step.
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
"""A node of the tree cache, or a private leaf below one."""


@dataclass(slots=True)
class PackedTokens:
    """Tokens to compute, node by node.

    Attributes:
        tokens: [N] ids.
        positions: [N], each in the token's own path.
        slots: arrays that joined are [N] int64.
        first_row: for each node, the row of its first token to compute, in [0, N).
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    slots: list[np.ndarray] = field(default_factory=list)
    first_row: dict[KVNode, int] = field(default_factory=dict)

    def row(self, node: KVNode, offset: int) -> int:
        """Return the row of the token at `offset` in `node`, which must be among those packed."""
        return self.first_row[node] + offset - node.num_computed

    def add(self, node: KVNode, end: int) -> None:
        """Append the tokens of a node up to `end` that are not computed yet."""
        begin = node.num_computed
        self.first_row[node] = len(self.tokens)
        self.tokens += node.tokens[begin:end]
        self.positions += range(node.start + begin, node.start + end)
        self.slots.append(node.slots[begin:end])


@dataclass(slots=True)
class PackedForest(PackedTokens):
    """Tokens to compute, and the segments of KV entries that they see."""

    segments: list[Segment] = field(default_factory=list)


def pack(ends: Mapping[KVNode, int]) -> PackedForest:
    """Lay out tokens [num_computed, end) of each node.

    Every ancestor of a node must be computed, or be computed to its end in the same forward.
    """
    children, num_below = _active_tree(ends)
    forest = PackedForest()
    # An entry is a visit (2 fields), or a segment that waits for the end of its interval (3).
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
            # Reading the few entries again for each child costs less than a partial result for
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
    """Return the children, and the number of queries at or below, of each node that matters.

    These are the nodes to compute and all above them.
    """
    children: dict[KVNode | None, list[KVNode]] = defaultdict(list)
    num_below: dict[KVNode, int] = {}
    for queried in ends:
        node: KVNode | None = queried
        while node is not None and node not in num_below:
            children[node.parent].append(node)
            num_below[node] = ends.get(node, node.num_computed) - node.num_computed
            node = node.parent
    downwards = list(children[None])
    for node in downwards:  # the list grows meanwhile
        downwards += children.get(node, ())
    for node in reversed(downwards):
        if node.parent is not None:
            num_below[node.parent] += num_below[node]
    return children, num_below


def pack_in_order(ends: Mapping[KVNode, int]) -> PackedTokens:
    """Lay out tokens [num_computed, end) of each node, in the order of `ends`."""
    packed = PackedTokens()
    for node, end in ends.items():
        packed.add(node, end)
    return packed


def growing_forest(leaves: Sequence[Leaf], *, is_grown: bool) -> Forest:
    """Return the forest in which each leaf's next token is the only query (`forest_by_slot`).

    The last node of leaf i is the i-th that has a query, and its entries go on in the slots after
    it.

    Args:
        leaves: their paths are computed but for one token.
        is_grown: whether the next token's own entry is counted.
    """
    forest = forest_by_slot({leaf: leaf.num_computed + 1 for leaf in leaves})
    return forest if is_grown else replace(forest, length=forest.length - forest.num_queries)


def forest_by_slot(ends: Mapping[KVNode, int]) -> Forest:
    """Return the forest whose queries are tokens [num_computed, end) of each node.

    Its `start`s are slots. A node whose slots are several runs becomes a chain of nodes. Queries
    lie in the order of `ends`, in which parents precede their children. The cost is O(nodes) in
    Python, and a few passes over the slots in NumPy.
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
