"""The page of a run's trees: what is embedded, what the command says, and what a browser shows."""

import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from treeshare.experiments import view
from treeshare.experiments.record import Row
from treeshare.experiments.view import TEMPLATE, ViewError, page, read_tree, run_page, tree_page
from treeshare.search.graph import SearchGraph

SEARCH = ["engine=mock", "search=mcts", "search.simulations=8", "task.limit=3", "max_live=1"]
NASTY = [
    "</script><script>document.title = 'broken out'</script>",
    "<!-- <script> -->",
    "\"quotes\" 'and' \\ backslashes \\u003c",
    "<b>bold</b> &amp; https://example.org/",
    "ünïcödé 树 🌳 \u2028 \x00 \ud800",
]


def nasty_tree(**about):
    """root -> one child for each nasty text; the last two merge into a terminal node."""
    graph = SearchGraph("start")
    for text in NASTY:
        graph.add(graph.root, text, text, is_terminal=False).value = 0.5
    graph.add([graph.nodes[5], graph.nodes[4]], "merged", "done", is_terminal=True).value = 1.0
    return json.loads(graph.to_json(problem="p/1", ranked=[6], answers=["42"], **about))


def embedded(html):
    blocks = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', html, re.S)
    return {name: json.loads(text) for name, text in blocks}


@pytest.fixture
def write(tmp_path):
    def to(name, data):
        path = tmp_path / name
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    return to


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


