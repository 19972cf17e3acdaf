"""Tree attention by name: each variant cuts a forest into another work list for the same kernel.

`deft` is the default; its rules are in `cost_model.py`. The others are here to be compared with it:
the algorithms of the DeFT paper (arXiv 2404.00242 section 3.3), and two baselines. `sequence` is
paged flash-decoding of each query's whole path, which is what a radix cache without tree attention
reads. `tree_mask` is a dense mask over the whole forest, as in Medusa (arXiv 2401.10774 section
2.3).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from .attention_spec import AttentionSpec
from .cost_model import CostModel, best_item_length, deft_tile_rows, deft_tiles
from .gpu_profile import TILE_ROWS_LARGE, TILE_ROWS_SMALL, GpuProfile
from .segments import Segments
from .work_list import (
    Growth,
    WorkList,
    build_work_list,
    check_seen,
    tiles_by_segment,
    tiles_by_width,
)

VARIANTS = ("deft", "deft_node", "deft_node_chunk", "deft_flatten", "sequence", "tree_mask")
GROWING = ("deft", "deft_flatten", "sequence")  # those in which a query is in one tile only
# In the DeFT authors' code: entries of a block, and queries of a group.
PAPER_BLOCK, PAPER_GROUP = 128, 32


def check_variant(variant: str, *, grows: bool) -> None:
    """Refuse a name that is not known.

    Raises:
        ValueError: no such variant, or one whose plans cannot grow where the plan `grows`.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r} is not one of {', '.join(VARIANTS)}")
    if grows and variant not in GROWING:
        raise ValueError(f"variant={variant!r} cannot grow; {', '.join(GROWING)} can")


def tile_rows(variant: str, segments: Segments | None, spec: AttentionSpec, gpu: GpuProfile) -> int:
    """Rows of the variant's tiles, each a query head of a query.

    Args:
        variant: one of `VARIANTS`.
        segments: those of the only forest that the plan is for; None if others will follow.
        spec: the attention.
        gpu: where it runs.
    """
    if spec.dtype == torch.float32:  # registers hold no larger tile
        return max(TILE_ROWS_SMALL, 1 << (spec.group - 1).bit_length())
    if variant == "deft":
        return deft_tile_rows(segments, spec, gpu)
    is_small = variant == "sequence" and spec.group <= TILE_ROWS_SMALL
    return TILE_ROWS_SMALL if is_small else TILE_ROWS_LARGE


def tile_and_split(
    variant: str,
    segments: Segments,
    num_queries: int,
    spec: AttentionSpec,
    gpu: GpuProfile,
    rows: int,
    growth: Growth | None = None,
) -> WorkList:
    """The work list of a variant: queries are cut into tiles, and what a tile reads into items.

    Args:
        variant: one of `VARIANTS`.
        segments: those of the forest.
        num_queries: B, of the forest.
        spec: the attention.
        gpu: where it runs.
        rows: of a tile.
        growth: by which every path is to grow.

    Raises:
        ValueError: no such variant, or a query sees no entry.
    """
    check_variant(variant, grows=growth is not None)
    check_seen(segments, num_queries)
    width = spec.tile_width(rows)
    cost = CostModel(spec, gpu, rows)
    steps = 0 if growth is None else growth.steps
    if variant == "deft_node":
        tiles = tiles_by_segment(segments, min(width, PAPER_GROUP))
        length = max(int(segments.length.max(initial=1)), 1)
    elif variant == "deft_node_chunk":
        tiles, length = tiles_by_segment(segments, min(width, PAPER_GROUP)), PAPER_BLOCK
    elif variant == "deft_flatten":
        tiles = tiles_by_width(segments, num_queries, min(width, PAPER_GROUP))
        length = PAPER_BLOCK
    elif variant == "deft":
        tiles = deft_tiles(segments, num_queries, width, cost)
        length = best_item_length(segments, tiles, cost, steps)
    else:
        if variant == "tree_mask":  # every tile reads every segment, seen or not
            zero, all_queries = np.zeros_like(segments.lo), np.full_like(segments.hi, num_queries)
            segments = replace(segments, lo=zero, hi=all_queries, num_visible=segments.length)
        tiles = tiles_by_width(segments, num_queries, 1 if variant == "sequence" else width)
        length = best_item_length(segments, tiles, cost, steps)
    return build_work_list(segments, num_queries, tiles, length, growth)
