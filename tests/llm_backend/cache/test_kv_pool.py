"""Slots are handed out once, come back, and are contiguous where they can be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treeshare.llm_backend.cache.kv_pool import KVPool, SlotAllocator


def test_allocates_contiguous_runs_when_it_can():
    allocator = SlotAllocator(10)
    first, second = allocator.allocate(3), allocator.allocate(4)
    allocator.free(first)
    third = allocator.allocate(2)
    assert second.tolist() == [3, 4, 5, 6]
    assert third.tolist() == [0, 1]
    assert sorted(allocator.allocate(4).tolist()) == [2, 7, 8, 9]


def test_refuses_more_than_is_free():
    allocator = SlotAllocator(4)
    allocator.allocate(3)
    with pytest.raises(MemoryError, match="2 KV slots asked for, 1 free"):
        allocator.allocate(2)
    assert allocator.num_free == 1


@pytest.mark.parametrize("slots", [[0], [3, 4], [9, 10], [-1]], ids=str)
def test_refuses_to_free_what_is_not_in_use(slots):
    allocator = SlotAllocator(10)
    allocator.allocate(10)
    allocator.free(np.array([0, 4]))
    with pytest.raises(ValueError, match="not all in use"):
        allocator.free(np.array(slots))


def test_refuses_an_empty_pool():
    with pytest.raises(ValueError, match="num_slots=0"):
        SlotAllocator(0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 100)), max_size=60))
def test_every_slot_has_one_owner(operations):
    allocator, held = SlotAllocator(40), []
    for count, pick in operations:
        if held and pick % 2:
            allocator.free(held.pop(pick % len(held)))
        elif count <= allocator.num_free:
            held.append(allocator.allocate(count))
        owned = np.concatenate([allocator.free_slots(), *held])
        assert sorted(owned.tolist()) == list(range(40))
        assert allocator.num_free == 40 - sum(len(slots) for slots in held)


def test_pool_has_one_tensor_a_layer():
    pool = KVPool(5, [(2, 4, 4), (1, 8, 6)])
    assert [tuple(k.shape) for k in pool.keys] == [(5, 2, 4), (5, 1, 8)]
    assert [tuple(v.shape) for v in pool.values] == [(5, 2, 4), (5, 1, 6)]
