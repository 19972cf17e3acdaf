"""The page of a run's trees: the data embedded in it, and the command that writes it."""

import json
import math
import re
import sys

import pytest
from view_trees import big_tree, nasty_tree

from treeshare.experiments.viewer import view
from treeshare.experiments.viewer.view import TEMPLATE, ViewError, read_tree, run_page, tree_page

SEARCH = ["engine=mock", "search=mcts", "search.num_simulations=8", "task.limit=3", "max_live=1"]


def embedded(html):
    blocks = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', html, re.S)
    return {name: json.loads(text) for name, text in blocks}


@pytest.fixture
def command(monkeypatch, capfd):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["treeshare-view", *map(str, arguments)])
        return view.main(), *capfd.readouterr()

    return call


# The page's data.


def test_embedded_tree_is_the_tree(write):
    tree = nasty_tree()
    html = tree_page(write("p+1.json", tree))
    assert embedded(html)["tree-0"] == tree
    for opening in ("<script", "</script", "<!--"):
        assert html.count(opening) == TEMPLATE.read_text().count(opening) + (
            2 if "script" in opening else -1  # two blocks, in the place of a comment
        )


def test_numbers_that_json_has_not_are_spelled(write):
    tree = nasty_tree()
    for node, value in zip(tree["nodes"], [math.inf, -math.inf, math.nan], strict=False):
        node["value"] = value
    nodes = embedded(tree_page(write("tree.json", tree)))["tree-0"]["nodes"]
    assert [node["value"] for node in nodes[:4]] == ["Infinity", "-Infinity", "NaN", 0.5]


def test_page_refers_to_nothing_outside():
    html = TEMPLATE.read_text()
    assert "default-src 'none'" in html
    for word in (
        "://",
        "src=",
        "href=",
        "url(",
        "@import",
        "import(",
        "fetch(",
        "XMLHttp",
        "Socket",
    ):
        assert word not in html


def test_ten_thousand_nodes(write):
    tree = json.loads(big_tree().to_json())
    assert embedded(tree_page(write("big.json", tree)))["tree-0"] == tree


def test_tree_holds_the_ranking(treeshare, run_directory, read_rows):
    treeshare(*SEARCH, "answers=2")
    row = read_rows()[0]
    tree = read_tree(run_directory() / "trees" / (row["problem"].replace("/", "+") + ".json"))
    about, nodes = tree["graph"], tree["nodes"]
    assert (about["problem"], about["answers"]) == (row["problem"], row["answers"])
    assert len(set(about["ranked"])) == len(about["ranked"]) >= 1
    finished = [nodes[i]["is_terminal"] for i in about["ranked"][:2]]
    assert finished == [answer is not None for answer in row["answers"]]


def test_run_lists_every_tree_with_its_row_and_the_totals(treeshare, run_directory, read_rows):
    treeshare(*SEARCH)
    data = embedded(run_page(run_directory()))
    shown = [entry["row"] | {"seconds": 0} for entry in data["run"]["trees"]]
    assert shown == [row | {"seconds": 0} for row in read_rows()]
    for i, entry in enumerate(data["run"]["trees"]):
        assert data[f"tree-{i}"]["graph"]["problem"] == entry["problem"]
        assert len(data[f"tree-{i}"]["nodes"]) == entry["row"]["nodes"]
    totals = data["run"]["totals"]
    assert totals["puzzles"] == 3 and totals["nodes"] == sum(row["nodes"] for row in read_rows())


def test_run_under_way_can_be_looked_at(treeshare, run_directory):
    """A tree is on disk before its row, and the row's line may be half written."""
    treeshare(*SEARCH)
    path = run_directory() / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    run = embedded(run_page(run_directory()))["run"]
    assert [entry["row"] is None for entry in run["trees"]] == [False, False, True]
    assert run["totals"]["puzzles"] == 2


def test_tree_without_a_note_of_its_problem_is_named_by_its_file(write):
    tree = nasty_tree() | {"graph": {}}
    data = embedded(tree_page(write("a+b%2B%20c.json", tree)))
    assert data["run"]["trees"] == [{"problem": "a/b+ c", "row": None}]


# The command.


def test_command_writes_the_page_and_names_it(command, write, tmp_path):
    path = write("tree.json", nasty_tree())
    assert command(path) == (0, f"{tmp_path / 'tree.html'}\n", "")
    assert (tmp_path / "tree.html").read_text() == tree_page(path)
    assert command(path, "-o", tmp_path / "other.html")[0] == 0
    assert (tmp_path / "other.html").exists()


def test_run_directory_gets_its_page(treeshare, run_directory, command):
    treeshare(*SEARCH)
    assert command(run_directory()) == (0, f"{run_directory() / 'view.html'}\n", "")
    assert set(embedded((run_directory() / "view.html").read_text())) == {
        *("run", "tree-0", "tree-1", "tree-2")
    }


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
def test_what_is_no_tree_is_one_line(data, said, command, tmp_path):
    path = tmp_path / "bad.json"
    text = data if isinstance(data, str) else json.dumps(data)
    path.write_text(text, errors="surrogateescape")
    code, out, err = command(path)
    assert (code, out) == (2, "")
    assert err.startswith(f"treeshare-view: {path} is not a tree: ") and err.count("\n") == 1
    assert said in err
    assert not path.with_suffix(".html").exists()
    with pytest.raises(ViewError):
        read_tree(path)


def test_missing_path_is_one_line(command, tmp_path):
    path = tmp_path / "none.json"
    assert command(path) == (2, "", f"treeshare-view: {path}: No such file or directory\n")


def test_directory_that_is_no_run_is_one_line(command, tmp_path):
    said = f"treeshare-view: {tmp_path} is not a run's directory: it has no results.jsonl\n"
    assert command(tmp_path) == (2, "", said)


def test_run_without_trees_is_one_line(treeshare, run_directory, command):
    treeshare(*SEARCH, "save_trees=false")
    code, out, err = command(run_directory())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "trees holds no tree; was the run started with save_trees=false, or were they" in err


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
def test_corrupt_row_is_one_line(change, said, treeshare, run_directory, command):
    treeshare(*SEARCH)
    path = run_directory() / "results.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    with path.open("a") as file:
        file.write(f"{json.dumps({} if change is None else row | change)}\n")
    code, out, err = command(run_directory())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_missing_trees_are_said_in_the_title(treeshare, run_directory):
    treeshare(*SEARCH)
    next((run_directory() / "trees").iterdir()).unlink()
    run = embedded(run_page(run_directory()))["run"]
    assert run["title"].endswith(" (1 of 3 trees are missing)") and len(run["trees"]) == 2


def test_place_that_cannot_be_written_is_one_line(command, write, tmp_path):
    output = tmp_path / "none" / "page.html"
    code, out, err = command(write("tree.json", nasty_tree()), "-o", output)
    assert (code, out) == (2, "")
    assert err == f"treeshare-view: {output}: No such file or directory\n"
