"""The named trees against the tables of the papers that use them, and against the recordings."""

import json

import numpy as np
import pytest
from places import DATA

from treeshare.experiments.bench.attention.roofline import queries_below
from treeshare.experiments.bench.attention.workloads import (
    FASTTREE,
    GROUPS,
    RECORDED,
    build,
    chain,
    fasttree,
    few_shot,
    main,
    random_forests,
    reasoning_replay,
    reasoning_trees,
    star,
    token_trees,
)
from treeshare.experiments.bench.templates import recordings

TEMPLATES = DATA / "deft_templates"
PEERS = DATA.parent / "research/peers_h100.json"
needs_templates = pytest.mark.skipif(
    not TEMPLATES.exists(), reason=f"needs DeFT's templates at {TEMPLATES}"
)
needs_peers = pytest.mark.skipif(not PEERS.exists(), reason=f"needs the peers' rows at {PEERS}")


def tokens(forest):
    return int(forest.length.sum())


def queries(forest):
    return int(forest.num_queries.sum())


def num_leaves(forest):
    return len(set(range(len(forest.parent))) - set(forest.parent.tolist()))


def the_one(workloads):
    (workload,) = workloads
    return workload.forest


def test_fasttree_has_the_sizes_of_its_table():
    """The table has (nodes, leaves, tokens); leaves and tokens are from run_benchmark.sh."""
    assert [(len(w.forest.parent), queries(w.forest), tokens(w.forest)) for w in fasttree()] == [
        (67, 64, 2_568),
        (261, 256, 9_224),
        (269, 256, 11_272),
        (257, 256, 8_448),
        (1025, 1024, 34_816),
        (81, 64, 7_168),
        (533, 512, 20_480),
        (1365, 1024, 278_816),
        (11, 10, 8_000),
        (1279, 1024, 20_464),
        (1279, 1024, 21_120),
        (1273, 1024, 22_272),
        (1401, 1024, 24_320),
        (1265, 1024, 23_808),
        (1393, 1024, 25_856),
    ]
    assert [w.name for w in fasttree()] == list(FASTTREE)


def test_a_level_is_split_evenly_over_the_one_above():
    forest = next(w.forest for w in fasttree() if w.name.startswith("1,4,8,256|"))
    children = np.bincount(forest.parent[1:], minlength=13)[:13]
    assert children.tolist() == [4, 2, 2, 2, 2, *[32] * 8]
    assert (np.diff(forest.parent) >= 0).all()


@pytest.mark.parametrize("workload", build(["fasttree", "few_shot", "star"]), ids=lambda w: w.name)
def test_every_leaf_has_one_query_and_nothing_else_has(workload):
    forest = workload.forest
    assert num_leaves(forest) == queries(forest)
    assert not forest.num_queries[np.unique(forest.parent[1:])].any()


@needs_peers
def test_measured_trees_are_these():
    rows = {
        row["name"]: row
        for row in json.loads(PEERS.read_text())["rows"]
        if "|" in row["name"] or row["name"].split("[")[0] in ("sorting128ToT", "set128ToT")
    }
    groups = ["fasttree", "few_shot", *(["reasoning"] if TEMPLATES.exists() else [])]
    ours = {w.name: w.forest for w in build(groups, TEMPLATES)}
    missing = {name for name in rows.keys() - ours.keys() if "|" in name or TEMPLATES.exists()}
    assert not missing
    for name in rows.keys() & ours.keys():
        assert (queries(ours[name]), tokens(ours[name])) == (rows[name]["B"], rows[name]["T"]), name


def test_few_shot_and_star():
    assert [w.name for w in few_shot()] == ["1,20|4000,200", "1,30|4000,200", "1,50|4000,200"]
    forest = the_one(few_shot(prompt=7, generated=3, branches=(2,)))
    assert (forest.parent.tolist(), forest.length.tolist()) == ([-1, 0, 0], [7, 3, 3])
    forest = the_one(star(prompt=9, sizes=(3,)))
    assert (forest.parent.tolist(), forest.length.tolist()) == ([-1, 0, 0, 0], [9, 1, 1, 1])
    assert [queries(w.forest) for w in star()] == [32, 64, 128, 256]


