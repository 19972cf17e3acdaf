"""Tests that need a GPU: bf16, CUDA graphs, sizes, addresses beyond 32 bits, waiting."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attention_check import DEVICE, assert_accurate, capacity_of, device_plan, run_poisoned
from trees import SHAPES, make_tensors, make_tree, make_trees, random_nodes

from treeshare.kernels.attention import tree_attention as launcher
from treeshare.kernels.attention.tree_attention import tree_attention, write_kv
from treeshare.kernels.planning.tree_plan import Capacity
from treeshare.kernels.planning.variants import VARIANTS

pytestmark = pytest.mark.gpu

BF16, FP16 = torch.bfloat16, torch.float16
FEW_SHOT = [(-1, 1003, 0), *((0, 17 + 5 * i, 1) for i in range(37))]
DEEP = [(-1, 301, 0), *(((i - 1) // 2, 31 + 7 * (i % 9), int(i >= 31)) for i in range(1, 63))]
VERIFICATION = [(-1, 777, 0), *((0, 9, 9) for _ in range(11)), (3, 4, 4)]
LEAVES_4096 = [
    (-1, 513, 0),
    *((0, 19, 0) for _ in range(64)),
    *((1 + i % 64, 1 + i % 7, 1) for i in range(4096)),
]
TOKENS_200K = [
    (-1, 150_001, 0),
    (0, 20_011, 0),
    (0, 15_013, 1),
    *((1, 1_900 + i, 1) for i in range(9)),
]


def check_rows(tree, q, k, v, actual, every, **options):
    """Check that some rows are accurate and all are finite."""
    rows = np.arange(0, len(q), every)
    assert actual.isfinite().all()
    paths = [tree.paths[row] for row in rows]
    assert_accurate(actual[rows], q[rows], k, v, paths, **options)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("nodes", [FEW_SHOT, DEEP, VERIFICATION], ids=["few_shot", "deep", "check"])
@pytest.mark.parametrize(
    ("heads", "width"), [((32, 8), 128), ((14, 2), 64), ((9, 3), 64), ((16, 1), 256)], ids=str
)
def test_bf16(heads, width, nodes, variant):
    tree = make_tree(nodes, seed=0)
    q, k, v = make_tensors(tree, 0, heads, width, dtype=BF16, device=DEVICE)
    plan = device_plan(tree, heads, variant, width, BF16)
    options = {"scale": width**-0.5, "sinks": torch.linspace(-2, 3, heads[0], device=DEVICE)}
    if variant != "tree_mask":
        options["sliding_window"] = 700
    actual = run_poisoned(q, k, v, plan, **options)
    assert_accurate(actual, q, k, v, tree.paths, **options)


@pytest.fixture
def warp_specialized(monkeypatch):
    """Use the warp-specialized kernel for all tiles of 64 rows."""
    is_hopper = torch.cuda.get_device_capability()[0] == 9
    monkeypatch.setattr(launcher, "use_warp_specialized", lambda q, k, v, plan: is_hopper)


@pytest.mark.parametrize("variant", ["deft_node", "deft_node_chunk", "deft_flatten"])
@pytest.mark.parametrize(
    "nodes",
    [FEW_SHOT, DEEP, VERIFICATION, [(-1, 1, 1)], [(-1, 64, 30)], [(-1, 65, 9), (0, 700, 300)]],
    ids=["few_shot", "deep", "check", "one entry", "one block", "prefill"],
)
@pytest.mark.parametrize("heads", [(32, 8), (32, 32), (9, 3), (16, 1)], ids=str)
@pytest.mark.parametrize("dtype", [BF16, FP16], ids=str)
def test_warp_specialized(warp_specialized, dtype, heads, nodes, variant):
    tree = make_tree(nodes, seed=0)
    q, k, v = make_tensors(tree, 0, heads, 128, dtype=dtype, device=DEVICE)
    plan = device_plan(tree, heads, variant, 128, dtype)
    assert plan.rows == 64
    # What an earlier kernel left in shared memory must not get into the result.
    run_poisoned(q, torch.full_like(k, torch.nan), torch.full_like(v, torch.nan), plan, scale=0.09)
    actual = run_poisoned(q, k, v, plan, scale=0.09)
    assert_accurate(actual, q, k, v, tree.paths, scale=0.09)
    for _ in range(20):
        assert torch.equal(run_poisoned(q, k, v, plan, scale=0.09), actual)


@pytest.mark.parametrize("seed", range(8))
def test_random_forests_warp_specialized(warp_specialized, seed):
    tree = make_tree(random_nodes(seed, max_nodes=100, max_length=300, max_queries=20), seed)
    q, k, v = make_tensors(tree, seed, (32, 8), 128, dtype=FP16, device=DEVICE)
    plan = device_plan(tree, (32, 8), "deft_flatten", 128, FP16)
    check_rows(tree, q, k, v, run_poisoned(q, k, v, plan, scale=0.09), 3, scale=0.09)


def test_when_the_warp_specialized_kernel_is_used(monkeypatch):
    """For tiles with a multiprocessor each that read the same, in 16 bits and without options."""
    launched = []
    monkeypatch.setattr(
        launcher, "partial_attention_warp_specialized", lambda *_: launched.append(1)
    )

    def is_launched(nodes, dtype=FP16, width=128, **options):
        tree = make_tree(nodes, seed=0)
        q, k, v = make_tensors(tree, 0, (32, 8), width, dtype=dtype, device=DEVICE)
        plan = device_plan(tree, (32, 8), "deft", width, dtype)
        launched.clear()
        tree_attention(q, k, v, plan, scale=0.09, **options)
        return bool(launched)

    star = [(-1, 1000, 0), *((0, 1, 1) for _ in range(256))]  # 128 programs
    device = torch.cuda.get_device_properties(0)
    assert is_launched(star) == (device.major == 9 and device.multi_processor_count >= 128)
    assert not is_launched(star, sliding_window=100) and not is_launched(star, softcap=1.0)
    assert not is_launched(star, torch.float32) and not is_launched(star, width=64)
    assert not is_launched(FEW_SHOT) and not is_launched([(-1, 1000, 1)] * 8)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(8))
def test_random_forests(seed, variant):
    nodes = random_nodes(seed, max_nodes=100, max_length=300, max_queries=20)
    tree = make_tree(nodes, seed)
    q, k, v = make_tensors(tree, seed, (8, 2), 64, dtype=FP16, device=DEVICE)
    plan = device_plan(tree, (8, 2), variant, 64, FP16)
    check_rows(tree, q, k, v, run_poisoned(q, k, v, plan, scale=0.125), 3, scale=0.125)


@pytest.mark.parametrize("variant", VARIANTS)
def test_4096_leaves(variant):
    tree = make_tree(LEAVES_4096, seed=1)
    q, k, v = make_tensors(tree, 1, (8, 2), 128, dtype=FP16, device=DEVICE)
    plan = device_plan(tree, (8, 2), variant, 128, FP16)
    check_rows(tree, q, k, v, run_poisoned(q, k, v, plan, scale=0.09), 97, scale=0.09)


@pytest.mark.parametrize("variant", VARIANTS)
def test_200_000_tokens(variant):
    tree = make_tree(TOKENS_200K, seed=2)
    assert tree.forest.length.sum() > 200_000
    q, k, v = make_tensors(tree, 2, (4, 2), 64, dtype=BF16, device=DEVICE)
    plan = device_plan(tree, (4, 2), variant, 64, BF16)
    check_rows(tree, q, k, v, run_poisoned(q, k, v, plan, scale=0.125), 3, scale=0.125)


@pytest.mark.parametrize("variant", VARIANTS)
def test_repeats_are_bit_identical(variant):
    tree = make_tree(FEW_SHOT, seed=3)
    q, k, v = make_tensors(tree, 3, (32, 8), 128, dtype=FP16, device=DEVICE)
    first = None
    for _ in range(10):
        plan = device_plan(tree, (32, 8), variant, 128, FP16)
        outputs = [run_poisoned(q, k, v, plan, scale=0.09) for _ in range(3)]
        first = outputs[0] if first is None else first
        assert all(torch.equal(output, first) for output in outputs)


def test_slots_beyond_2_31_elements():
    heads, width, num_slots = (16, 8), 128, 2_200_000
    assert num_slots * heads[1] * width > 2**31
    tree = make_tree(DEEP, seed=4)
    q, k, v = make_tensors(tree, 4, heads, width, dtype=FP16, device=DEVICE)
    slots = torch.from_numpy(tree.table).long().to(DEVICE)
    far = num_slots - 1 - slots * (num_slots // tree.num_slots)
    assert far.max() * heads[1] * width > 2**31
    pools = [torch.empty(num_slots, heads[1], width, dtype=FP16, device=DEVICE) for _ in "kv"]
    write_kv(k[slots], v[slots], *pools, far)
    assert torch.equal(pools[0][far], k[slots]) and torch.equal(pools[1][far], v[slots])
    plan = device_plan(tree, heads, "deft", width, FP16)
    expected = tree_attention(q, k, v, plan, scale=0.09)
    tree.table[:] = far.cpu().numpy()
    actual = run_poisoned(q, *pools, device_plan(tree, heads, "deft", width, FP16), scale=0.09)
    assert torch.equal(actual, expected)
    assert_accurate(actual, q, k, v, tree.paths, scale=0.09)


def tree_of(tree, steps):
    """The tree whose leaves have grown."""
    length = tree.forest.length + steps * tree.forest.num_queries
    return replace(tree, forest=replace(tree.forest, length=length), paths=tree.grown(steps))


def captured(step):
    """A graph of `step` and its output; `step` is run once before, so that Triton compiles."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step()
    return graph, output


