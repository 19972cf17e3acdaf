"""Tree attention in PyTorch against the reference, over random trees and every option."""

import numpy as np
import pytest
import torch

from treeshare.kernels.reference import tree_attention_reference
from treeshare.kernels.segments import Segment
from treeshare.kernels.torch_attention import build_plan, tree_attention

SHAPES = {  # parent of each node (None for a root), (cached tokens, query tokens) of each node
    "chain": ([None, 0, 1, 2], [(17, 0), (1, 0), (15, 0), (3, 1)]),
    "star": ([None] + [0] * 7, [(63, 0)] + [(i, 1) for i in range(7)]),
    "binary": ([None, 0, 0, 1, 1, 2, 2], [(33, 0), (5, 0), (9, 0), (2, 1), (0, 1), (7, 1), (1, 1)]),
    "ragged": ([None, 0, 1, 1, 0], [(257, 0), (16, 0), (0, 1), (40, 1), (1, 1)]),
    "single": ([None], [(0, 1)]),
    "forest": ([None, 0, 0, None, 3, 3], [(20, 0), (0, 1), (3, 1), (11, 0), (2, 1), (0, 1)]),
    "prefill": ([None, 0, 0], [(0, 21), (0, 4), (2, 7)]),
    "inner_query": ([None, 0, 1, 1], [(8, 0), (3, 2), (0, 1), (0, 3)]),
}


def make_case(parents, sizes, seed, heads=(6, 2), width=16, value_width=16, dtype=torch.float32):
    """Random pool, queries, the plan and each query's path; slots are scattered, the rest NaN."""
    rng = np.random.default_rng(seed)
    total = sum(cached + new for cached, new in sizes)
    num_slots = 2 * total + 3
    order = rng.permutation(num_slots)[:total]
    paths, positions, bounds, slots_of, used = {}, [], {}, {}, 0
    query_paths = []
    for node, (parent, (cached, new)) in enumerate(zip(parents, sizes, strict=True)):
        slots = order[used : used + cached + new]
        used += cached + new
        above = [] if parent is None else paths[parent]
        paths[node] = above + slots.tolist()
        slots_of[node] = (slots, len(above))
    children = {
        node: [child for child, parent in enumerate(parents) if parent == node]
        for node in range(len(parents))
    }

    def visit(node):  # depth first
        lo = len(positions)
        cached, new = sizes[node]
        start = slots_of[node][1]
        for i in range(cached, cached + new):
            positions.append(start + i)
            query_paths.append(paths[node][: start + i + 1])
        for child in children[node]:
            visit(child)
        bounds[node] = (lo, len(positions))

    for node, parent in enumerate(parents):
        if parent is None:
            visit(node)
    segments = [
        Segment(slots, start, *bounds[node])
        for node, (slots, start) in slots_of.items()
        if len(slots)
    ]
    generator = torch.Generator().manual_seed(seed)
    num_heads, num_kv_heads = heads
    k = torch.full((num_slots, num_kv_heads, width), float("nan"), dtype=dtype)
    v = torch.full((num_slots, num_kv_heads, value_width), float("nan"), dtype=dtype)
    used_slots = torch.from_numpy(order)
    k[used_slots] = torch.randn(total, num_kv_heads, width, generator=generator).to(dtype)
    v[used_slots] = torch.randn(total, num_kv_heads, value_width, generator=generator).to(dtype)
    q = torch.randn(len(positions), num_heads, width, generator=generator).to(dtype)
    return q, k, v, build_plan(positions, segments), query_paths


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("heads", [(2, 2), (6, 2), (9, 3), (8, 1)], ids=lambda h: f"h{h[0]}-{h[1]}")
def test_equals_reference(shape, heads):
    q, k, v, plan, paths = make_case(*SHAPES[shape], seed=1, heads=heads, value_width=24)
    expected = tree_attention_reference(q, k, v, paths, scale=0.25)
    actual = tree_attention(q, k, v, plan, scale=0.25)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "options",
    [
        {"sliding_window": 1},
        {"sliding_window": 6},
        {"softcap": 2.0},
        {"sinks": torch.linspace(-2, 3, 6)},
        {"sliding_window": 9, "softcap": 5.0, "sinks": torch.linspace(-1, 1, 6)},
    ],
    ids=["window1", "window6", "softcap", "sinks", "all"],
)
def test_options_equal_reference(shape, options):
    q, k, v, plan, paths = make_case(*SHAPES[shape], seed=2)
    expected = tree_attention_reference(q, k, v, paths, scale=0.25, **options)
    actual = tree_attention(q, k, v, plan, scale=0.25, **options)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_low_precision_accumulates_in_fp32(dtype):
    q, k, v, plan, paths = make_case(*SHAPES["ragged"], seed=3, dtype=dtype)
    expected = tree_attention_reference(q.double(), k.double(), v.double(), paths, scale=0.25)
    actual = tree_attention(q, k, v, plan, scale=0.25)
    assert actual.dtype == dtype
    rounding = (expected.to(dtype).double() - expected).abs().max().item()
    assert (actual.double() - expected).abs().max().item() <= 2 * rounding + 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_random_forests(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    parents = [None if rng.random() < 0.1 or i == 0 else int(rng.integers(i)) for i in range(count)]
    sizes = [(int(rng.integers(0, 50)), int(rng.integers(0, 3))) for _ in range(count)]
    sizes[-1] = (sizes[-1][0], 1)
    q, k, v, plan, paths = make_case(parents, sizes, seed)
    expected = tree_attention_reference(q, k, v, paths, scale=0.3)
    torch.testing.assert_close(
        tree_attention(q, k, v, plan, scale=0.3), expected, atol=1e-5, rtol=1e-5
    )


def test_shared_prefix_is_read_once():
    _, _, _, plan, _ = make_case(*SHAPES["star"], seed=0)
    assert plan.num_key_reads == 63 + sum(range(7)) + 7
