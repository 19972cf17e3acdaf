"""Plans that serve several steps: leaves that grow, other forests in the same memory."""

import dataclasses

import numpy as np
import pytest
import torch
from attention_check import (
    DEVICE,
    assert_accurate,
    capacity_of,
    device_plan,
    poisoned,
    run_poisoned,
)
from trees import SHAPES, make_tensors, make_tree, make_trees

from treeshare.kernels.attention.tree_attention import write_kv
from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.forest import Forest
from treeshare.kernels.planning.tree_plan import TreePlan
from treeshare.kernels.planning.variants import GROWING, VARIANTS
from treeshare.kernels.planning.work_list import Capacity

pytestmark = [
    # Rows of a tile that serve no query are divided by zero, and not stored.
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning"),
]

HEADS, WIDTH, SCALE = (6, 2), 16, 0.25
WIDE_TREE = [(-1, 700, 0), *((0, 3, 1) for _ in range(40))]
CAPACITY_FIELDS = [field.name for field in dataclasses.fields(Capacity)]
DECODING = ["chain", "star", "binary", "ragged", "single", "forest", "dead_branch"]


def make_case(nodes, seed=4, growth=0, dtype=torch.float32):
    tree = make_tree(nodes, seed, growth)
    return tree, *make_tensors(tree, seed, HEADS, WIDTH, dtype=dtype, device=DEVICE)


def plan_of(tree, variant="deft", dtype=torch.float32, **options):
    return device_plan(tree, HEADS, variant, WIDTH, dtype, **options)


def grow(tree, q, k, v, plan, steps):
    """Decode several steps on a plan that was made once."""
    generator = torch.Generator().manual_seed(5)
    for step in range(steps + 1):
        if step:
            plan.advance()
            slots = torch.tensor([path[-1] for path in tree.grown(step)], device=DEVICE)
            new = [torch.randn(len(q), 2, WIDTH, generator=generator) for _ in "kv"]
            write_kv(*(rows.to(DEVICE, q.dtype) for rows in new), k, v, slots)
        yield step, run_poisoned(q, k, v, plan, scale=SCALE)


@pytest.mark.parametrize("variant", GROWING)
def test_growth_equals_fresh_plans(variant):
    tree, q, k, v = make_case(SHAPES["binary"], growth=3)
    for step, actual in grow(tree, q, k, v, plan_of(tree, variant, growth=3), 3):
        assert_accurate(actual, q, k, v, tree.grown(step), scale=SCALE)
        length = tree.forest.length + step * tree.forest.num_queries
        now = dataclasses.replace(tree, forest=dataclasses.replace(tree.forest, length=length))
        expected = run_poisoned(q, k, v, plan_of(now), scale=SCALE)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [*DECODING, "empty_leaf", "interior"])
def test_growth_of_shapes(shape):
    """Queries of interior nodes grow too; no other query sees their new entries."""
    shapes = SHAPES | {"interior": [(-1, 63, 1), (0, 5, 0), (1, 0, 1), (1, 2, 1)]}
    nodes = [(parent, length, min(count, 1)) for parent, length, count in shapes[shape]]
    tree, q, k, v = make_case(nodes, growth=5, dtype=torch.float16)
    for step, actual in grow(tree, q, k, v, plan_of(tree, dtype=torch.float16, growth=5), 5):
        assert_accurate(actual, q, k, v, tree.grown(step), scale=SCALE)


def test_window_moves_with_the_leaves():
    tree, q, k, v = make_case(SHAPES["binary"], growth=4)
    plan = plan_of(tree, growth=4)
    for step in range(5):
        if step:
            plan.advance()
        actual = run_poisoned(q, k, v, plan, scale=SCALE, sliding_window=6)
        paths = tree.grown(step)
        assert_accurate(actual, q, k, v, paths, scale=SCALE, sliding_window=6)


def in_one_table(shapes, growth=0):
    """Trees with one table, their queries, and the pools."""
    shapes = [WIDE_TREE if shape == "wide" else SHAPES[shape] for shape in shapes]
    whole, trees = make_trees(shapes, 4, growth)
    q, k, v = make_tensors(whole, 4, HEADS, WIDTH, device=DEVICE)
    return [(tree, q[rows]) for tree, rows in trees], k, v


@pytest.mark.parametrize("variant", VARIANTS)
def test_update_equals_a_fresh_plan(variant):
    trees, k, v = in_one_table(["ragged", "forest", "inner_query", "single"])
    capacity = capacity_of(*(plan_of(tree, variant) for tree, _ in trees))
    plan = plan_of(trees[0][0], variant, capacity=capacity)
    for tree, q in trees:
        plan.update(tree.forest)
        assert plan.num_queries == len(q)
        actual = run_poisoned(q, k, v, plan, scale=SCALE)
        assert_accurate(actual, q, k, v, tree.paths, scale=SCALE)
        fresh = plan_of(tree, variant, capacity=capacity)
        assert torch.equal(actual, run_poisoned(q, k, v, fresh, scale=SCALE))


def test_update_with_growth_starts_at_step_0():
    trees, k, v = in_one_table(["binary", "star", "single"], growth=2)
    capacity = capacity_of(*(plan_of(tree, growth=2) for tree, _ in trees))
    plan = plan_of(trees[0][0], growth=2, capacity=capacity)
    for tree, q in trees:
        with poisoned():
            plan.update(tree.forest)
        assert plan.step.tolist() == [0]
        for step, actual in grow(tree, q, k, v, plan, 2):
            assert_accurate(actual, q, k, v, tree.grown(step), scale=SCALE)


