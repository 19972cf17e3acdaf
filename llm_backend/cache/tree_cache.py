"""The radix tree over token ids that owns the KV of every live and every remembered prompt.

Each shared prefix is stored once. A prompt is matched, its missing rest is inserted, and its end is
locked. Sequences grow as private leaves below it, and are merged into the tree by content when they
end. Unlocked nodes stay until memory is needed, and are then evicted in least-recently-used order,
by a counter and not the clock (after SGLang's RadixAttention, arXiv 2312.07104 section 3).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from .kv_pool import SlotAllocator


class CacheNode:
    """An edge of the radix tree: tokens [start, start + len(tokens)) of every path through it.

    Attributes:
        slots: [len(tokens)] int64, where the tokens' KV is.
        num_computed: tokens whose KV is in the pool already.
        children: by first token.
        locks: holders at or below the node.
        start: position of the first token.
    """

    def __init__(
        self, parent: CacheNode | None, tokens: list[int], slots: np.ndarray, num_computed: int
    ) -> None:
        self.parent = parent
        self.tokens = tokens
        self.slots = slots
        self.num_computed = num_computed
        self.children: dict[int, CacheNode] = {}
        self.locks = 0
        self.last_used = 0
        self.is_queued = False  # for eviction
        self.start: int = parent.stop if parent else 0

    @property
    def stop(self) -> int:
        """Position after the last token."""
        return self.start + len(self.tokens)


class Leaf:
    """A private run of tokens below a node or another leaf: a live sequence, or scored text.

    Args:
        parent: what it lies below.
        slots: [capacity] int64.
        is_kept: whether its computed tokens join the tree when it ends.

    Attributes:
        anchor: the lowest node of the tree above it.
        num_computed: tokens whose KV is in the pool already.
        start: position of the first token.
    """

    def __init__(
        self, parent: CacheNode | Leaf, slots: np.ndarray, *, is_kept: bool = False
    ) -> None:
        self.parent = parent
        self.is_kept = is_kept
        self.anchor: CacheNode = parent if isinstance(parent, CacheNode) else parent.anchor
        self.tokens: list[int] = []
        self.slots = slots
        self.num_computed = 0
        self.start: int = parent.stop

    @property
    def stop(self) -> int:
        """Position after the last token."""
        return self.start + len(self.tokens)


class TreeCache:
    """A radix tree of prompts over one pool of slots.

    Args:
        allocator: hands out the pool's slots.

    Attributes:
        root: the node above all prompts; it has no tokens.
        num_evicted: slots evicted since the start.
    """

    def __init__(self, allocator: SlotAllocator) -> None:
        self.root = CacheNode(None, [], np.empty(0, dtype=np.int64), 0)
        self.num_evicted = 0
        self._allocator = allocator
        self._leaves: dict[Leaf, None] = {}
        # A heap of nodes, each with its last use when it was queued. All nodes that can be evicted
        # are in it. Whether a node was used or locked since, or has children now, is checked when
        # it is popped.
        self._queue: list[tuple[int, int, CacheNode]] = []
        self._clock = 0

    @property
    def num_slots(self) -> int:
        """Slots of the pool."""
        return self._allocator.num_slots

    @property
    def num_free(self) -> int:
        """Slots that nothing holds."""
        return self._allocator.num_free

    def match(self, tokens: Sequence[int]) -> CacheNode:
        """Return the node at which the longest stored prefix of `tokens` ends.

        It splits an edge that matches in part. The node's `stop` is the length of the match. The
        node may be evicted unless it is locked.
        """
        return self._descend(self.root, tokens)

    def insert(self, tokens: Sequence[int], node: CacheNode | None = None) -> CacheNode:
        """Add the missing tokens of a prompt as one node, whose KV is still to be computed.

        Args:
            tokens: from the root on.
            node: the node that they match, if it is known.

        Returns:
            The node at which the prompt ends.

        Raises:
            MemoryError: too few slots are free; evict first. The tree is unchanged.
        """
        if node is None:
            node = self.match(tokens)
        missing = list(tokens[node.stop :])
        if not missing:
            return node
        return self._add_child(node, missing, self._allocator.allocate(len(missing)), 0)

    def lock(self, node: CacheNode) -> None:
        """Keep `node` and all above it from eviction until as many `unlock`s."""
        for above in self._upwards(node):
            above.locks += 1

    def unlock(self, node: CacheNode) -> None:
        """Undo one `lock`.

        Raises:
            ValueError: the node is not locked.
        """
        for above in self._upwards(node):
            if above.locks == 0:
                raise ValueError(f"node at {above.start}..{above.stop} is not locked")
            above.locks -= 1
            self._enqueue(above)

    def fork(self, parent: CacheNode | Leaf, capacity: int, *, keep: bool = True) -> Leaf:
        """Make a private leaf of at most `capacity` tokens below `parent`, and lock its path.

        Args:
            parent: a node, or another leaf.
            capacity: tokens.
            keep: whether the leaf's computed tokens join the tree when it ends.

        Raises:
            MemoryError: too few slots are free; evict first.
            ValueError: `keep` for a leaf below another leaf.
        """
        if keep and isinstance(parent, Leaf):
            raise ValueError("a leaf below a leaf can only be forked with keep=False")
        leaf = Leaf(parent, self._allocator.allocate(capacity), is_kept=keep)
        self.lock(leaf.anchor)
        self._leaves[leaf] = None
        return leaf

    def append(self, leaf: Leaf, token: int) -> None:
        """Grow a leaf in place by one token, whose KV is still to be computed.

        Raises:
            ValueError: the leaf is at its capacity.
        """
        if len(leaf.tokens) == len(leaf.slots):
            raise ValueError(f"the leaf holds its capacity of {len(leaf.slots)} tokens already")
        leaf.tokens.append(token)

    def release(self, leaves: Sequence[Leaf], *, keep: bool = True) -> None:
        """End leaves.

        The computed tokens of leaves that are kept join the tree, in this order. Duplicate and
        unused slots are freed in one call, since each call has a fixed cost. Of prompts that only
        these leaves needed, tokens that are not computed are dropped.

        Args:
            leaves: to end.
            keep: False lets none join the tree.
        """
        unused: list[np.ndarray] = []
        for leaf in leaves:
            del self._leaves[leaf]
            unused += self._merge(leaf) if keep and leaf.is_kept else [leaf.slots]
            self.unlock(leaf.anchor)
            if leaf.anchor.num_computed < len(leaf.anchor.tokens):
                unused += self._drop_uncomputed(leaf.anchor)
        if unused:
            self._allocator.free(np.concatenate(unused))

    def drop(self, node: CacheNode) -> np.ndarray:
        """Remove `node`, and the nodes above it that nothing else needs, from the tree.

        Returns:
            The slots that this frees, [n] int64.
        """
        freed: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
        while _is_evictable(node) and node.parent is not None:
            node, slots = self._remove(node)
            freed.append(slots)
        slots = np.concatenate(freed)
        self._allocator.free(slots)
        return slots

    def evict(self, count: int) -> int:
        """Free at least `count` slots if unlocked nodes hold that many; return their number."""
        freed: list[np.ndarray] = []
        num_freed = 0
        while self._queue and num_freed < count:
            last_used, _, node = heapq.heappop(self._queue)
            node.is_queued = False
            if node.last_used > last_used or not _is_evictable(node):
                self._enqueue(node)
                continue
            freed.append(self._remove(node)[1])
            num_freed += len(node.slots)
        if freed:
            self._allocator.free(np.concatenate(freed))
        self.num_evicted += num_freed
        return num_freed

    def check_integrity(self, live: Iterable[Leaf] | None = None) -> None:
        """Check that every slot is owned once, and that tree, leaves, locks and positions agree.

        Args:
            live: all leaves that are in use; then there must be no other leaves, and no locks but
                theirs. None checks neither.

        Raises:
            AssertionError: they do not agree.
        """
        nodes = {self.root, *self.nodes()}
        if live is not None:
            assert self._leaves.keys() == set(live), "a leaf that nobody uses, or one that is lost"
        owned = [self._allocator.free_slots()]
        for leaf in self._leaves:
            assert len(leaf.tokens) <= len(leaf.slots), "a leaf beyond its capacity"
            assert leaf.num_computed <= len(leaf.tokens), "KV of no token"
            assert leaf.start == leaf.parent.stop, "positions have a gap"
            assert leaf.anchor in nodes, "a leaf below a node that is gone"
            assert leaf.parent is leaf.anchor or leaf.parent in self._leaves, "a leaf below none"
            owned.append(leaf.slots)
        for node in nodes - {self.root}:
            assert node.parent is not None and node.tokens, "an empty node"
            assert len(node.slots) == len(node.tokens), "tokens and slots differ in number"
            assert node.start == node.parent.stop, "positions have a gap"
            assert node.parent.children[node.tokens[0]] is node, "a child under a wrong token"
            assert node.is_queued or not _is_evictable(node), "a node that no eviction would find"
            assert node.locks or node.num_computed == len(node.tokens), "KV nobody will compute"
            owned.append(node.slots)
        forks = Counter(leaf.anchor for leaf in self._leaves)
        for node in nodes:
            held = forks[node] + sum(child.locks for child in node.children.values())
            assert node.locks >= held, "a holder's path is not locked"
            assert live is None or node.locks == held, "a lock that nobody holds"
        every = np.sort(np.concatenate(owned))
        assert np.array_equal(every, np.arange(self._allocator.num_slots)), (
            "a slot is lost or owned twice"
        )

    def _descend(self, node: CacheNode, tokens: Sequence[int]) -> CacheNode:
        """Return the node below `node` at which the longest stored prefix of `tokens` ends.

        It splits an edge that matches in part.
        """
        tokens, position = list(tokens), 0
        while position < len(tokens) and (child := node.children.get(tokens[position])):
            length = _common_length(child.tokens, tokens, position)
            node = child if length == len(child.tokens) else self._split(child, length)
            self._touch(node)
            position += length
        return node

    def _merge(self, leaf: Leaf) -> list[np.ndarray]:
        """Move a leaf's computed tokens into the tree, and return the slots left over."""
        tokens = leaf.tokens[: leaf.num_computed]
        node = self._descend(leaf.anchor, tokens)
        position = node.stop - leaf.start
        if position < len(tokens):
            kept = slice(position, len(tokens))
            self._add_child(node, tokens[kept], leaf.slots[kept], len(tokens) - position)
        return [leaf.slots[:position], leaf.slots[len(tokens) :]]

    def _drop_uncomputed(self, node: CacheNode) -> list[np.ndarray]:
        """Drop the tokens of an unlocked path that are not computed, and return their slots."""
        unused: list[np.ndarray] = []
        while node.locks == 0 and (count := node.num_computed) < len(node.tokens):
            # No token below it can be computed; such nodes were dropped when they were unlocked.
            assert not node.children, "an unlocked node above one that is not computed"
            if count:
                unused.append(node.slots[count:])
                node.tokens, node.slots = node.tokens[:count], node.slots[:count]
                break
            node, slots = self._remove(node)
            unused.append(slots)
        return unused

    def _remove(self, node: CacheNode) -> tuple[CacheNode, np.ndarray]:
        """Remove a node without children from the tree; return its parent, and its slots."""
        parent = node.parent
        assert parent is not None
        del parent.children[node.tokens[0]]
        node.parent = None  # it may still be queued for eviction
        self._enqueue(parent)
        return parent, node.slots

    def _add_child(
        self, parent: CacheNode, tokens: list[int], slots: np.ndarray, num_computed: int
    ) -> CacheNode:
        node = CacheNode(parent, tokens, slots, num_computed)
        parent.children[tokens[0]] = node
        self._touch(node)
        self._enqueue(node)
        return node

    def _split(self, node: CacheNode, length: int) -> CacheNode:
        """Cut `node` after `length` tokens; return the new upper part. `node` stays the lower."""
        assert node.parent is not None
        num_computed = min(node.num_computed, length)
        upper = CacheNode(node.parent, node.tokens[:length], node.slots[:length], num_computed)
        upper.locks, upper.last_used = node.locks, node.last_used
        node.parent.children[upper.tokens[0]] = upper
        upper.children[node.tokens[length]] = node
        node.parent, node.start = upper, upper.stop
        node.tokens, node.slots = node.tokens[length:], node.slots[length:]
        node.num_computed -= num_computed
        return upper

    def _touch(self, node: CacheNode) -> None:
        self._clock += 1
        node.last_used = self._clock

    def _enqueue(self, node: CacheNode) -> None:
        """Queue the node for eviction, if it can be evicted and is not queued."""
        if _is_evictable(node) and not node.is_queued:
            node.is_queued = True
            heapq.heappush(self._queue, (node.last_used, id(node), node))

    def _upwards(self, node: CacheNode | None) -> Iterator[CacheNode]:
        while node is not None:
            yield node
            node = node.parent

    def nodes(self) -> Iterator[CacheNode]:
        """Yield every node but the root."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack += node.children.values()


def _is_evictable(node: CacheNode) -> bool:
    return node.parent is not None and not node.children and node.locks == 0


def _common_length(edge: list[int], tokens: list[int], begin: int) -> int:
    limit = min(len(edge), len(tokens) - begin)
    if edge[:limit] == tokens[begin : begin + limit]:  # as a rule
        return limit
    for i in range(limit):
        if edge[i] != tokens[begin + i]:
            return i
    return limit
