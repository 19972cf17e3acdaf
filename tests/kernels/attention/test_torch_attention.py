"""Tree attention in PyTorch against the reference, over random trees and every option."""

import numpy as np
import pytest
import torch
from trees import SHAPES, make_tensors, make_tree

from treeshare.kernels.attention.naive import tree_attention_reference
from treeshare.kernels.attention.torch_attention import build_plan, tree_attention


def make_case(nodes, seed, value_width=None, **options):
    """Queries in depth-first order, pools, plan and each query's path."""
    tree = make_tree(nodes, seed)
    q, k, v = make_tensors(tree, seed, value_width=value_width, **options)
    plan = build_plan(tree.positions, tree.segments)
    return q[tree.order], k, v, plan, [tree.paths[row] for row in tree.order]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("heads", [(2, 2), (6, 2), (9, 3), (8, 1)], ids=lambda h: f"h{h[0]}-{h[1]}")
def test_equals_reference(shape, heads):
    q, k, v, plan, paths = make_case(SHAPES[shape], seed=1, heads=heads, value_width=24)
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
    q, k, v, plan, paths = make_case(SHAPES[shape], seed=2)
    expected = tree_attention_reference(q, k, v, paths, scale=0.25, **options)
    actual = tree_attention(q, k, v, plan, scale=0.25, **options)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_low_precision_accumulates_in_fp32(dtype):
    q, k, v, plan, paths = make_case(SHAPES["ragged"], seed=3, dtype=dtype)
    expected = tree_attention_reference(q.double(), k.double(), v.double(), paths, scale=0.25)
    actual = tree_attention(q, k, v, plan, scale=0.25)
    assert actual.dtype == dtype
    rounding = (expected.to(dtype).double() - expected).abs().max().item()
    assert (actual.double() - expected).abs().max().item() <= 2 * rounding + 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_random_forests(seed):
    rng = np.random.default_rng(seed)
    nodes = []
    for i in range(int(rng.integers(1, 40))):
        parent = -1 if rng.random() < 0.1 or i == 0 else int(rng.integers(i))
        num_queries = int(rng.integers(0, 3))
        nodes.append((parent, num_queries + int(rng.integers(0, 50)), num_queries))
    nodes.append((-1, 3, 1))
    q, k, v, plan, paths = make_case(nodes, seed)
    expected = tree_attention_reference(q, k, v, paths, scale=0.3)
    torch.testing.assert_close(
        tree_attention(q, k, v, plan, scale=0.3), expected, atol=1e-5, rtol=1e-5
    )


def test_shared_prefix_is_read_once():
    _, _, _, plan, _ = make_case(SHAPES["star"], seed=0)
    assert plan.num_key_reads == 63 + sum(range(1, 8))