def test_chain_shares_nothing():
    for workload in chain():
        assert queries_below(workload.forest).max() == 1, workload.name
    flat, linked = (w.forest for w in chain(shapes=[(3, 5)], links=4, length=2))
    assert (flat.parent.tolist(), flat.length.tolist()) == ([-1] * 3, [5] * 3)
    assert (linked.parent.tolist(), linked.num_queries.tolist()) == ([-1, 0, 1, 2], [0, 0, 0, 1])


def test_random_forests_have_what_ragged_trees_have():
    forests = [w.forest for w in random_forests(seed=3, count=20)]
    assert all((f.parent < 0).sum() > 1 for f in forests if len(f.parent) > 60)
    nodes = [np.flatnonzero(np.isin(np.arange(len(f.parent)), f.parent)) for f in forests]
    assert any(f.num_queries[inner].any() for f, inner in zip(forests, nodes, strict=True))
    assert any(f.num_queries[f.length == 0].any() for f in forests)
    assert any((f.num_queries > 1).any() for f in forests)
    for forest in forests:
        path = forest.length.copy()
        for node, parent in enumerate(forest.parent):
            path[node] += path[parent] if parent >= 0 else 0
        assert path[forest.num_queries > 0].min() > 0 and queries(forest)


def test_random_forests_are_drawn_from_the_seed():
    one, same, other = random_forests(1, 2), random_forests(1, 3), random_forests(2, 2)
    for a, b, c in zip(one, same, other, strict=False):
        assert a.name == b.name != c.name
        assert a.forest.length.tolist() == b.forest.length.tolist() != c.forest.length.tolist()


@needs_templates
def test_recorded_trees():
    found = {w.name: w.forest for w in reasoning_trees(TEMPLATES)}
    figures = {name: (len(f.parent), queries(f), tokens(f)) for name, f in found.items()}
    assert figures == {"sorting128ToT[16]": (101, 91, 78_281), "set128ToT[60]": (91, 82, 27_907)}


@needs_templates
@pytest.mark.parametrize(
    ("name", "index", "nodes", "total", "iterations", "mean", "most"),
    [
        ("sorting128ToT", 1, 101, 34_310, 3708, 8.95, 19),
        ("set128ToT", 0, 91, 4_354, 363, 7.54, 11),
    ],
)
def test_replay_has_the_tabulated_live_queries(name, index, nodes, total, iterations, mean, most):
    """The mean is over the prefill too, iteration 0, in which no branch decodes."""
    (recording,) = recordings(TEMPLATES, {name: (index,)}).values()
    assert (len(recording.parent), recording.length.sum()) == (nodes, total)
    assert recording.last_iterations().max() == iterations
    live = [queries(recording.at(iteration)) for iteration in range(iterations + 1)]
    assert live[0] == 0 and min(live[1:]) > 0
    assert (round(np.mean(live), 2), max(live)) == (mean, most)
    assert sum(live) == total - recording.length[0]  # every token is decoded once


@needs_templates
@pytest.mark.parametrize("name", ["sorting128ToT", "set128ToT"])
def test_replay_keeps_the_recorded_times(name):
    """A template also notes when each node starts and ends; the replay derives both."""
    for index, record in enumerate(json.loads((TEMPLATES / f"{name}.json").read_text())):
        if not record["incompleted"]:
            (recording,) = recordings(TEMPLATES, {name: (index,)}).values()
            last = recording.last_iterations()
            for node in record["data"].values():
                assert last[node["id"]] == node["end"]
                assert last[node["id"]] - recording.length[node["id"]] + 1 == node["start"]


@needs_templates
def test_replay_holds_only_what_is_live_and_above():
    (recording,) = recordings(TEMPLATES, {"set128ToT": (0,)}).values()
    forest = recording.at(61)  # node 10 ended at 60 and its children begin; node 2 goes on to 172
    assert forest.parent.tolist() == [-1, 0, 0, *[2] * 10]
    assert forest.length.tolist() == [1611, 61, 60, *[1] * 10]
    assert forest.num_queries.tolist() == [0, 1, 0, *[1] * 10]
    assert tokens(recording.at(0)) == 1611
    assert recording.at(363).length[-1] == recording.length[recording.last_iterations().argmax()]
    for workload in reasoning_replay(TEMPLATES):
        assert queries_below(workload.forest).min() > 0, workload.name


@needs_templates
def test_replay_is_shown_evenly():
    names = [w.name for w in reasoning_replay(TEMPLATES, {"set128ToT": (0,)}, snapshots=3)]
    assert names == [f"set128ToT[0] {iteration}/363" for iteration in (60, 181, 302)]


