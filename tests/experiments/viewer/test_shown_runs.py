"""What the page shows of runs, failures and trees, and what is refused."""

import json
import math
import os
import re
import shutil

import pytest
from view_trees import NASTY, big_tree, nasty_tree

from treeshare.experiments.viewer.page import TEMPLATE, page
from treeshare.experiments.viewer.shown_runs import ViewError, read_runs

SEARCH = ["engine=mock", "search=mcts", "search.num_simulations=8", "task.limit=3", "max_live=1"]
BARE = {
    "task": {"_target_": "bare_task.Bare", "size": 3, "verifier": {"_target_": "bare_task.Likely"}}
}


def embedded(html):
    blocks = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', html, re.S)
    return {name: json.loads(text) for name, text in blocks}


def page_of(*paths):
    return embedded(page(read_runs(paths)))


# Trees.


def test_embedded_tree_is_the_tree(write):
    tree = nasty_tree()
    html = page(read_runs([write("p+1.json", tree)]))
    assert embedded(html)["tree-0"] == tree
    for opening in ("<script", "</script", "<!--"):
        assert html.count(opening) == TEMPLATE.read_text().count(opening) + (
            2 if "script" in opening else -1  # two blocks, in the place of a comment
        )


def test_numbers_that_json_has_not_are_spelled(write):
    tree = nasty_tree()
    for node, value in zip(tree["nodes"], [math.inf, -math.inf, math.nan], strict=False):
        node["value"] = value
    nodes = page_of(write("tree.json", tree))["tree-0"]["nodes"]
    assert [node["value"] for node in nodes[:4]] == ["Infinity", "-Infinity", "NaN", 0.5]


def test_ten_thousand_nodes(write):
    tree = json.loads(big_tree().to_json())
    assert page_of(write("big.json", tree))["tree-0"] == tree


def test_tree_without_a_note_of_its_problem_is_named_by_its_file(write):
    data = page_of(write("a+b%2B%20c.json", nasty_tree() | {"graph": {}}))["data"]
    assert [entry["problem"] for entry in data["entries"]] == ["a/b+ c"]
    assert data["runs"][0]["totals"] is None


GOOD = nasty_tree()
BAD_TREES = {
    "not JSON": ("{", "Expecting property name"),
    "not text": ("\udcff", "can't decode byte"),
    "too deep": ("[" * 100_000, "recursion"),
    "a list": ("[]", "it is not node-link JSON"),
    "no graph": ({"nodes": [], "edges": []}, "no key 'graph'"),
    "no edges": ({"graph": {}, "nodes": [{"id": 0}]}, "no key 'edges'"),
    "no nodes": ({"graph": {}, "nodes": [], "edges": []}, "its node ids are not 0, 1, 2, ..."),
    "no ids": ({"graph": {}, "nodes": [{}], "edges": []}, "no key 'id'"),
    "names for ids": ({"graph": {}, "nodes": [{"id": "a"}], "edges": []}, "ids are not 0, 1, 2"),
    "cycle": (GOOD | {"edges": [{"source": 1, "target": 1}]}, "edge 1 to 1 does not lead"),
    "unknown node": (GOOD | {"edges": [{"source": 0, "target": 7}]}, "edge 0 to 7 does not lead"),
    "true for ids": (GOOD | {"nodes": [{"id": False}, {"id": True}]}, "ids are not 0, 1, 2"),
    "fractions for ids": (GOOD | {"nodes": [{"id": 0.0}, {"id": 1.0}]}, "ids are not 0, 1, 2"),
    "true for an edge": (GOOD | {"edges": [{"source": False, "target": True}]}, "edge False to"),
    "list for an edge": (GOOD | {"edges": [{"source": [], "target": 1}]}, "edge [] to 1 does"),
    "number for edges": (GOOD | {"edges": 3}, "its nodes and edges are not lists"),
    "text for nodes": (GOOD | {"nodes": "ab"}, "its nodes and edges are not lists"),
    "true in the ranking": (GOOD | {"graph": {"ranked": [True]}}, "it ranks node True of 7"),
    "number for a ranking": (GOOD | {"graph": {"ranked": 3}}, "its ranked are not a list"),
    "text for answers": (GOOD | {"graph": {"answers": "24"}}, "its answers are not a list"),
    "two roots": (GOOD | {"edges": [{"source": 0, "target": 2}]}, "node 1 has no parent"),
    "ranking": (GOOD | {"graph": {"ranked": [6, 7]}}, "it ranks node 7 of 7"),
}


@pytest.mark.parametrize(("data", "said"), BAD_TREES.values(), ids=BAD_TREES.keys())
def test_what_is_no_tree_is_refused(data, said, tmp_path):
    path = tmp_path / "bad.json"
    text = data if isinstance(data, str) else json.dumps(data)
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ViewError) as info:
        read_runs([path])
    assert str(info.value).startswith(f"{path} is not a tree: ") and said in str(info.value)


# Runs.


def test_run_lists_every_puzzle_with_its_row_and_the_totals(treeshare, run_directory, read_rows):
    treeshare(*SEARCH)
    data = page_of(run_directory())
    entries = data["data"]["entries"]
    for entry, row in zip(entries, read_rows(), strict=True):
        assert row.items() <= entry["row"].items()
    for entry in entries:
        tree = data[f"tree-{entry['tree']}"]
        assert tree["graph"]["problem"] == entry["problem"] == entry["row"]["problem"]
        assert len(tree["nodes"]) == entry["row"]["nodes"]
    (run,) = data["data"]["runs"]
    assert run["totals"]["puzzles"] == 3 and run["failed"] == 0
    assert run["totals"]["nodes"] == sum(row["nodes"] for row in read_rows())
    assert run["title"] == f"game24 / mcts / MockEngine / {run_directory().name}"


