"""Captured plans hold any forest: one that exceeds them makes larger ones and is never an error."""

import collections
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import make_tree, random_nodes

from treeshare.kernels.planning import plan_buffers, tree_plan
from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.device_plan import STATUS
from treeshare.kernels.planning.forest import Forest
from treeshare.llm_backend.model.attention import make_backend

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ENTRIES = 4096
TABLE = torch.arange(ENTRIES, dtype=torch.int32, device=DEVICE)
HEADS = st.sampled_from([(6, 6), (9, 3), (32, 8), (16, 1)])
DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32])
EVEN = [(-1, 400, 0), *((0, 10, 1) for _ in range(8))]
ALONE = [(-1, 40 + i, 1) for i in range(30)]  # nothing is shared: small tiles read no more


@pytest.fixture(autouse=True)
def no_expansion(monkeypatch):
    """Here plans are made and not run, so Triton's interpreter need not lay out their entries."""
    if not torch.cuda.is_available():
        kernel = collections.defaultdict(lambda: lambda *_, **__: None)
        monkeypatch.setattr(plan_buffers, "expand_kernel", kernel)


def forest_of(nodes, growth=0):
    return make_tree(nodes, seed=0, growth=growth).forest


@st.composite
def changing_forests(draw, growth):
    """Forests that grow, shrink and change altogether."""
    most = 1 if growth else 5
    forests = []
    for _ in range(draw(st.integers(2, 4))):
        nodes = random_nodes(
            draw(st.integers(0, 2**32 - 1)),
            max_nodes=draw(st.sampled_from([2, 10, 40])),
            max_length=draw(st.sampled_from([3, 60, 300])),
            max_queries=most,
        )
        forests.append(forest_of(draw(st.sampled_from([nodes, nodes, EVEN, ALONE])), growth))
        if growth and draw(st.booleans()):  # the same leaves, some steps later
            last = forests[-1]
            forests.append(replace(last, length=last.length + growth // 2 * last.num_queries))
    return forests


def hold(plans, forest, heads):
    """The plan of a forest, enlarged if it must be; how often it was. A plan that is made for the
    forest must have room for it when it is planned again."""
    is_enlarged = not plans.fit(forest)
    if is_enlarged:
        plans.enlarge(forest)
    plan = plans.of(heads)  # as the first layer asks for it
    assert plans.fit(forest)
    return plan, int(is_enlarged)


def need_of(plan, forest, growth):
    return tree_plan.needed_capacity(forest, plan.spec, plan.variant, growth=growth, device=DEVICE)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), HEADS, DTYPES, st.sampled_from(["deft", "sequence"]), st.sampled_from([0, 64]))
def test_any_forest_is_held(data, num_heads, dtype, variant, steps):
    """And the device needs just what the host says that a forest needs under a capacity."""
    forests = data.draw(changing_forests(steps))
    heads = AttentionSpec(*num_heads, 16, dtype=dtype)
    most = max(int(forest.num_queries.sum()) for forest in forests)
    table = torch.arange(200_000, dtype=torch.int32, device=DEVICE)
    plans = make_backend(variant, DEVICE).captured_plans(table, most, steps)
    for forest in forests:
        plan, _ = hold(plans, forest, heads)
        need = need_of(plan, forest, steps)
        assert plan.capacity.union(need) == plan.capacity
        if variant == "deft":
            assert plan.status.tolist() == [0, *(getattr(need, name) for name in STATUS[1:])]


@pytest.mark.parametrize("variant", ["deft", "deft_node", "deft_node_chunk", "deft_flatten"])
@pytest.mark.parametrize("is_ample", [False, True])
def test_a_first_forest_without_sharing_in_16_bits(variant, is_ample):
    """A plan of its own would have smaller tiles, and no partial results."""
    forest = forest_of(ALONE)
    alone = tree_plan.TreePlan(forest, TABLE, AttentionSpec(6, 6, 64, dtype=torch.float16), variant)
    plans = make_backend(variant, DEVICE).captured_plans(TABLE, 30, is_ample=is_ample)
    plan, count = hold(plans, forest, alone.spec)
    assert count == 0 and plan.capacity.partials >= alone.capacity.partials


def test_two_kinds_of_layers_are_both_enlarged():
    kinds = [
        AttentionSpec(4, 2, 16, dtype=torch.float16),
        AttentionSpec(4, 1, 32, dtype=torch.float16),
    ]
    plans = make_backend("deft", DEVICE).captured_plans(TABLE, 64)
    plans.load(forest_of([(-1, 3, 1)]))
    small = [plans.of(heads).capacity for heads in kinds]
    large = forest_of([(-1, 300, 0), *((0, 20, 1) for _ in range(50))])
    assert not plans.fit(large)
    plans.enlarge(large)
    enlarged = [plans.of(heads).capacity for heads in kinds]
    assert plans.fit(large)
    assert all(new.items > old.items for new, old in zip(enlarged, small, strict=True))


def test_room_doubles_where_the_device_asks_for_more_than_the_host():
    """It does not; but then plans must not enlarge forever."""
    plans = make_backend("deft", DEVICE).captured_plans(TABLE, 8)
    heads, forest = AttentionSpec(4, 2, 16, dtype=torch.float16), forest_of(EVEN)
    plans.load(forest)
    rooms = [plans.of(heads).capacity]
    for _ in range(3):
        plans.enlarge(forest)
        rooms.append(plans.of(heads).capacity)
    assert all(new.partials >= 2 * old.partials for old, new in pairwise(rooms))


def test_a_query_that_sees_nothing_is_an_error_and_no_lack_of_room():
    plans = make_backend("deft", DEVICE).captured_plans(TABLE, 8)
    plans.load(forest_of(EVEN))
    plans.of(AttentionSpec(4, 2, 16, dtype=torch.float16))
    blind = Forest.packed(np.array([-1, -1]), np.array([3, 0]), np.array([1, 1]))
    with pytest.raises(ValueError, match="sees no KV entry"):
        plans.fit(blind)