@needs_templates
@pytest.mark.parametrize(("size", "leaves"), [(32, 17), (64, 42), (256, 201)])
def test_token_trees_verify_every_token(size, leaves):
    forest = the_one(token_trees(TEMPLATES, sizes=(size,)))
    assert forest.length.tolist() == [1016] + [1] * size
    assert forest.num_queries.tolist() == [0] + [1] * size
    assert num_leaves(forest) == leaves
    assert queries_below(forest)[:2].tolist() == [size, size]
    depth = np.zeros(size + 1, int)
    for node in range(1, size + 1):
        depth[node] = depth[forest.parent[node]] + 1
    assert depth.max() == 5  # the model's own token and four Medusa heads


@needs_templates
def test_token_tree_keeps_its_topology():
    """A template names each node by its place among its siblings."""
    for size in (32, 64, 256):
        forest = the_one(token_trees(TEMPLATES, sizes=(size,)))
        paths, seen = {1: ()}, {}
        for node in range(2, size + 1):
            parent = int(forest.parent[node])
            paths[node] = (*paths[parent], seen.setdefault(parent, 0))
            seen[parent] += 1
        structure = json.loads((TEMPLATES / f"APPS_tree_size{size}.json").read_text())
        assert structure["Token_Tree_size"] == size
        assert sorted(paths.values()) == sorted([(), *map(tuple, structure["Tree_Structure"])])


@needs_templates
def test_names_are_unique_and_workloads_name_their_groups():
    workloads = build(list(GROUPS), TEMPLATES)
    assert len({w.name for w in workloads}) == len(workloads)
    assert list(dict.fromkeys(w.group for w in workloads)) == list(GROUPS)


@pytest.mark.parametrize("group", sorted(RECORDED))
def test_missing_template_is_named(group, tmp_path):
    with pytest.raises(ValueError, match=f"^templates: {tmp_path}/.*json: No such file") as error:
        build([group], tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=f"group='{group}' needs templates="):
        build([group])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "Expecting"),
        ("[]", "out of range"),
        ("[3]", "not subscriptable"),
        ('[{"incompleted": true}]', "the search at 0 is incomplete"),
        ('[{"incompleted": false}]', "'data'"),
        (
            '[{"incompleted": false, "data": {'
            '"0": {"id": 0, "value": 1, "children": []}, '
            '"1": {"id": 1, "value": 1, "children": []}}}]',
            "the nodes of 0 are no tree",
        ),
    ],
    ids=["not_json", "empty", "number", "incomplete", "no_data", "two_roots"],
)
def test_wrong_template_is_named(text, what, tmp_path):
    (tmp_path / "set128ToT.json").write_text(text)
    with pytest.raises(ValueError, match=f"^templates: {tmp_path}/set128ToT.json has .*{what}"):
        reasoning_trees(tmp_path, {"set128ToT": (0,)})


def test_wrong_token_tree_is_named(tmp_path):
    (tmp_path / "APPS_tree_size32.json").write_text('{"Tree_Structure": [[0, 1]]}')
    with pytest.raises(ValueError, match=f"^templates: {tmp_path}/APPS_tree_size32.json has "):
        token_trees(tmp_path, sizes=(32,))


def test_unknown_group():
    with pytest.raises(ValueError, match="group='tree' must be one of fasttree, few_shot, "):
        build(["tree"])


def test_dump(tmp_path, capsys):
    out = tmp_path / "trees.json"
    main(["--groups", "star,chain", "--heads", "32/8,16/1", "--out", str(out)])
    rows = json.loads(out.read_text())
    assert len(rows) == 2 * 8
    assert list(rows[0]) == ["name", "parent", "length", "num_queries", "hq", "hk", "d"]
    assert rows[0]["name"] == "1,32|1000,1" and rows[0]["parent"] == [-1] + [0] * 32
    assert [(row["hq"], row["hk"], row["d"]) for row in rows[::8]] == [(32, 8, 128), (16, 1, 128)]
    for wrong, message in [
        (["--heads", "32"], "--heads: invalid heads value: '32'"),
        (["--groups", "replay"], "group='replay' needs templates="),
        (["--groups", "star", "--out", str(tmp_path)], "Is a directory"),
    ]:
        with pytest.raises(SystemExit):
            main(["--out", str(out), *wrong])
        assert message in capsys.readouterr().err