def test_tree_holds_the_ranking(treeshare, run_directory, read_rows):
    treeshare(*SEARCH, "answers=2")
    row = read_rows()[0]
    tree = page_of(run_directory())["tree-0"]
    about, nodes = tree["graph"], tree["nodes"]
    assert (about["problem"], about["answers"]) == (row["problem"], row["answers"])
    assert len(set(about["ranked"])) == len(about["ranked"]) >= 1
    finished = [nodes[i]["is_terminal"] for i in about["ranked"][:2]]
    assert finished == [answer is not None for answer in row["answers"]]


def test_run_under_way_can_be_looked_at(treeshare, run_directory):
    """A tree is on disk before its row, and the row's line may be half written."""
    treeshare(*SEARCH)
    path = run_directory() / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    data = page_of(run_directory())["data"]
    assert [entry["row"] is None for entry in data["entries"]] == [False, False, True]
    assert data["runs"][0]["totals"]["puzzles"] == 2


def test_failed_puzzles_are_shown_with_their_error(run_with, run_directory):
    run_with(**BARE)
    rows = (run_directory() / "results.jsonl").read_text().splitlines(keepends=True)
    (run_directory() / "results.jsonl").write_text("".join(rows[1:]))
    (run_directory() / "trees" / "bare+0.json").unlink()
    failure = {
        "problem": "bare/0",
        "error": "ValueError",
        "message": NASTY[0],
        "traceback": NASTY[1],
        "where": "my_task.py:3",
    }
    (run_directory() / "failures.jsonl").write_text(json.dumps(failure) + "\n")
    data = page_of(run_directory())
    assert data["data"]["runs"][0]["failed"] == 1
    last = data["data"]["entries"][-1]
    assert (last["problem"], last["row"], last["failure"], last["tree"]) == (
        *("bare/0", None, failure, None),
    )
    shutil.rmtree(run_directory() / "trees")
    assert len(page_of(run_directory())["data"]["entries"]) == 3  # without any tree


def test_missing_trees_are_said_in_the_title(treeshare, run_directory):
    treeshare(*SEARCH)
    next((run_directory() / "trees").iterdir()).unlink()
    data = page_of(run_directory())["data"]
    assert data["title"].endswith(" (1 of 3 trees are missing)")
    assert [entry["tree"] is None for entry in data["entries"]].count(True) == 1


def test_runs_are_named_by_what_differs(treeshare, tmp_path):
    treeshare("-m", *SEARCH, "search.num_simulations=4,8")
    treeshare(*SEARCH[:1], "search=io", *SEARCH[3:], "seed=3")
    names = [run["name"] for run in page_of(tmp_path)["data"]["runs"]]
    assert names == [
        "io seed 3",
        "mcts num_simulations=4 seed 0",
        "mcts num_simulations=8 seed 0",
    ]


def test_equal_runs_have_different_names(treeshare, tmp_path):
    treeshare(*SEARCH)
    shutil.copytree(tmp_path / "outputs", tmp_path / "copy")
    names = [run["name"] for run in page_of(tmp_path)["data"]["runs"]]
    assert len(names) == len(set(names)) == 2


# What is refused.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "results.jsonl:4 is not a Row"),
        ({}, "results.jsonl:4 repeats 'game24/1-5-5-5', the puzzle of line 1"),
        ({"problem": "x", "seed": 1}, "results.jsonl:4 is of seed 1, the run of seed 0"),
        ({"problem": ["x"]}, "results.jsonl:4 is not a Row: problem=['x'] is not of type str"),
        ({"problem": "x", "answers": 3}, "results.jsonl:4 is not a Row: answers=3 is not of type"),
    ],
)
def test_corrupt_row_is_refused_by_line(change, said, treeshare, run_directory):
    treeshare(*SEARCH)
    path = run_directory() / "results.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    with path.open("a") as file:
        file.write(f"{json.dumps({} if change is None else row | change)}\n")
    with pytest.raises(ViewError) as info:
        read_runs([run_directory()])
    assert said in str(info.value) and "\n" not in str(info.value)


def test_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(ViewError, match=r"holds no run: no results\.jsonl next to"):
        read_runs([tmp_path])


def test_run_without_trees_is_refused(treeshare, run_directory):
    treeshare(*SEARCH, "save_trees=false")
    with pytest.raises(ViewError, match="holds no tree; was the run started with save_trees=false"):
        read_runs([run_directory()])


@pytest.mark.parametrize("name", ["trees/bare+1.json", "failures.jsonl"])
def test_pipes_in_the_place_of_files_are_refused(name, run_with, run_directory):
    run_with(**BARE)
    (run_directory() / name).unlink()
    os.mkfifo(run_directory() / name)
    with pytest.raises(ViewError, match="is not a file"):
        read_runs([run_directory()])


def test_files_of_a_page_are_limited_in_all(run_with, run_directory):
    run_with(**BARE)
    files = [*(run_directory() / "trees").iterdir(), *run_directory().glob("*.jsonl")]
    size = sum(path.stat().st_size for path in files)
    assert read_runs([run_directory()], most_bytes=size)
    with pytest.raises(ViewError, match=f"may have {size - 1:,} bytes in all; name fewer runs"):
        read_runs([run_directory()], most_bytes=size - 1)