@pytest.mark.parametrize("options", [{}, {"sliding_window": 100}], ids=["all", "window"])
@pytest.mark.parametrize("variant", ["deft", "sequence"])
def test_one_graph_serves_leaves_that_grow(variant, options):
    heads, width, steps, options = (32, 8), 128, 64, {"scale": 0.09} | options
    tree = make_tree(DEEP, seed=5, growth=steps)
    q, k, v = make_tensors(tree, 5, heads, width, dtype=FP16, device=DEVICE)
    plan = device_plan(tree, heads, variant, width, FP16, growth=steps)
    new_k, new_v = (torch.zeros(len(q), heads[1], width, dtype=FP16, device=DEVICE) for _ in "kv")
    ends = (tree.forest.start + tree.forest.length).repeat(tree.forest.num_queries)
    ends = torch.from_numpy(ends).to(DEVICE)

    def step():
        plan.advance()
        write_kv(new_k, new_v, k, v, plan.buffers.table[ends + plan.step - 1].long())
        return tree_attention(q, k, v, plan, **options)

    graph, output = captured(step)
    plan.step.zero_()
    for number in range(1, steps + 1):
        for tensor in (q, new_k, new_v):
            tensor.normal_()
        graph.replay()
        assert plan.step.item() == number
        last = torch.tensor([path[-1] for path in tree.grown(number)], device=DEVICE)
        assert torch.equal(k[last], new_k) and torch.equal(v[last], new_v)
        assert torch.equal(output, tree_attention(q, k, v, plan, **options)), "graph and eager"
        grown = tree_of(tree, number)
        check_rows(grown, q, k, v, output, 7, **options)
        fresh = device_plan(grown, heads, variant, width, FP16)
        expected = tree_attention(q, k, v, fresh, **options)
        torch.testing.assert_close(output, expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "tree_mask"])
