"""The floor by hand, and against the floor in the peers' measurements."""

import json

import numpy as np
import pytest
from places import DATA

from treeshare.experiments.bench.attention.roofline import (
    Traffic,
    floor_seconds,
    queries_below,
    traffic,
)
from treeshare.experiments.bench.attention.workloads import build, random_forests
from treeshare.kernels.planning.forest import Forest

TEMPLATES = DATA / "deft_templates"
PEERS = DATA.parent / "research/peers_h100.json"


def test_by_hand():
    #      0: 10 entries      4: a root of its own, no query
    #     /  \
    #   1: 4  2: 6, a query
    #   |
    #   3: empty, a query          1 itself has one too
    forest = Forest.packed(
        np.array([-1, 0, 0, 1, -1]), np.array([10, 4, 6, 0, 7]), np.array([0, 1, 1, 1, 0])
    )
    assert queries_below(forest).tolist() == [3, 2, 1, 1, 0]
    found = traffic(forest, hq=4, hk=2, d=8, itemsize=2)
    assert found.kv_bytes == (10 + 4 + 6) * 2 * 16 * 2
    assert found.query_bytes == 3 * 4 * 16 * 2
    assert found.flops == 2 * 4 * 16 * (3 * 10 + 2 * 4 + 6)
    assert forest.num_queries.tolist() == [0, 1, 1, 1, 0]


def test_flops_are_those_of_every_query_along_its_path():
    for workload in random_forests(count=4):
        forest = workload.forest
        path, read = forest.length.copy(), set()
        for node, parent in enumerate(forest.parent):
            path[node] += path[parent] if parent >= 0 else 0
        for node in np.flatnonzero(forest.num_queries):
            while node >= 0:
                read.add(int(node))
                node = forest.parent[node]
        found = traffic(forest, hq=8, hk=2, d=64, itemsize=1)
        assert found.flops == 4 * 8 * 64 * int(path @ forest.num_queries)
        assert found.kv_bytes == 2 * 2 * 64 * sum(int(forest.length[node]) for node in read)


def test_floor_is_the_slower_side():
    assert floor_seconds(Traffic(300, 100, 50), bandwidth=100.0, flop_rate=100.0) == 4.0
    assert floor_seconds(Traffic(300, 100, 900), bandwidth=100.0, flop_rate=100.0) == 9.0


def test_no_query_costs_nothing():
    forest = Forest.packed(np.array([-1, 0]), np.array([5, 5]), np.array([0, 0]))
    assert traffic(forest, 4, 2, 8, 2) == Traffic(0, 0, 0)


@pytest.mark.skipif(not PEERS.exists(), reason=f"needs the peers' rows at {PEERS}")
def test_floor_is_that_of_the_measured_peers():
    """The columns there are rounded; floor_us is 0.15 % above what the rounded rates give."""
    peers = json.loads(PEERS.read_text())
    groups = ["fasttree", "few_shot", *(["reasoning"] if TEMPLATES.exists() else [])]
    forests = {w.name: w.forest for w in build(groups, TEMPLATES)}
    compared = 0
    for row in peers["rows"]:
        if row["name"] in forests:
            found = traffic(forests[row["name"]], row["hq"], row["hk"], d=128, itemsize=2)
            assert found.kv_bytes / 1e6 == pytest.approx(row["kvMB"], abs=0.006)
            assert found.flops / 1e9 == pytest.approx(row["gflop"], abs=0.006)
            floor = floor_seconds(found, peers["read_TBs"] * 1e12, peers["matmul_TFs"] * 1e12)
            assert 1e6 * floor == pytest.approx(row["floor_us"], rel=0.002, abs=0.006)
            compared += 1
    assert compared == 32 + 2 * TEMPLATES.exists()
