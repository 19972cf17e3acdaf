"""The least that exact tree attention must move and compute, and the time that this takes.

Every KV entry that a query can see is read once; every query is read once, and every output is
written once. Partial results, repeated reads and launches are costs of an implementation and do not
count (the roofline model, doi 10.1145/1498765.1498785).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from treeshare.kernels.planning.forest import Forest


class Traffic(NamedTuple):
    """The work of one layer in one forward."""

    kv_bytes: int  # keys and values, each once
    query_bytes: int  # queries in and outputs out
    flops: int  # of the two matrix products


def queries_below(forest: Forest) -> np.ndarray:
    """The number of queries at or below each node: [N] int64."""
    lo, hi, _ = forest.depth_first()
    below: np.ndarray = hi - lo
    return below


def traffic(forest: Forest, hq: int, hk: int, d: int, itemsize: int) -> Traffic:
    """The bytes and operations of a forest.

    With L_n entries of node n, q_n queries at or below it, B queries in all and e bytes a number:
    bytes = Σ_n L_n·HK·2D·e over nodes with q_n > 0, and B·HQ·2D·e; flops = 2·HQ·2D·Σ_n q_n·L_n.
    Several queries of one node are counted as if each saw all of it.

    Args:
        forest: its shape.
        hq: query heads.
        hk: KV heads.
        d: size of a head, the same for keys and values.
        itemsize: bytes of a number.
    """
    below = queries_below(forest)
    length = np.asarray(forest.length, dtype=int)
    return Traffic(
        kv_bytes=int(length[below > 0].sum()) * hk * 2 * d * itemsize,
        query_bytes=int(forest.num_queries.sum()) * hq * 2 * d * itemsize,
        flops=2 * hq * 2 * d * int(below @ length),
    )


def floor_seconds(traffic: Traffic, bandwidth: float, flop_rate: float) -> float:
    """The floor in seconds: max(bytes / bandwidth, flops / flop_rate).

    Args:
        traffic: as `traffic` returns it.
        bandwidth: bytes per second.
        flop_rate: floating point operations per second.
    """
    moved = traffic.kv_bytes + traffic.query_bytes
    return max(moved / bandwidth, traffic.flops / flop_rate)
