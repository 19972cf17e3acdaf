"""The planner on the device makes the same work list as the one in NumPy, whatever the capacity.

A forest that exceeds the capacity is reported, and the plan is empty."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attention_check import DEVICE
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import SHAPES, make_tree, node_lists, random_nodes

from treeshare.experiments.bench.attention.workloads import build
from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.device_forest import FIELDS
from treeshare.kernels.planning.device_plan import STATUS, DevicePlanner, refuse
from treeshare.kernels.planning.forest import Forest
from treeshare.kernels.planning.gpu_profile import H100, TILE_ROWS_LARGE, TILE_ROWS_SMALL
from treeshare.kernels.planning.segments import Segments
from treeshare.kernels.planning.variants import tile_and_split
from treeshare.kernels.planning.work_list import Capacity, Growth

BOTH_TILE_ROWS = [TILE_ROWS_SMALL, TILE_ROWS_LARGE]
# An attention, and the GPU that it runs on.
ON_H100 = [
    (AttentionSpec(*heads, head_dim=128), H100) for heads in ((32, 8), (32, 32), (16, 1), (9, 3))
]
SMALL = AttentionSpec(num_heads=6, num_kv_heads=2, head_dim=64), replace(H100, num_sms=4)


def on_host(forest, target, rows, steps=0):
    """The work list; rows and positions of the queries; the capacity that it needs."""
    segments, row, position = Segments.of_forest(forest)
    tail = (forest.start + forest.length).repeat(forest.num_queries)
    growth = Growth(tail[row], position + 1, steps) if steps else None
    work = tile_and_split("deft", segments, len(row), *target, rows, growth)
    return work, row, position, Capacity.of(work, len(row), len(forest.parent))


def on_device(forest, target, rows, capacity, steps=0):
    planner = DevicePlanner(*target, rows, steps, capacity, torch.device(DEVICE))
    columns = np.full((len(FIELDS), capacity.nodes + 1), 77, dtype=np.int32)  # an old forest's
    assert planner.pack(forest, columns) == forest.num_queries.sum()
    return planner.plan(torch.from_numpy(columns).to(DEVICE))


def check(forest, target, rows, factor, steps=0):
    host, row, position, need = on_host(forest, target, rows, steps)
    room = need if factor is None else need.times(factor)
    work = on_device(forest, target, rows, room, steps)
    assert work.status.tolist() == [0, *(getattr(need, name) for name in STATUS[1:])]
    assert (work.num_items.item(), work.num_copies.item()) == (need.items, need.copies)
    for name, expected in [
        ("items", host.items),
        ("copies", host.copies),
        ("reduce_offset", host.reduce_offset),
        ("reduce_row", host.reduce_row),
        ("row", row),
        ("position", position),
    ]:
        actual = getattr(work, name).cpu().numpy()
        assert np.array_equal(actual[: len(expected)], expected), name
    assert (work.reduce_offset[need.queries :] == need.partials).all(), "rows without a query"
    assert work.row.tolist()[need.queries :] == list(range(need.queries, room.queries))


@pytest.mark.parametrize("factor", [None, 1.5], ids=["exact", "more"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape, factor):
    for rows in BOTH_TILE_ROWS:
        check(make_tree(SHAPES[shape], seed=0).forest, SMALL, rows, factor)


@settings(max_examples=150, deadline=None)
@given(
    node_lists(max_nodes=60, max_length=200, max_queries=30),
    st.sampled_from([SMALL, *ON_H100]),
    st.sampled_from(BOTH_TILE_ROWS),
    st.sampled_from([None, 1.0, 2.5]),
)
def test_random_forests(nodes, target, rows, factor):
    check(make_tree(nodes, seed=0).forest, target, rows, factor)


@settings(max_examples=60, deadline=None)
@given(
    node_lists(max_nodes=60, max_queries=1),
    st.sampled_from([SMALL, ON_H100[0]]),
    st.sampled_from([None, 1.0, 2.5]),
    st.sampled_from([1, 64]),
)
def test_growth(nodes, target, factor, steps):
    forest = make_tree(nodes, seed=0, growth=steps).forest
    for rows in BOTH_TILE_ROWS:
        check(forest, target, rows, factor, steps)


@pytest.mark.parametrize("group", ["fasttree", "few_shot", "star", "chain", "random"])
def test_workloads(group):
    for workload in build([group]):
        for target in ON_H100:
            for rows in BOTH_TILE_ROWS:
                check(workload.forest, target, rows, 1.5)


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 4, 15, 16, 17, 1000])
def test_chains_of_any_length(num_nodes):
    """The sums over a walk must reach its beginning."""
    count = np.arange(num_nodes)
    forest = Forest.packed(count - 1, 1 + count % 3, np.ones_like(count))
    check(forest, SMALL, TILE_ROWS_LARGE, None)


LARGE = [(-1, 700, 0), *((0, 3, 1) for _ in range(40)), *((4, 70, 1) for _ in range(9))]


@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("name", STATUS[1:])
def test_no_room(name, steps):
    forest = make_tree(LARGE, seed=0, growth=steps).forest
    *_, need = on_host(forest, SMALL, TILE_ROWS_LARGE, steps)
    wanted = getattr(need, name)
    room = replace(need.times(2), **{name: wanted - 1})
    work = on_device(forest, SMALL, TILE_ROWS_LARGE, room, steps)
    status = dict(zip(STATUS, work.status.tolist(), strict=True))
    assert status[name] == wanted
    assert (work.num_items.item(), work.num_copies.item()) == (0, 0)
    assert not work.reduce_offset.any()
    with pytest.raises(ValueError, match=f"needs {wanted} {name}, the plan has room for"):
        refuse(work.status.tolist(), room)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 3]))
def test_hardly_any_room_at_all(seed, steps):
    """Nothing is looked up or written beyond the capacity, whatever exceeds it."""
    nodes = random_nodes(seed, max_nodes=40, max_length=200, max_queries=1 if steps else 9)
    forest = make_tree(nodes, seed=0, growth=steps).forest
    *_, need = on_host(forest, SMALL, TILE_ROWS_LARGE, steps)
    rng = np.random.default_rng(seed)
    room = {name: int(rng.integers(1, max(getattr(need, name), 1) + 1)) for name in STATUS[1:]}
    room = replace(need, **room)
    work = on_device(forest, SMALL, TILE_ROWS_LARGE, room, steps)
    is_enough = all(getattr(room, name) >= getattr(need, name) for name in STATUS[1:])
    assert (work.num_items.item() > 0) == is_enough


@pytest.mark.parametrize(
    ("columns", "query"),
    [
        (([-1, -1, -1], [5, 0, 4], [1, 1, 1]), 1),
        (([-1, 0, 1, 1], [0, 0, 0, 2], [0, 0, 3, 1]), 0),
        (([-1], [0], [2]), 0),
    ],
    ids=["root", "below", "all"],
)
def test_a_query_that_sees_nothing(columns, query):
    room = Capacity(nodes=9, queries=9, copies=9, entries=900, items=9, partials=9)
    work = on_device(Forest.packed(*map(np.array, columns)), SMALL, TILE_ROWS_LARGE, room)
    assert work.num_items.item() == work.num_copies.item() == 0
    with pytest.raises(ValueError, match=f"^query {query} in depth-first order sees no KV entry$"):
        refuse(work.status.tolist(), room)


@pytest.mark.parametrize("steps", [0, 3])
def test_no_operation_asks_for_a_number(steps):
    """The meta device has no numbers, so an operation that waits for one raises an error there.

    So does one whose size depends on a number, and one that uses a tensor of the host.
    """
    room = Capacity(nodes=50, queries=20, copies=100, entries=4096, items=30, partials=40)
    meta = torch.device("meta")
    planner = DevicePlanner(*SMALL, TILE_ROWS_LARGE, steps, room, meta)
    work = planner.plan(torch.empty(len(FIELDS), 51, dtype=torch.int32, device=meta))
    assert work.items.shape == (30, 8) and work.copies.shape == (100, 8)
    assert {tensor.dtype for tensor in work} == {torch.int64}
