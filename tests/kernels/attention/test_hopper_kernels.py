"""The warp-specialized kernel against the reference, interpreted."""

import pytest
import torch
from attention_check import DEVICE, assert_accurate, device_plan
from gluon_interpreter import interpreted
from trees import SHAPES, VERIFICATION, make_tensors, make_tree, random_nodes

from treeshare.kernels.attention import tree_attention as launcher

STAR = [(-1, 700, 0), *((0, 1, 1) for _ in range(17))]
PREFILL = [(-1, 300, 60)]
IN_TURNS = [(-1, 64, 1), (-1, 65, 1), (0, 640, 1), (1, 129, 1), (0, 1, 1)]

pytestmark = pytest.mark.skipif(DEVICE == "cuda", reason="test_gpu.py runs the kernel itself")


@pytest.fixture(autouse=True)
def warp_specialized(monkeypatch):
    module = interpreted("attention.hopper_kernels")
    name = "partial_attention_warp_specialized"
    monkeypatch.setattr(launcher, name, getattr(module, name))
    monkeypatch.setattr(launcher, "use_warp_specialized", lambda q, k, v, plan: True)


def case(nodes, heads, variant="deft_flatten", **options):
    tree = make_tree(nodes, seed=0, growth=options.get("growth", 0))
    tensors = make_tensors(tree, 0, heads, 128, dtype=torch.float16)
    plan = device_plan(tree, heads, variant, 128, torch.float16, **options)
    assert plan.rows == 64
    return tree, tensors, plan


def check(paths, tensors, plan):
    actual = launcher.tree_attention(*tensors, plan, scale=0.09)
    assert_accurate(actual, *tensors, paths, scale=0.09)


@pytest.mark.parametrize("heads", [(4, 1), (3, 1), (16, 1)], ids=str)
@pytest.mark.parametrize(
    "nodes",
    [STAR, VERIFICATION, PREFILL, IN_TURNS, [(-1, 1, 1)], [(-1, 64, 9)], [(-1, 128, 1)]],
    ids=["star", "verification", "prefill", "in turns", "one entry", "one block", "two blocks"],
)
def test_equals_reference(nodes, heads):
    tree, tensors, plan = case(nodes, heads, "deft_node")  # which cuts no node
    check(tree.paths, tensors, plan)


@pytest.mark.parametrize("variant", ["deft_flatten", "deft_node_chunk"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape, variant):
    tree, tensors, plan = case(SHAPES[shape], (6, 2), variant)
    check(tree.paths, tensors, plan)


@pytest.mark.parametrize("seed", range(4))
def test_random_forests(seed):
    nodes = random_nodes(seed, max_nodes=20, max_length=300, max_queries=20)
    tree, tensors, plan = case(nodes, (4, 2))
    check(tree.paths, tensors, plan)


def test_leaves_that_grow():
    tree, tensors, plan = case(IN_TURNS, (4, 1), growth=70)
    for step in (0, 1, 63, 70):
        plan.step.fill_(step)
        check(tree.grown(step), tensors, plan)


def test_items_beyond_those_of_the_plan():
    """As many programs are launched as the capacity has items, whatever the plan holds."""
    _, _, fitting = case(STAR, (4, 1))
    tree, tensors, plan = case(STAR, (4, 1), capacity=fitting.capacity.times(2))
    assert plan.capacity.items > len(plan.work.items)
    check(tree.paths, tensors, plan)