def test_one_graph_serves_other_forests(variant):
    heads, width = (32, 8), 128
    lists = [FEW_SHOT, DEEP, SHAPES["single"], VERIFICATION, SHAPES["forest"], FEW_SHOT]
    whole, trees = make_trees(lists, seed=6)
    all_q, k, v = make_tensors(whole, 6, heads, width, dtype=FP16, device=DEVICE)
    capacity = capacity_of(
        *(device_plan(tree, heads, variant, width, FP16) for tree, _ in trees)
    ).times(1.5)
    plan = device_plan(trees[0][0], heads, variant, width, FP16, capacity=capacity)
    q = torch.zeros(capacity.queries, *all_q.shape[1:], dtype=FP16, device=DEVICE)
    output = torch.empty_like(q)
    graph, _ = captured(lambda: tree_attention(q, k, v, plan, scale=0.09, out=output))
    for tree, rows in trees:
        count = len(tree.paths)
        q[:count] = all_q[rows]
        output.fill_(float("nan"))
        plan.update(tree.forest)
        graph.replay()
        assert output[count:].isnan().all(), "rows that the forest does not have"
        check_rows(tree, all_q[rows], k, v, output[:count], 5, scale=0.09)
        eager = tree_attention(q[:count], k, v, plan, scale=0.09)
        assert torch.equal(eager, output[:count])


