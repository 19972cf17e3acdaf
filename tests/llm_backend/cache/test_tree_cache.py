"""The radix tree: sharing by content, locks, eviction order, and invariants under random use."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from treeshare.llm_backend.cache.kv_pool import SlotAllocator
from treeshare.llm_backend.cache.tree_cache import TreeCache

NUM_SLOTS = 48


def remember(cache, tokens):
    """Insert a prompt as if it had been computed."""
    node = cache.insert(tokens)
    path = node
    while path is not None:
        path.num_computed = len(path.tokens)
        path = path.parent
    return node


@pytest.fixture
def cache():
    return TreeCache(SlotAllocator(NUM_SLOTS))


def test_prefixes_are_stored_once(cache):
    remember(cache, [1, 2, 3, 4])
    remember(cache, [1, 2, 3, 5, 6])
    assert cache.match([1, 2, 3, 9]).stop == 3
    assert cache.match([7]).stop == 0
    used = NUM_SLOTS - cache.num_free
    assert used == 6
    cache.check_integrity()


def test_a_released_leaf_joins_the_tree_by_content(cache):
    node = remember(cache, [1, 2])
    first, second = cache.fork(node, 4), cache.fork(node, 4)
    for leaf, tokens in ((first, [3, 4, 5]), (second, [3, 4, 6])):
        for token in tokens:
            cache.append(leaf, token)
        leaf.num_computed = 2  # the last token was sampled, not fed
    cache.release([first, second])
    assert cache.match([1, 2, 3, 4, 5]).stop == 4
    assert NUM_SLOTS - cache.num_free == 4
    cache.check_integrity()


def test_least_recently_used_goes_first_and_locked_stays(cache):
    for tokens in ([1, 1], [2, 2], [3, 3]):
        remember(cache, tokens)
    cache.match([1, 1])
    cache.lock(cache.match([2, 2]))
    assert cache.evict(1) == 2
    assert cache.match([3, 3]).stop == 0
    assert cache.evict(100) == 2  # [1, 1]; [2, 2] is locked
    assert cache.match([2, 2]).stop == 2
    assert cache.num_evicted == 4


def test_eviction_frees_parents_after_their_children(cache):
    remember(cache, [1, 2, 3])
    remember(cache, [1, 2, 4])
    assert cache.num_slots - cache.num_free == 4
    assert cache.evict(4) == 4
    cache.check_integrity()


def test_nested_leaves_are_dropped(cache):
    node = remember(cache, [1, 2])
    outer = cache.fork(node, 1, keep=False)
    cache.append(outer, 3)
    with pytest.raises(ValueError, match="keep=False"):
        cache.fork(outer, 1)
    inner = cache.fork(outer, 1, keep=False)
    assert (inner.start, inner.anchor) == (3, node)
    cache.release([outer, inner])
    assert cache.match([1, 2, 3]).stop == 2
    cache.check_integrity()


def test_what_is_matched_need_not_be_matched_again(cache):
    remember(cache, [1, 2, 3])
    node = cache.insert([1, 2, 4], cache.match([1, 2, 4]))
    assert (node.start, node.stop) == (2, 3)
    assert cache.insert([1, 2, 4], node) is node
    assert NUM_SLOTS - cache.num_free == 4


@pytest.mark.parametrize("length", range(7))
def test_an_edge_is_split_where_a_prompt_leaves_it(cache, length):
    remember(cache, [1, 2, 3, 4, 5, 6])
    prompt = (*range(1, length + 1), 9, 9)
    assert cache.match(prompt).stop == length
    assert cache.match(prompt[:length]).stop == length
    cache.check_integrity()


def test_errors_name_the_bound(cache):
    leaf = cache.fork(cache.root, 1)
    cache.append(leaf, 1)
    with pytest.raises(ValueError, match="capacity of 1"):
        cache.append(leaf, 2)
    node = remember(cache, [5])
    with pytest.raises(ValueError, match="not locked"):
        cache.unlock(node)
    with pytest.raises(MemoryError, match=r"50 KV slots asked for, 46 free"):
        cache.insert(list(range(100, 150)))
    cache.check_integrity()


class CacheMachine(RuleBasedStateMachine):
    """Random fork, append, release and evict. A shadow of the pool remembers for each slot which
    prefix its KV was computed for; whatever the tree hands out must agree with it."""

    def __init__(self):
        super().__init__()
        self.cache = TreeCache(SlotAllocator(NUM_SLOTS))
        self.computed_for = [None] * NUM_SLOTS
        self.leaves = []

    def compute(self, node):
        """Pretend to run the model over a node's path."""
        path = []
        while node is not None:
            path.append(node)
            node = node.parent
        prefix = ()
        for part in reversed(path):
            for i, (token, slot) in enumerate(zip(part.tokens, part.slots, strict=False)):
                prefix += (token,)
                if i >= part.num_computed:
                    self.computed_for[slot] = prefix
                assert self.computed_for[slot] == prefix
            part.num_computed = len(part.tokens)

    @rule(
        tokens=st.lists(st.integers(0, 2), min_size=1, max_size=10),
        capacity=st.integers(1, 6),
        keep=st.booleans(),
    )
    def start(self, tokens, capacity, keep):
        matched = self.cache.match(tokens)
        self.cache.lock(matched)
        needed = len(tokens) - matched.stop + capacity - self.cache.num_free
        freed = self.cache.evict(needed) if needed > 0 else 0
        self.cache.unlock(matched)
        if needed > freed:
            return
        leaf = self.cache.fork(self.cache.insert(tokens, matched), capacity, keep=keep)
        self.compute(leaf.anchor)
        self.leaves.append(leaf)

    @precondition(lambda self: self.leaves)
    @rule(pick=st.integers(0, 99), token=st.integers(0, 2), compute=st.booleans())
    def append(self, pick, token, compute):
        leaf = self.leaves[pick % len(self.leaves)]
        if len(leaf.tokens) < len(leaf.slots):
            self.cache.append(leaf, token)
        if compute:
            self.compute(leaf)

    @precondition(lambda self: self.leaves)
    @rule(picks=st.sets(st.integers(0, 99), min_size=1, max_size=3))
    def release(self, picks):
        ended = {pick % len(self.leaves) for pick in picks}
        self.cache.release([self.leaves[i] for i in ended])
        self.leaves = [leaf for i, leaf in enumerate(self.leaves) if i not in ended]

    @rule(tokens=st.lists(st.integers(0, 2), min_size=1, max_size=10))
    def use(self, tokens):
        self.cache.match(tokens)

    @rule(count=st.integers(1, 30))
    def evict(self, count):
        """Of all that may go, always what was used least recently."""
        rest, num_freed = set(self.cache.nodes()), 0
        while num_freed < count:
            parents = {node.parent for node in rest}
            idle = [node for node in rest if not node.locks and node not in parents]
            if not idle:
                break
            oldest = min(idle, key=lambda node: node.last_used)
            rest.remove(oldest)
            num_freed += len(oldest.slots)
        assert self.cache.evict(count) == num_freed
        assert set(self.cache.nodes()) == rest

    @invariant()
    def integrity(self):
        self.cache.check_integrity()
        for node in self.cache.nodes():
            prefix = tuple(t for part in _path(node)[:-1] for t in part.tokens)
            for token, slot in zip(node.tokens, node.slots, strict=True):
                prefix += (token,)
                assert self.computed_for[slot] == prefix


def _path(node):
    path = [node]
    while path[-1].parent is not None:
        path.append(path[-1].parent)
    return path[::-1]


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCacheMachine = CacheMachine.TestCase


def test_integrity_check_notices_a_lost_slot(cache):
    node = remember(cache, [1, 2, 3])
    node.slots = np.array([node.slots[0]] * 3)
    with pytest.raises(AssertionError, match="lost or owned twice"):
        cache.check_integrity()
