"""Work lists replayed in NumPy: each query sees all of its path, and sees it once."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trees import SHAPES, make_tree, node_lists

from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.gpu_profile import H100, TILE_ROWS_LARGE, TILE_ROWS_SMALL
from treeshare.kernels.planning.segments import Segments
from treeshare.kernels.planning.variants import GROWING, VARIANTS, tile_and_split
from treeshare.kernels.planning.work_list import (
    ALIGNMENT,
    Capacity,
    Growth,
    build_work_list,
    tiles_by_segment,
    tiles_by_width,
)

# An attention on a small GPU.
TARGET = AttentionSpec(num_heads=6, num_kv_heads=2, head_dim=64), replace(H100, num_sms=4)


def lay_out(tree, steps=0):
    """Segments, number of queries and growth; rows and positions are those of the tree."""
    segments, rows, positions = Segments.of_forest(tree.forest)
    assert rows.tolist() == tree.order
    assert positions.tolist() == tree.positions
    growth = None
    if steps:
        tail = (tree.forest.start + tree.forest.length).repeat(tree.forest.num_queries)
        growth = Growth(tail[rows], positions + 1, steps)
    return segments, len(rows), growth


def replay_copies(work, table):
    """Find (slot, position, first query that sees it, last + 1) of each flattened entry."""
    entries = {}
    for source, target, length, lo, hi, num_visible, stride, position in work.copies.tolist():
        for i in range(length):
            at = target + i * stride
            assert 0 <= at < work.num_entries
            assert at not in entries, "two copies write one entry"
            first = max(lo + max(i + 1 - num_visible, 0), 0)
            entries[at] = (int(table[source + i]), position + i, first, hi)
    return entries


def check(work, tree, paths, steps=0, step=0, everything=False):
    """Read a work list as the kernel does, for queries in depth-first order, and check it."""
    entries = replay_copies(work, tree.table)
    num_queries = len(tree.order)
    seen = [[] for _ in range(num_queries)]
    items_of = Counter()
    rows_of = [[] for _ in range(num_queries)]
    taken, direct = set(), []
    for start, length, growth, tile, lo, hi, partial, num_full in work.items.tolist():
        assert start % ALIGNMENT == 0
        assert 0 <= lo < hi <= min(TILE_ROWS_LARGE, num_queries - tile)
        assert 0 <= num_full <= length
        assert start + length + growth * steps <= work.num_entries
        for at in range(start, start + length + growth * step):
            slot, position, first, last = entries[at]
            assert lo <= first and last <= hi, "a query that sees the entry is not the item's"
            if at < start + num_full:
                assert first <= lo and last >= hi, "not all of the item's queries see the entry"
            for query in range(first, last):
                seen[tile + query].append((position, slot))
        for query in range(lo, hi):
            items_of[tile + query] += 1
            if partial < 0:
                direct.append(tile + query)
            else:
                row = partial + query - lo
                assert row not in taken, "two results in one partial row"
                taken.add(row)
                rows_of[tile + query].append(row)

    live = sorted({entry for path in paths for entry in enumerate(path)})
    for query, row in enumerate(tree.order):
        assert sorted(seen[query]) == (live if everything else list(enumerate(paths[row])))
    assert taken == set(range(work.num_partials))
    assert all(items_of[query] == 1 for query in direct)
    offset, reduced = work.reduce_offset.tolist(), work.reduce_row.tolist()
    assert len(offset) == num_queries + 1 and offset[-1] == len(reduced)
    for query in range(num_queries):
        assert sorted(reduced[offset[query] : offset[query + 1]]) == sorted(rows_of[query])
    lengths, grows = work.items[:, 1], work.items[:, 2]
    halfway = (lengths + grows * -(-steps // 2)).tolist()
    assert halfway == sorted(halfway, reverse=True)
    assert lengths.sum() == work.num_reads
    assert all(array.dtype == np.int32 for array in (work.items, work.copies, work.reduce_row))
    num_nodes = len(tree.forest.parent)
    assert Capacity.of(work, num_queries, num_nodes) == Capacity(
        nodes=num_nodes,
        queries=num_queries,
        copies=len(work.copies),
        entries=work.num_entries,
        items=len(lengths),
        partials=len(taken),
    )
    assert len(taken) == len(reduced)


def check_variant(nodes, variant, rows):
    tree = make_tree(nodes, seed=0)
    segments, num_queries, _ = lay_out(tree)
    work = tile_and_split(variant, segments, num_queries, *TARGET, rows)
    check(work, tree, tree.paths, everything=variant == "tree_mask")


@pytest.mark.parametrize("rows", [TILE_ROWS_LARGE, TILE_ROWS_SMALL], ids=["large", "small"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_query_sees_its_path(shape, variant, rows):
    check_variant(SHAPES[shape], variant, rows)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=40, deadline=None)
@given(
    node_lists(max_nodes=30, max_length=70, max_queries=30),
    st.sampled_from([TILE_ROWS_SMALL, TILE_ROWS_LARGE]),
)
def test_random_forests(variant, nodes, rows):
    check_variant(nodes, variant, rows)


@pytest.mark.parametrize("variant", GROWING)
@settings(max_examples=40, deadline=None)
@given(node_lists(max_nodes=30, max_queries=1))
def test_growth(variant, nodes):
    tree = make_tree(nodes, seed=0, growth=3)
    segments, num_queries, growth = lay_out(tree, steps=3)
    work = tile_and_split(variant, segments, num_queries, *TARGET, TILE_ROWS_SMALL, growth)
    for step in range(4):
        check(work, tree, tree.grown(step), steps=3, step=step)


@pytest.mark.parametrize("chunk", [64, 128, 192, 1024])
@settings(max_examples=40, deadline=None)
@given(node_lists(max_length=200))
def test_no_item_exceeds_its_chunk(chunk, nodes):
    tree = make_tree(nodes, seed=0)
    segments, num_queries, _ = lay_out(tree)
    for tiles in (tiles_by_width(segments, num_queries, 5), tiles_by_segment(segments, 5)):
        work = build_work_list(segments, num_queries, tiles, chunk)
        check(work, tree, tree.paths)
        assert work.items[:, 1].max() <= chunk


@settings(max_examples=40, deadline=None)
@given(node_lists(max_length=400, max_queries=1), st.sampled_from([1, 3, 30, 64]))
@example([(-1, 4000, 0), *((0, 1, 1) for _ in range(50))], 64)
def test_no_item_exceeds_its_chunk_halfway(nodes, steps):
    """Entries that grow form an item of their own once they are as long as the other items."""
    segments, num_queries, growth = lay_out(make_tree(nodes, seed=0, growth=steps), steps)
    tiles, chunk = tiles_by_width(segments, num_queries, 16), 576
    items = build_work_list(segments, num_queries, tiles, chunk, growth).items
    grown = items[:, 2] * -(-steps // 2)
    assert (items[:, 1] + grown <= np.maximum(chunk, grown + ALIGNMENT - 1)).all()


def test_few_shot_by_hand():
    """A prompt of 200 tokens and three leaves, cut into two items for the three queries.

        entry 0            128        200   205 206   213
              | item 0      | item 1                   |
              | prompt                  | A  |B | C     |
    seen by     0 1 2         0 1 2       0   1  2
    """
    tree = make_tree([(-1, 200, 0), (0, 5, 1), (0, 1, 1), (0, 7, 1)], seed=0)
    segments, num_queries, _ = lay_out(tree)
    work = tile_and_split("deft_flatten", segments, num_queries, *TARGET, TILE_ROWS_LARGE)
    # start, length, growth, tile, lo, hi, partial, num_full
    assert work.items.tolist() == [[0, 128, 0, 0, 0, 3, 0, 128], [128, 85, 0, 0, 0, 3, 3, 72]]
    # source, target, length, lo, hi, num_visible, stride, position
    assert work.copies.tolist() == [
        [0, 0, 200, 0, 3, 200, 1, 0],
        [200, 200, 5, 0, 1, 5, 1, 200],
        [205, 205, 1, 1, 2, 1, 1, 200],
        [206, 206, 7, 2, 3, 7, 1, 200],
    ]
    assert work.num_entries == 256  # rounded up to whole blocks of 64
    assert work.reduce_offset.tolist() == [0, 2, 4, 6]
    assert work.reduce_row.tolist() == [0, 3, 1, 4, 2, 5]
    assert (work.num_partials, work.num_reads) == (6, 213)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_query_that_sees_nothing_is_refused(variant):
    tree = make_tree([(-1, 5, 1), (-1, 0, 1), (-1, 4, 1)], seed=0)
    segments, rows, _ = Segments.of_forest(tree.forest)
    with pytest.raises(ValueError, match="query 1 in depth-first order sees no KV entry"):
        tile_and_split(variant, segments, len(rows), *TARGET, TILE_ROWS_LARGE)


def test_no_queries_are_refused():
    segments, num_queries, _ = lay_out(make_tree([(-1, 5, 0)], seed=0))
    with pytest.raises(ValueError, match="no node has a query"):
        tile_and_split("deft", segments, num_queries, *TARGET, TILE_ROWS_LARGE)


@settings(max_examples=50, deadline=None)
@given(node_lists())
def test_segments_of_a_list_are_those_of_the_forest(nodes):
    tree = make_tree(nodes, seed=0)
    of_forest = lay_out(tree)[0]
    of_list, table = Segments.of_list(tree.segments, np.array(tree.positions))
    for name in ("length", "lo", "hi", "num_visible", "position"):
        assert getattr(of_list, name).tolist() == getattr(of_forest, name).tolist(), name
    for a, b, length in zip(of_list.source, of_forest.source, of_list.length, strict=True):
        assert table[a : a + length].tolist() == tree.table[b : b + length].tolist()
    assert table.dtype == np.int32
