"""The cuts of each variant: the paper's by hand, and what they read."""

from collections import Counter

import numpy as np
import pytest
import torch
from trees import make_tree

from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.gpu_profile import H100, TILE_ROWS_LARGE, TILE_ROWS_SMALL
from treeshare.kernels.planning.segments import Segments
from treeshare.kernels.planning.variants import (
    PAPER_BLOCK,
    PAPER_GROUP,
    VARIANTS,
    tile_and_split,
    tile_rows,
)

SPEC = AttentionSpec(num_heads=6, num_kv_heads=2, head_dim=64)


def segments_of(nodes):
    """The segments of a tree, and its number of queries."""
    segments, rows, _ = Segments.of_forest(make_tree(nodes, seed=0).forest)
    return segments, len(rows)


SHARED = segments_of([(-1, 500, 0), *((0, 5, 1) for _ in range(30))])[0]
APART = segments_of([(-1, 500, 1)] * 8)[0]


def test_cuts_of_the_paper():
    """Nodes are left whole or cut into blocks of 128; queries are cut into groups of 32."""
    tree = segments_of([(-1, 300, 0), *((0, 70, 1) for _ in range(40))])
    target = AttentionSpec(num_heads=2, num_kv_heads=2, head_dim=64), H100, TILE_ROWS_LARGE
    whole = tile_and_split("deft_node", *tree, *target)
    assert Counter(whole.items[:, 1].tolist()) == {300: 2, 70: 40}  # the root for 32 and for 8
    chunks = tile_and_split("deft_node_chunk", *tree, *target)
    assert chunks.items[:, 1].max() <= PAPER_BLOCK
    assert Counter(chunks.items[:, 1].tolist()) == {128: 4, 44: 2, 70: 40}
    flat = tile_and_split("deft_flatten", *tree, *target)
    assert flat.num_reads == 2 * 300 + 40 * 70
    assert set(flat.items[:, 3].tolist()) == {0, PAPER_GROUP}
    num_items = -(-(300 + 32 * 70) // PAPER_BLOCK) + -(-(300 + 8 * 70) // PAPER_BLOCK)
    assert len(flat.items) == num_items


def test_sequence_reads_every_path_and_deft_every_segment_once():
    tree = segments_of([(-1, 63, 0), *((0, 5, 1) for _ in range(7))])
    reads = {
        name: tile_and_split(name, *tree, SPEC, H100, TILE_ROWS_LARGE).num_reads
        for name in VARIANTS
    }
    assert reads["deft"] == reads["deft_flatten"] == reads["deft_node"] == 63 + 7 * 5
    assert reads["sequence"] == 7 * (63 + 5)
    assert reads["tree_mask"] == 63 + 7 * 5


def test_tiles_are_small_where_little_is_shared():
    assert tile_rows("deft", SHARED, SPEC, H100) == TILE_ROWS_LARGE
    assert tile_rows("deft", APART, SPEC, H100) == TILE_ROWS_SMALL
    assert {tile_rows("sequence", tree, SPEC, H100) for tree in (SHARED, APART)} == {
        TILE_ROWS_SMALL
    }


def test_tiles_of_forests_to_come_are_large():
    assert tile_rows("deft", None, SPEC, H100) == TILE_ROWS_LARGE


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("group", "rows"), [(1, 16), (16, 16), (17, 32), (40, 64)])
def test_tiles_of_single_precision_hold_one_group(variant, group, rows):
    spec = AttentionSpec(group, 1, 64, dtype=torch.float32)
    assert tile_rows(variant, SHARED, spec, H100) == rows


def test_large_groups_need_large_tiles():
    spec = AttentionSpec(17, 1, 64)
    assert {tile_rows(name, APART, spec, H100) for name in VARIANTS} == {TILE_ROWS_LARGE}


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="variant='best' is not one of deft, deft_node, "):
        tile_and_split("best", SHARED, 30, SPEC, H100, TILE_ROWS_LARGE)


def test_tree_mask_leaves_the_segments_as_they_are():
    """The mask is made from them afterwards."""
    before = [np.copy(SHARED.lo), np.copy(SHARED.hi)]
    tile_and_split("tree_mask", SHARED, 30, SPEC, H100, TILE_ROWS_LARGE)
    assert (SHARED.lo == before[0]).all() and (SHARED.hi == before[1]).all()