def test_a_plan_without_capacity_takes_smaller_forests():
    ((large, _), (small, q)), k, v = in_one_table(["star", "chain"])
    plan = plan_of(large)
    plan.update(small.forest)
    actual = run_poisoned(q, k, v, plan, scale=SCALE)
    assert_accurate(actual, q, k, v, small.paths, scale=SCALE)


def test_too_small_a_capacity_is_refused_and_changes_nothing():
    ((small, q), (large, _)), k, v = in_one_table(["chain", "ragged"])
    plan = plan_of(small, capacity=dataclasses.replace(plan_of(small).capacity, nodes=9))
    before = run_poisoned(q, k, v, plan, scale=SCALE)
    with pytest.raises(ValueError, match=r"needs 3 queries, the plan has room for 1$"):
        plan.update(large.forest)
    assert plan.num_queries == 1
    assert torch.equal(run_poisoned(q, k, v, plan, scale=SCALE), before)


@pytest.mark.parametrize("name", CAPACITY_FIELDS)
def test_each_capacity_is_kept_to(name):
    tree, *_ = make_case(WIDE_TREE)
    plan = plan_of(tree, "deft_flatten")
    need = plan.capacity
    wanted = getattr(need, name)
    room = Capacity(**{n: getattr(need, n) - (n == name) for n in CAPACITY_FIELDS})
    message = f"needs {wanted} {name}, the plan has room for {wanted - 1}$"
    with pytest.raises(ValueError, match=message):
        plan_of(tree, "deft_flatten", capacity=room)
    plan_of(tree, "deft_flatten", capacity=need)


def test_what_only_the_device_finds_out():
    """After a forest that is too large, the plan is empty until the next update that fits."""
    ((small, small_q), (large, large_q)), k, v = in_one_table(["chain", "wide"])
    room = capacity_of(plan_of(small), plan_of(large))
    wanted = len(plan_of(large, capacity=room).work.items)
    room = dataclasses.replace(room, items=wanted - 1)
    plan = plan_of(small, capacity=room)
    plan.check()
    plan.update(large.forest)
    message = f"the forest needs {wanted} items, the plan has room for {wanted - 1}$"
    for status in (None, plan.status.cpu()):
        with pytest.raises(ValueError, match=message):
            plan.check(status)
    untouched = torch.full_like(large_q, 7)
    assert (run_poisoned(large_q, k, v, plan, scale=SCALE, out=untouched) == 7).all()
    plan.update(small.forest)
    plan.check()
    actual = run_poisoned(small_q, k, v, plan, scale=SCALE)
    assert_accurate(actual, small_q, k, v, small.paths, scale=SCALE)


def test_a_query_that_sees_nothing_is_found_by_check():
    tree, *_ = make_case(SHAPES["binary"])
    plan = plan_of(tree, capacity=plan_of(tree).capacity)
    plan.update(Forest.packed([-1, -1, -1], [3, 0, 0], [1, 1, 1]))
    with pytest.raises(ValueError, match="query 1 in depth-first order sees no KV entry"):
        plan.check()


def test_an_update_that_the_host_refuses_changes_nothing():
    tree, q, k, v = make_case(SHAPES["binary"], growth=1)
    plan = plan_of(tree, capacity=plan_of(tree, growth=1).capacity, growth=1)
    before = run_poisoned(q, k, v, plan, scale=SCALE)
    for columns, message in [
        (([-1], [3], [0]), "^no node has a query$"),
        (([-1], [3], [2]), "^node 0 has 2 queries; one that grows has one$"),
        (([-1] * 8, [1] * 8, [0] * 7 + [1]), "^the forest needs 8 nodes, the plan has room for 7$"),
    ]:
        with pytest.raises(ValueError, match=message):
            plan.update(Forest.packed(*map(np.array, columns)))
    plan.check()
    assert plan.work.num_reads and plan.num_queries == len(q)
    assert torch.equal(run_poisoned(q, k, v, plan, scale=SCALE), before)


def test_a_plan_made_on_the_device_has_no_work_on_the_host():
    tree, *_ = make_case(SHAPES["binary"])
    plan = plan_of(tree, capacity=plan_of(tree).capacity)
    plan.update(tree.forest)
    with pytest.raises(ValueError, match="planned on the device; `status` has its sizes"):
        _ = plan.work


@pytest.mark.parametrize("factor", [1.0, 1.5, 3])
def test_times_gives_at_least_that_room(factor):
    need = Capacity(nodes=1, queries=23, copies=35, entries=4000, items=51, partials=67)
    room = need.times(factor)
    for name in CAPACITY_FIELDS:
        assert getattr(room, name) >= factor * getattr(need, name)


def test_update_cannot_reorder_a_plan_of_ordered_queries():
    """Of three leaves, the last is below the first."""
    tree, *_ = make_case([(-1, 5, 1), (-1, 4, 1), (0, 3, 1)])
    ordered = dataclasses.replace(tree.forest, parent=np.array([-1, -1, -1]))
    plan = TreePlan(ordered, torch.from_numpy(tree.table).to(DEVICE), AttentionSpec(*HEADS, WIDTH))
    with pytest.raises(ValueError, match="give it a capacity to update"):
        plan.update(tree.forest)
