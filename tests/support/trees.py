"""Trees of cached tokens for the tests of tree attention, and what each query of them sees.

Built by plain recursion; shares no code with what plans the attention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from hypothesis import strategies as st

from treeshare.kernels.planning.forest import Forest
from treeshare.kernels.planning.segments import Segment

SHAPES = {  # of each node: its parent, its entries, and how many of the last ones are queries
    "chain": [(-1, 17, 0), (0, 1, 0), (1, 15, 0), (2, 4, 1)],
    "star": [(-1, 63, 0), *((0, length, 1) for length in range(1, 8))],
    "binary": [(-1, 33, 0), (0, 5, 0), (0, 9, 0), (1, 3, 1), (1, 1, 1), (2, 8, 1), (2, 2, 1)],
    "ragged": [(-1, 257, 0), (0, 16, 0), (1, 1, 1), (1, 41, 1), (0, 2, 1)],
    "single": [(-1, 1, 1)],
    "forest": [(-1, 20, 0), (0, 1, 1), (0, 4, 1), (-1, 11, 0), (3, 3, 1), (3, 1, 1)],
    "prefill": [(-1, 21, 21), (0, 4, 4), (0, 9, 7)],
    "inner_query": [(-1, 8, 0), (0, 5, 2), (1, 1, 1), (1, 3, 3)],
    "empty_leaf": [(-1, 15, 0), (0, 3, 1), (1, 0, 1), (0, 0, 2), (1, 16, 1), (3, 0, 0)],
    "dead_branch": [(-1, 16, 0), (0, 7, 0), (0, 5, 1), (1, 3, 0), (-1, 9, 0)],
}
VERIFICATION = [(-1, 197, 0), *((0, 9, 9) for _ in range(5)), (3, 4, 4)]


@dataclass(frozen=True)
class Tree:
    """A forest in scattered slots. Queries are counted node by node unless said otherwise."""

    forest: Forest
    table: np.ndarray  # [entries] int32 slots; room to grow follows the entries of each node
    num_slots: int
    paths: list[list[int]]  # of each query the slots that it sees, by position
    order: list[int]  # the queries in depth-first order
    positions: list[int]  # of the queries in depth-first order
    segments: list[Segment]  # for queries in depth-first order

    def grown(self, steps: int) -> list[list[int]]:
        """Paths after each query has got `steps` entries more."""
        tail = (self.forest.start + self.forest.length).repeat(self.forest.num_queries)
        return [
            path + self.table[begin : begin + steps].tolist()
            for path, begin in zip(self.paths, tail, strict=True)
        ]


def make_tree(nodes, seed, growth=0):
    """A tree of nodes (parent, length, num_queries) with `growth` spare entries after each."""
    parent, length, num_queries = np.array(nodes).T
    start = np.cumsum(length + growth) - (length + growth)
    total = int((length + growth).sum())
    num_slots = 2 * total + 3
    table = np.random.default_rng(seed).permutation(num_slots)[:total].astype(np.int32)
    whole, paths = [], []
    for p, begin, size, count in zip(parent, start, length, num_queries, strict=True):
        whole.append((whole[p] if p >= 0 else []) + table[begin : begin + size].tolist())
        hidden = [count - 1 - t if size else 0 for t in range(count)]
        paths += [whole[-1][: len(whole[-1]) - later] for later in hidden]
    first_row = np.cumsum(num_queries) - num_queries
    order, segments = [], []

    def visit(node):  # depth first
        lo, at = len(order), len(segments)
        order.extend(range(first_row[node], first_row[node] + num_queries[node]))
        segments.append(None)
        for child in np.flatnonzero(parent == node):
            visit(child)
        slots = table[start[node] : start[node] + length[node]].astype(np.int64)
        segments[at] = Segment(slots, len(whole[node]) - len(slots), lo, len(order))

    for root in np.flatnonzero(parent < 0):
        visit(root)
    positions = [len(paths[row]) - 1 for row in order]
    forest = Forest(parent, length, num_queries, start)
    return Tree(forest, table, num_slots, paths, order, positions, segments)


def make_trees(lists, seed, growth=0):
    """A tree of all nodes in the lists; and of each list its tree, in the same table and without
    segments, and its rows of the queries of all."""
    nodes, begins = [], [0]
    for single in lists:
        nodes += [(parent + begins[-1] if parent >= 0 else -1, *size) for parent, *size in single]
        begins.append(len(nodes))
    whole = make_tree(nodes, seed, growth)
    row = np.append(0, np.cumsum(whole.forest.num_queries)).tolist()
    trees = []
    for single, begin, end in zip(lists, begins, begins[1:], strict=False):
        alone, rows = make_tree(single, seed, growth), slice(row[begin], row[end])
        forest = replace(alone.forest, start=whole.forest.start[begin:end])
        shared = {"table": whole.table, "num_slots": whole.num_slots, "segments": None}
        trees.append((replace(alone, forest=forest, paths=whole.paths[rows], **shared), rows))
    return whole, trees


def make_tensors(
    tree, seed, heads=(6, 2), width=16, value_width=None, dtype=torch.float32, device="cpu"
):
    """q [B, HQ, D] and the pools; the slots that the table does not name hold NaN."""
    generator = torch.Generator().manual_seed(seed)
    num_heads, num_kv_heads = heads
    slots = torch.from_numpy(tree.table).long()
    pools = []
    for columns in (width, width if value_width is None else value_width):
        pool = torch.full((tree.num_slots, num_kv_heads, columns), float("nan"), dtype=dtype)
        pool[slots] = torch.randn(len(slots), num_kv_heads, columns, generator=generator).to(dtype)
        pools.append(pool.to(device))
    q = torch.randn(len(tree.paths), num_heads, width, generator=generator).to(dtype)
    return q.to(device), *pools


def random_nodes(seed, max_nodes=12, max_length=40, max_queries=3):
    """Nodes for `make_tree`: several roots, deep or wide, empty nodes, queries anywhere."""
    rng = np.random.default_rng(seed)
    nodes = []
    reach = int(rng.integers(1, 10))  # how far back a parent may lie
    for i in range(int(rng.integers(1, max_nodes + 1))):
        is_root = i == 0 or rng.random() < 0.1
        parent = -1 if is_root else int(rng.integers(max(i - reach, 0), i))
        num_queries = int(rng.integers(1, max_queries + 1)) if rng.random() < 0.6 else 0
        length = max(num_queries, 1) + int(rng.integers(0, max_length))
        if not is_root and rng.random() < 0.15:
            length = 0
        nodes.append((parent, length, num_queries))
    parent, length, num_queries = nodes[-1]
    nodes[-1] = (parent, length, max(num_queries, 1))
    return nodes


def node_lists(**limits):
    """Strategy for what `random_nodes` draws: large examples matter more here than small ones."""
    return st.integers(0, 2**32 - 1).map(lambda seed: random_nodes(seed, **limits))
