"""The command that writes the page of some runs."""

import json
import re
import shlex
import shutil
import sys

import pytest
from places import ROOT
from view_trees import nasty_tree

from treeshare.experiments.viewer import view
from treeshare.experiments.viewer.page import TEMPLATE
from treeshare.experiments.viewer.view import tree_page

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


def test_page_refers_to_nothing_outside():
    html = TEMPLATE.read_text()
    assert "default-src 'none'" in html
    for word in ("://", "src=", "href=", "url(", "@import", "import(", "fetch(", "XMLHttp"):
        assert word not in html
    assert "Socket" not in html


def test_command_writes_the_page_and_names_it(command, write, tmp_path):
    path = write("tree.json", nasty_tree())
    assert command(path) == (0, f"{tmp_path / 'tree.html'}\n", "")
    assert (tmp_path / "tree.html").read_text() == tree_page(path)
    assert command(path, "-o", tmp_path / "other.html")[0] == 0
    assert (tmp_path / "other.html").exists()


def test_run_directory_gets_its_page(treeshare, run_directory, command):
    treeshare(*SEARCH)
    assert command(run_directory()) == (0, f"{run_directory() / 'view.html'}\n", "")
    page = embedded((run_directory() / "view.html").read_text())
    assert set(page) == {"data", "tree-0", "tree-1", "tree-2"}


def test_several_paths_get_one_page_here(treeshare, command, tmp_path, write):
    treeshare("-m", *SEARCH, "seed=0,1")
    paths = sorted(tmp_path.glob("outputs/*/*/*/*seed?"))
    assert command(*paths, write("tree.json", nasty_tree())) == (0, "view.html\n", "")
    data = embedded((tmp_path / "view.html").read_text())["data"]
    assert [run["name"] for run in data["runs"]] == ["mcts seed 0", "mcts seed 1", "tree.json"]
    assert [entry["run"] for entry in data["entries"]] == [0, 0, 0, 1, 1, 1, 2]
    assert command("outputs") == (0, "outputs/view.html\n", "")
    assert len(embedded((tmp_path / "outputs/view.html").read_text())["data"]["runs"]) == 2


def test_errors_are_one_line(command, tmp_path, write):
    path = tmp_path / "none.json"
    assert command(path) == (2, "", f"treeshare-view: {path}: No such file or directory\n")
    path = write("bad.json", "{")
    code, out, err = command(path)
    assert (code, out, err.count("\n")) == (2, "", 1) and f"{path} is not a tree" in err
    assert not path.with_suffix(".html").exists()


def test_place_that_cannot_be_written_is_one_line(command, write, tmp_path):
    output = tmp_path / "none" / "page.html"
    code, out, err = command(write("tree.json", nasty_tree()), "-o", output)
    assert (code, out) == (2, "")
    assert err == f"treeshare-view: {output}: No such file or directory\n"


def test_commands_of_the_page_run(treeshare, command, tmp_path):
    page = (ROOT / "docs/viewer.md").read_text()
    commands = re.findall(r"^treeshare-view (.+)", page, re.MULTILINE)
    assert len(commands) >= 4
    treeshare("-m", "engine=mock", "search=cot,tot_bfs", "task.limit=1")
    (run,) = tmp_path.glob("outputs/game24/tot_bfs/*/*")
    shutil.copy(next((run / "trees").iterdir()), tmp_path / "TREE.json")
    for text in commands:
        text = re.sub(r"\S+HASH\S+", str(run), text)
        code, out, err = command(*shlex.split(text, comments=True))
        assert (code, err) == (0, ""), text
        assert (tmp_path / out.strip()).stat().st_size