@pytest.mark.parametrize("growth", [0, 8])
@pytest.mark.parametrize("factor", [1, 3])
def test_the_device_plans_what_the_host_plans(factor, growth):
    """Items, copies and the reduction's lists, for one plan that takes one forest after another."""
    most = 1 if growth else 9
    lists = [
        random_nodes(seed, max_nodes=200, max_length=300, max_queries=most) for seed in range(9)
    ]
    if not growth:
        lists += [FEW_SHOT, DEEP, VERIFICATION]
    _, trees = make_trees(lists, seed=9, growth=growth)
    hosts = [device_plan(tree, (32, 8), "deft", 128, FP16, growth=growth) for tree, _ in trees]
    room = {"growth": growth, "capacity": capacity_of(*hosts).times(factor)}
    plan = device_plan(trees[0][0], (32, 8), "deft", 128, FP16, **room)
    for tree, _ in trees:
        plan.update(tree.forest)
        plan.check()
        host = device_plan(tree, (32, 8), "deft", 128, FP16, **room).work
        count = Capacity.of(host, plan.num_queries, len(tree.forest.parent))
        buffers = plan.buffers
        assert (buffers.num_items.item(), buffers.num_copies.item()) == (count.items, count.copies)
        for name in ("items", "copies", "reduce_offset", "reduce_row"):
            expected = getattr(host, name)
            actual = getattr(buffers, name).cpu().numpy()
            assert np.array_equal(actual[: len(expected)], expected), name


def test_output_is_there_for_the_next_kernel():
    """The reduction starts early and has nothing to do here; it must not end too soon."""
    whole, trees = make_trees([FEW_SHOT, [(-1, 64, 1)] * 2000], seed=7)
    q, k, v = make_tensors(whole, 7, (32, 8), 128, dtype=FP16, device=DEVICE)
    plans = [device_plan(tree, (32, 8), "deft", 128, FP16) for tree, _ in trees]
    plan = device_plan(trees[0][0], (32, 8), width=128, dtype=FP16, capacity=capacity_of(*plans))
    tree, rows = trees[1]
    plan.update(tree.forest)
    assert plan.status.tolist()[-1] == 0 and plan.capacity.partials > 0  # no partial result
    for _ in range(20):
        out = torch.full_like(q[rows], float("nan"))
        tree_attention(q[rows], k, v, plan, scale=0.09, out=out)
        at_once = out.clone()
        torch.cuda.synchronize()
        assert torch.equal(at_once, out)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("growth", [0, 8])
def test_nothing_waits_for_the_device(growth):
    heads, width = (32, 8), 128
    whole, trees = make_trees([FEW_SHOT, DEEP], seed=8, growth=growth)
    q, k, v = make_tensors(whole, 8, heads, width, dtype=FP16, device=DEVICE)
    plans = [device_plan(tree, heads, "deft", width, FP16, growth=growth) for tree, _ in trees]
    room = {"growth": growth, "capacity": capacity_of(*plans)}
    plan = device_plan(trees[0][0], heads, "deft", width, FP16, **room)
    slots = torch.arange(8, device=DEVICE)

    def work(tree, rows):
        plan.update(tree.forest)
        if growth:
            plan.advance()
            write_kv(k[:8], v[:8], k, v, slots)
        return tree_attention(q[rows], k, v, plan, scale=0.09)

    work(*trees[0])  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for tree, rows in trees:
            work(tree, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