def big_tree(size=10_000):
    graph = SearchGraph("root")
    for i in range(1, size):
        graph.add(graph.nodes[(i - 1) // 3], f"step {i}", i, is_terminal=False).value = i / size
    return graph


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


def test_run_directory_gets_its_page(treeshare, run_directory):
    treeshare(*SEARCH)
    done = subprocess.run(
        [sys.executable, "-m", "treeshare.experiments.view", run_directory()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{run_directory() / 'view.html'}\n"
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
    assert "trees holds no tree; was the run started with save_trees=false?" in err


def test_corrupt_row_is_one_line(treeshare, run_directory, command):
    treeshare(*SEARCH)
    with (run_directory() / "results.jsonl").open("a") as file:
        file.write("{}\n")
    code, out, err = command(run_directory())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "results.jsonl:4 is not a Row" in err


def test_place_that_cannot_be_written_is_one_line(command, write, tmp_path):
    output = tmp_path / "none" / "page.html"
    code, out, err = command(write("tree.json", nasty_tree()), "-o", output)
    assert (code, out) == (2, "")
    assert err == f"treeshare-view: {output}: No such file or directory\n"


# In a browser.

CHROMIUM = shutil.which("chromium")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=1400,900", "--virtual-time-budget=3000", "--enable-logging=stderr"),
]


class Dom(HTMLParser):
    """Attributes and text of a dumped page's elements, `class` split into words."""

    def __init__(self, html):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", **dict(attrs)}
        element["class"] = (element.get("class") or "").split()
        self.elements.append(element)
        if tag not in ("meta", "input", "link", "br"):
            self._open.append(element)

    def handle_endtag(self, tag):
        while self._open and self._open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for element in self._open:
            element["text"] += data

    def by_id(self, name):
        (element,) = (e for e in self.elements if e.get("id") == name)
        return element

    @property
    def rows(self):
        return [e for e in self.elements if e.get("role") == "treeitem"]

    @property
    def ids(self):
        return [int(row["data-id"]) for row in self.rows]

    @property
    def selected(self):
        (row,) = (row for row in self.rows if row["aria-selected"] == "true")
        return int(row["data-id"])


@pytest.fixture
def browse(tmp_path):
    def open_page(html, fragment="", script=""):
        """The page as it is after `script`, which is added to its own."""
        path = tmp_path / "page.html"
        path.write_text(html.replace("</body>", f"<script>{script}</script></body>"))
        address = path.as_uri() + fragment
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        done = subprocess.run(
            [CHROMIUM, *FLAGS, profile, "--dump-dom", address],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        for complaint in ("Uncaught", "Refused to", "violates"):
            assert complaint not in done.stderr
        return Dom(done.stdout)

    return open_page


@pytest.fixture
def nasty_page(write):
    tree = nasty_tree()
    tree["nodes"][5]["text"] = tree["nodes"][5]["state"] = NASTY[4][
        :-1
    ]  # --dump-dom cannot write it
    tree["nodes"][6] |= {"prompt_tokens": 350, "cached_tokens": 312, "round": [3, 4]}
    return tree_page(write("tree.json", tree))


def press(*keys):
    return "".join(
        f"$('tree').dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}));" for key in keys
    )


@in_browser
def test_page_opens_at_the_first_answer(browse, nasty_page):
    dom = browse(nasty_page)
    assert dom.selected == 6
    on_path = [int(row["data-id"]) for row in dom.rows if "on-path" in row["class"]]
    assert on_path == [0, 5, 6]
    assert [
        i for i, row in zip(dom.ids, dom.rows, strict=True) if "answer-path" in row["class"]
    ] == [*(0, 5, 6)]
    details = dom.by_id("details")["text"]
    assert details.startswith("Node 6terminal1") and "value1" in details
    assert dom.by_id("kv")["text"] == "312 of 350 tokens shared (89.1%)"
    assert "round[3,4]" in details
    assert dom.by_id("path")["text"].startswith("#0root")


@in_browser
def test_nasty_texts_are_shown_as_they_are(browse, nasty_page):
    dom = browse(nasty_page, "#node=1")
    assert dom.by_id("text")["text"] == NASTY[0]
    (title,) = (e for e in dom.elements if e["tag"] == "title")
    assert title["text"] == "tree.json – treeshare"
    texts = [e["text"] for e in dom.elements if e["class"] == ["text"]]
    assert texts[:5] == ["root", *NASTY[:4]]
    assert texts[5].startswith("ünïcödé 树 🌳")


@in_browser
def test_merged_node_is_a_link_below_its_other_parent(browse, nasty_page):
    dom = browse(nasty_page, "#expand=all&node=6")
    assert dom.ids == [0, 1, 2, 3, 4, 6, 5, 6]
    assert [row["data-link"] for row in dom.rows] == ["false"] * 5 + ["true"] + ["false"] * 2
    assert dom.by_id("parents")["text"].startswith("#5")


@in_browser
def test_expand_and_collapse(browse, write):
    html = tree_page(write("big.json", big_tree(40).to_json()))
    assert browse(html).ids == [0, 1, 2, 3]
    assert browse(html, "#expand=all").ids[:6] == [0, 1, 4, 13, 14, 15]
    dom = browse(html, "#expand=2")
    assert dom.ids == [0, 1, 4, 5, 6, 2, 7, 8, 9, 3, 10, 11, 12]
    assert dom.rows[1]["aria-expanded"] == "true" and dom.rows[2]["aria-expanded"] == "false"
    assert dom.rows[2]["aria-level"] == "3"


@in_browser
def test_keys(browse, write):
    html = tree_page(write("big.json", big_tree(40).to_json()))
    dom = browse(html, script=press("ArrowDown", "ArrowRight", "ArrowRight"))
    assert (dom.selected, dom.ids) == (4, [0, 1, 4, 5, 6, 2, 3])
    dom = browse(html, script=press("End", "Enter", "ArrowUp", "ArrowRight", "Home"))
    assert (dom.selected, dom.ids) == (0, [0, 1, 2, 7, 8, 9, 3, 10, 11, 12])
    dom = browse(html, "#node=13", press("ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft"))
    assert (dom.selected, dom.ids) == (1, [0, 1, 2, 3])


@in_browser
def test_clicks(browse, write):
    html = tree_page(write("big.json", big_tree(40).to_json()))
    dom = browse(html, script="document.querySelector('#row-2 .toggle').click()")
    assert (dom.selected, dom.ids) == (0, [0, 1, 2, 7, 8, 9, 3])
    dom = browse(html, "#node=7", "document.querySelector('#row-2 .toggle').click()")
    assert (dom.selected, dom.ids) == (2, [0, 1, 2, 3])
    dom = browse(html, script="document.querySelector('#row-3 .text').click()")
    assert dom.selected == 3
    assert dom.by_id("details")["text"].startswith("Node 3")


@in_browser
def test_search(browse, write):
    html = tree_page(write("big.json", big_tree(40).to_json()))
    dom = browse(html, "#search=STEP 3")  # 3, 30, 31, ..., 39
    assert dom.by_id("found")["text"] == "1 of 11" and dom.selected == 3
    marked = [e["text"] for e in dom.elements if e["tag"] == "mark"]
    assert marked == ["step 3"]
    enter = "$('search').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}));"
    dom = browse(html, "#search=step 3", enter)
    assert dom.by_id("found")["text"] == "2 of 11" and dom.selected == 30
    assert dom.ids == [0, 1, 2, 7, 8, 9, 28, 29, 30, 3]
    assert browse(html, "#search=%2312").selected == 12
    assert browse(html, "#search=nowhere").by_id("found")["text"] == "not found"


@in_browser
def test_only_the_rows_in_sight_are_in_the_page(browse, write):
    html = tree_page(write("big.json", big_tree().to_json()))
    dom = browse(html, "#expand=all&node=9999")
    assert dom.selected == 9999
    assert len(dom.rows) < 60
    assert dom.by_id("space")["style"].endswith("height: 260000px;")


@in_browser
def test_run_has_a_list_of_its_puzzles(browse, treeshare, run_directory, read_rows):
    treeshare(*SEARCH)
    rows = read_rows()
    dom = browse(run_page(run_directory()), "#tree=1")
    buttons = [e for e in dom.elements if "data-tree" in e]
    assert [e["title"] for e in buttons] == [row["problem"] for row in rows]
    assert ["aria-current" in e for e in buttons] == [False, True, False]
    assert dom.by_id("summary")["text"].startswith(rows[1]["problem"] + "✗ wrong")
    assert "puzzles3" in dom.by_id("totals")["text"]
    other = browse(run_page(run_directory()), script="$('puzzles').lastChild.firstChild.click()")
    assert other.by_id("summary")["text"].startswith(rows[2]["problem"])


@in_browser
@pytest.mark.parametrize(
    ("right", "badges"),
    [
        ([True, False, False], ["1 ✓", "2 ✗", "3 ✗"]),
        ([False, True, False], ["1 ✗", "2", "3"]),  # the row does not say which
        ([True, True, True], ["1 ✓", "2 ✓", "3 ✓"]),
    ],
    ids=["first", "another", "all"],
)
def test_answers_are_marked_as_far_as_the_row_tells(right, badges, browse):
    graph = SearchGraph(0)
    for answer in "abc":
        graph.add(graph.root, answer, answer, is_terminal=True)
    tree = json.loads(graph.to_json(problem="p", ranked=[3, 1, 2], answers=["c", "a", "b"]))
    row = dict.fromkeys(Row.__dataclass_fields__, 0) | {
        "correct_top1": right[0],
        "correct_any": any(right),
        "mean_accuracy": sum(right) / 3,
        "answers": ["c", "a", "b"],
    }
    run = {"title": "t", "totals": None, "trees": [{"problem": "p", "row": row}]}
    dom = browse(page(run, [tree]))
    marks = {e["data-id"]: e["text"] for e in dom.rows}
    assert [marks[i][1:].removesuffix("abc"[int(i) - 1]) for i in "312"] == badges
