"""The rules of `deft`: their choices by hand, and PyTorch's numbers against NumPy's, bit by bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trees import make_tree, node_lists

from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.cost_model import (
    CostModel,
    best_item_length,
    deft_tiles,
    estimate_capacity,
    num_reads,
)
from treeshare.kernels.planning.gpu_profile import H100, TILE_ROWS_LARGE, TILE_ROWS_SMALL
from treeshare.kernels.planning.segments import Segments
from treeshare.kernels.planning.variants import tile_and_split
from treeshare.kernels.planning.work_list import ALIGNMENT, Capacity

BOTH_TILE_ROWS = [TILE_ROWS_SMALL, TILE_ROWS_LARGE]
SPEC = AttentionSpec(num_heads=6, num_kv_heads=2, head_dim=64)
SMALL_GPU = replace(H100, num_sms=4)


def segments_of(nodes):
    """The segments of a tree, and its number of queries."""
    segments, rows, _ = Segments.of_forest(make_tree(nodes, seed=0).forest)
    return segments, len(rows)


@settings(max_examples=40, deadline=None)
@given(node_lists(max_length=400))
@example([(-1, 217, 1), (-1, 263, 1)])  # nothing shared: tiles of one query
def test_best_item_length_is_kept_to(nodes):
    segments, num_queries = segments_of(nodes)
    for rows in BOTH_TILE_ROWS:
        cost = CostModel(SPEC, SMALL_GPU, rows)
        tiles = deft_tiles(segments, num_queries, SPEC.tile_width(rows), cost)
        length = best_item_length(segments, tiles, cost)
        assert length % ALIGNMENT == 0
        work = tile_and_split("deft", segments, num_queries, SPEC, SMALL_GPU, rows)
        assert work.items[:, 1].max() <= length


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 21)), min_size=1, max_size=60),
    st.sampled_from(BOTH_TILE_ROWS),
    st.sampled_from([SMALL_GPU, H100]),
)
def test_pytorch_computes_the_numbers_of_numpy(tiles, rows, gpu):
    tokens, sizes = np.array(tiles).T
    unique = tokens.sum() - tokens.min() + 1
    expected = CostModel(SPEC, gpu, rows).item_lengths(tokens, sizes, unique)
    cost = CostModel(SPEC, gpu, rows, torch, torch.from_numpy)
    # The device has tiles without a query as well.
    padded = (np.append(column, 0) for column in (tokens, sizes))
    actual = cost.item_lengths(*map(torch.from_numpy, padded), torch.tensor([unique]))
    for ours, wanted in zip(actual, expected, strict=True):
        assert ours.dtype == torch.float64
        assert ours.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("nodes", "is_single"),
    [
        ([(-1, 217, 1), (-1, 263, 1)], True),  # nothing shared
        ([(-1, 42, 0), (0, 400, 1), (0, 399, 1)], True),  # 883 reads for 841: 5 percent more
        ([(-1, 43, 0), (0, 400, 1), (0, 399, 1)], False),  # 885 reads for 842: just above
        ([(-1, 217, 1)] * 3, False),  # six programs for four multiprocessors
    ],
    ids=["apart", "hardly_shared", "shared", "many"],
)
def test_tiles_of_one_query(nodes, is_single):
    segments, num_queries = segments_of(nodes)
    cost = CostModel(SPEC, SMALL_GPU, TILE_ROWS_LARGE)
    tiles = deft_tiles(segments, num_queries, 21, cost)
    assert len(tiles.origin) == (num_queries if is_single else 1)


def test_num_reads_counts_a_segment_once_a_tile():
    segments, _ = segments_of([(-1, 100, 0), *((0, 7, 1) for _ in range(5))])
    assert [num_reads(segments, width) for width in (1, 2, 5)] == [535, 335, 135]


def test_estimated_capacity_by_hand():
    """Ten queries of three heads each: one tile each, or one tile with room for 21."""
    gpu = replace(H100, num_sms=40)
    assert estimate_capacity(10, 1000, SPEC, gpu, TILE_ROWS_LARGE) == Capacity(
        nodes=4 * 10 + 64,
        queries=10,
        copies=104 + 16 * 10,
        entries=4 * 1000 + 64 * 10,
        items=10 + 2 * 40 // 2,
        partials=50 * 10,
    )
