"""The Triton kernels against the reference: on the GPU, or interpreted where there is none."""

import numpy as np
import pytest
import torch
from attention_check import DEVICE, assert_accurate, device_plan, run_poisoned
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import SHAPES, make_tensors, make_tree, node_lists

from treeshare.kernels.attention import torch_attention
from treeshare.kernels.attention.tree_attention import write_kv
from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.segments import Segments
from treeshare.kernels.planning.tree_plan import TreePlan
from treeshare.kernels.planning.variants import VARIANTS

pytestmark = [
    # Rows of a tile that serve no query are divided by zero, and not stored.
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning"),
]

FP32 = pytest.param(torch.float32, id="fp32")
FP16 = pytest.param(torch.float16, id="fp16")
BF16 = pytest.param(torch.bfloat16, marks=pytest.mark.gpu, id="bf16")  # interpreted: as integers
DTYPES = [FP32, FP16, BF16]
HEADS = [(1, 1), (4, 4), (8, 2), (9, 3), (14, 2), (16, 1), (32, 1)]
SINKS = torch.linspace(-2, 3, 6)
WINDOWED = [name for name in VARIANTS if name != "tree_mask"]


def run_case(nodes, variant, dtype=torch.float32, heads=(6, 2), width=16, **options):
    """Check that an output is accurate, and return it."""
    tree = make_tree(nodes, seed=1)
    head_dim, value_dim = (width, None) if isinstance(width, int) else width
    q, k, v = make_tensors(tree, 1, heads, head_dim, value_dim, dtype, DEVICE)
    plan = device_plan(tree, heads, variant, width, dtype)
    options = {"scale": head_dim**-0.5} | options
    actual = run_poisoned(q, k, v, plan, **options)
    assert_accurate(actual, q, k, v, tree.paths, **options)
    return actual


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_reference(shape, variant, dtype):
    run_case(SHAPES[shape], variant, dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_half_precision(shape):
    run_case(SHAPES[shape], "deft", torch.float16)


@pytest.mark.parametrize("heads", HEADS, ids=lambda h: f"h{h[0]}-{h[1]}")
@pytest.mark.parametrize("variant", ["deft", "deft_node", "sequence"])
def test_heads(heads, variant):
    run_case(SHAPES["binary"], variant, torch.float16, heads)


@pytest.mark.parametrize("heads", [(32, 1), (40, 1), (64, 1)], ids=lambda h: f"h{h[0]}-{h[1]}")
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_heads_share_one(heads, dtype):
    run_case(SHAPES["forest"], "deft", dtype, heads)


@pytest.mark.parametrize("width", [64, 80, 96, 128, 256, (24, 40), (80, 64)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_head_dims(width, dtype):
    run_case(SHAPES["inner_query"], "deft", dtype, (4, 2), width)


@pytest.mark.parametrize("variant", WINDOWED)
@pytest.mark.parametrize(
    "options",
    [
        {"sliding_window": 1},
        {"sliding_window": 7},
        {"softcap": 2.0},
        {"sinks": SINKS},
        {"sliding_window": 9, "softcap": 5.0, "sinks": SINKS},
    ],
    ids=["window1", "window7", "softcap", "sinks", "all"],
)
def test_options(options, variant):
    sinks = {"sinks": options["sinks"].to(DEVICE)} if "sinks" in options else {}
    run_case(SHAPES["inner_query"], variant, torch.float16, **options | sinks)


@pytest.mark.parametrize("shape", ["ragged", "prefill", "forest", "empty_leaf"])
def test_all_options_together(shape):
    options = {"sliding_window": 18, "softcap": 3.0, "sinks": SINKS.to(DEVICE)}
    run_case(SHAPES[shape], "deft", width=(16, 24), **options)


def test_tree_mask_with_softcap_and_sinks():
    run_case(SHAPES["ragged"], "tree_mask", softcap=3.0, sinks=SINKS.to(DEVICE))


@pytest.mark.parametrize("dtype", DTYPES)
def test_sinks_have_the_dtype_of_the_model(dtype):
    run_case(SHAPES["ragged"], "deft", dtype, sinks=SINKS.to(DEVICE, dtype))


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_runs_are_bit_identical(variant):
    first, second = (run_case(SHAPES["ragged"], variant, torch.float16) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", DTYPES)
def test_more_partial_results_than_one_load_takes(dtype):
    chain = [(i - 1, 1 + i % 5, int(i > 30)) for i in range(40)]
    run_case(chain, "deft_node", dtype, heads=(2, 1), sinks=SINKS[:2].to(DEVICE))


@settings(max_examples=2, deadline=None)
@given(node_lists(max_queries=9), st.sampled_from(VARIANTS), st.integers(1, 30))
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_forests(dtype, nodes, variant, window):
    options = {} if variant == "tree_mask" else {"sliding_window": window}
    run_case(nodes, variant, dtype, **options)


@settings(max_examples=2, deadline=None)
@given(node_lists(max_nodes=20, max_queries=1))
@pytest.mark.parametrize("variant", VARIANTS)
def test_random_decoding(variant, nodes):
    run_case(nodes, variant, heads=(4, 2), width=(16, 24))


@pytest.mark.parametrize("scale", [1e-6, 30.0], ids=["flat", "sharp"])
def test_scales(scale):
    run_case(SHAPES["ragged"], "deft", scale=scale)


def test_transposed_queries_and_given_output():
    """Models give tensors with heads first; there may be more rows than the plan has queries."""
    tree = make_tree(SHAPES["binary"], seed=2)
    q, k, v = make_tensors(tree, 2, dtype=torch.float16, device=DEVICE)
    plan = device_plan(tree, (6, 2), dtype=torch.float16)
    padded = torch.cat([q, q.new_full((3, 6, 16), float("nan"))])
    transposed = padded.transpose(0, 1).contiguous().transpose(0, 1)
    assert not transposed.is_contiguous()
    out = torch.full((len(padded), 2, 6, 16), 7.0, dtype=torch.float16, device=DEVICE)
    given_back = run_poisoned(transposed, k, v, plan, scale=0.25, out=out[:, 1])
    assert given_back.data_ptr() == out[:, 1].data_ptr()
    assert_accurate(out[: len(q), 1], q, k, v, tree.paths, scale=0.25)
    assert (out[:, 0] == 7).all() and (out[len(q) :] == 7).all(), "written where nothing was due"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", ["forest", "inner_query", "empty_leaf"])
def test_plan_of_segments_equals_torch_attention(shape, variant):
    """The engine gives a list of segments, with queries in depth-first order."""
    tree = make_tree(SHAPES[shape], seed=3)
    q, k, v = make_tensors(tree, 3, device=DEVICE)
    q = q[tree.order]
    segments, table = Segments.of_list(tree.segments, np.array(tree.positions))
    plan = TreePlan.of_segments(
        segments,
        np.array(tree.positions),
        torch.from_numpy(table).to(DEVICE),
        AttentionSpec(6, 2, 16, dtype=torch.float32),
        variant,
    )
    options = {"softcap": 4.0} if variant == "tree_mask" else {"sliding_window": 11}
    buckets = torch_attention.build_plan(tree.positions, tree.segments, DEVICE)
    expected = torch_attention.tree_attention(q, k, v, buckets, scale=0.25, **options)
    actual = run_poisoned(q, k, v, plan, scale=0.25, **options)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_heads", "widths"), [(1, (16, 16)), (3, (80, 24))], ids=str)
def test_write_kv_equals_index_copy(num_heads, widths, dtype):
    generator = torch.Generator().manual_seed(0)
    slots = torch.randperm(40, generator=generator)[:17].to(DEVICE)
    pools, written, expected = [], [], []
    for width in widths:
        pools.append(torch.full((40, num_heads, width), float("nan"), dtype=dtype, device=DEVICE))
        # As the projections give them: tokens, then heads; of a larger tensor, and transposed.
        rows = torch.randn(num_heads, 17, 2 * width, generator=generator).to(DEVICE, dtype)
        written.append(rows[:, :, :width].transpose(0, 1))
        expected.append(pools[-1].index_copy(0, slots, written[-1]))
    write_kv(*written, *pools, slots)
    for pool, wanted in zip(pools, expected, strict=True):
        torch.testing.assert_close(pool, wanted, rtol=0, atol=0, equal_nan=True)


def test_write_kv_leaves_out_what_has_no_slot():
    pool, rows = torch.ones(3, 2, 16, device=DEVICE), torch.full((2, 2, 16), 5.0, device=DEVICE)
    write_kv(rows, rows, pool, pool, torch.tensor([-1, 1], device=DEVICE))
    assert pool[:, 0, 0].tolist() == [1, 5, 1]


def test_write_kv_of_nothing():
    pool = torch.ones(3, 2, 16, device=DEVICE)
    nothing, slots = pool[:0], torch.empty(0, dtype=torch.int64, device=DEVICE)
    write_kv(nothing, nothing, pool, pool, slots)
    assert (pool == 1).all()
