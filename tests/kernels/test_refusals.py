"""What plans, attention and the KV write refuse, each in one line that names the value."""

import re

import pytest
import torch
from attention_check import DEVICE, device_plan
from trees import SHAPES, make_tensors, make_tree

from treeshare.kernels.attention.tree_attention import tree_attention, write_kv
from treeshare.kernels.planning.attention_spec import AttentionSpec

pytestmark = pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim:DeprecationWarning"  # of Triton's interpreter
)

HEADS, SCALE = (6, 2), 0.25


@pytest.mark.parametrize(
    ("nodes", "options", "message"),
    [
        ([(-1, 5, 1)], {"variant": "fast"}, "variant='fast' is not one of deft, deft_node, "),
        ([(-1, 5, 1), (-1, 0, 1)], {}, "query 1 in depth-first order sees no KV entry"),
        ([(-1, 5, 2)], {"growth": 3}, "node 0 has 2 queries; one that grows has one"),
        ([(-1, 5, 1)], {"growth": 3, "variant": "deft_node"}, "variant='deft_node' cannot grow; "),
        ([(-1, 5, 1)], {"growth": 3, "variant": "tree_mask"}, "variant='tree_mask' cannot grow; "),
    ],
    ids=["variant", "sees_nothing", "grows_two", "node_grows", "mask_grows"],
)
def test_plan_refuses(nodes, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        device_plan(make_tree(nodes, seed=0), HEADS, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 4, 16), "num_heads=6 must be a multiple of num_kv_heads=4"),
        ((0, 2, 16), "num_heads=0 must be a multiple of num_kv_heads=2"),
        ((130, 2, 16), "130 heads share 2 KV heads; at most 64 may share one"),
        ((4, 2, 16, 257), "a head dimension of 257 exceeds 256"),
        ((4, 2, 264), "a head dimension of 264 exceeds 256"),
        ((4, 2, 16, None, torch.float64), "dtype=torch.float64 is not one of torch.float16, "),
    ],
    ids=["multiple", "no_heads", "group", "value_dim", "head_dim", "dtype"],
)
def test_attention_spec_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        AttentionSpec(*arguments)


def changed(**changes):
    """Arguments of `tree_attention` for a plan of fp32, some changed."""
    tree = make_tree(SHAPES["binary"], seed=0)
    q, k, v = make_tensors(tree, 0, HEADS, device=DEVICE)
    given = {"q": q, "k_pool": k, "v_pool": v, "plan": device_plan(tree, HEADS), "scale": SCALE}
    for name, change in changes.items():
        given[name] = change(given[name]) if callable(change) else change
    return given


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 0.0}, "scale=0.0 must be above 0"),
        ({"scale": float("nan")}, "scale=nan must be above 0"),
        ({"sliding_window": 0}, "sliding_window=0 must be above 0"),
        ({"softcap": -1.0}, "softcap=-1.0 must be above 0"),
        ({"q": lambda q: q[:, :4]}, "q is (4, 4, 16) torch.float32; the plan is for (..., 6, 16)"),
        ({"q": lambda q: q.half()}, "q is (4, 6, 16) torch.float16; the plan is for"),
        ({"q": lambda q: q[0]}, "q is (6, 16) torch.float32; the plan is for"),
        ({"q": lambda q: q[:3]}, "q has 3 rows with a last stride of 1; the plan needs 4 rows"),
        ({"q": lambda q: q.mT.contiguous().mT}, "q has 4 rows with a last stride of 6; the plan"),
        ({"k_pool": lambda k: k[:, :1]}, "k_pool is ("),
        ({"k_pool": lambda k: k.repeat(1, 1, 2)[..., :16]}, "k_pool has strides (64, 32, 1); it"),
        ({"v_pool": lambda v: v[..., :8].contiguous()}, "v_pool is ("),
        ({"v_pool": lambda v: v.transpose(0, 1).contiguous().transpose(0, 1)}, "v_pool has strid"),
        ({"v_pool": lambda v: v.half()}, "v_pool is ("),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_attention_refuses(changes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        tree_attention(**changed(**changes))


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((4, 6, 8), torch.float32, "out is (4, 6, 8) torch.float32, not (4, 6, 16) torch.float32"),
        ((3, 6, 16), torch.float32, "out is (3, 6, 16) torch.float32, not (4, 6, 16)"),
        ((4, 6, 16), torch.float16, "out is (4, 6, 16) torch.float16, not (4, 6, 16) torch.float"),
    ],
    ids=["width", "too_few_rows", "dtype"],
)
def test_attention_refuses_outputs(shape, dtype, message):
    out = torch.empty(shape, dtype=dtype, device=DEVICE)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        tree_attention(**changed(out=out))


def test_attention_refuses_an_output_of_transposed_heads():
    out = torch.empty(6, 4, 16, device=DEVICE).transpose(0, 1)
    with pytest.raises(ValueError, match=re.escape("out has strides (16, 64, 1); the last two")):
        tree_attention(**changed(out=out))


def test_tree_mask_has_no_window():
    tree = make_tree(SHAPES["binary"], seed=0)
    given = changed(plan=device_plan(tree, HEADS, "tree_mask"), sliding_window=3)
    with pytest.raises(ValueError, match="variant='tree_mask' has no sliding_window"):
        tree_attention(**given)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 2, 16), (2, 2, 16), (9, 2, 8), (9, 2, 16)), "k (2, 2, 16) and v (2, 2, 16) do not"),
        (((2, 2, 16), (2, 1, 16), (9, 2, 16), (9, 2, 16)), "k (2, 2, 16) and v (2, 1, 16) do not"),
    ],
    ids=["keys", "values"],
)
def test_write_kv_refuses_shapes(shapes, message):
    k, v, k_pool, v_pool = (torch.zeros(shape, device=DEVICE) for shape in shapes)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        write_kv(k, v, k_pool, v_pool, torch.tensor([3, 4], device=DEVICE))


def test_write_kv_refuses_a_pool_that_is_not_contiguous():
    rows, pool = torch.zeros(2, 2, 16, device=DEVICE), torch.zeros(2, 9, 16, device=DEVICE)
    pool = pool.transpose(0, 1)
    with pytest.raises(ValueError, match=re.escape("k_pool has strides (16, 144, 1); it must be")):
        write_kv(rows, rows, pool, pool, torch.tensor([3, 4], device=DEVICE))
