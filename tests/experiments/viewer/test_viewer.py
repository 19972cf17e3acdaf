"""The page of a run's trees, as a real browser shows it."""

import json
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from view_trees import NASTY, big_tree, nasty_tree

from treeshare.experiments.results.rows import FailedSearch, Row
from treeshare.experiments.results.summary import Totals
from treeshare.experiments.viewer.page import page
from treeshare.experiments.viewer.shown_runs import Entry, ShownRun, json_text, read_runs
from treeshare.experiments.viewer.view import tree_page
from treeshare.search.graph import SearchGraph

SEARCH = ["engine=mock", "search=mcts", "search.num_simulations=8", "task.limit=3", "max_live=1"]

CHROMIUM = shutil.which("chromium")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=1400,900", "--virtual-time-budget=3000", "--enable-logging=stderr"),
]


class Dom(HTMLParser):
    """The attributes and the text of a dumped page's elements; `class` is split into words."""

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
        """The page after `script`, which is added to the page's own script."""
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


def row(problem, *, right=(False,), nodes=7, marks=False):
    """A row whose answers are right or not; with `marks` it says so for each of them."""
    whole = ("num_answers", "requests", "rounds", "prompt_tokens", "completion_tokens", "seed")
    whole += ("unique_kv_tokens", "logical_kv_tokens", "parse_failures", "seconds")
    return Row(
        problem=problem,
        correct_top1=right[0],
        correct_any=any(right),
        mean_accuracy=sum(right) / len(right),
        answers=[str(i) for i in range(len(right))],
        nodes=nodes,
        budget_hit=None,
        oracle=False,
        correct=list(right) if marks else [],
        **dict.fromkeys(whole, 0),
    )


def puzzles(dom):
    """The puzzles in the list, each with its sign."""
    return [e["text"] for e in dom.elements if e["tag"] == "button" and "data-tree" in e]


@in_browser
def test_run_has_a_list_of_its_puzzles(browse, treeshare, run_directory, read_rows):
    treeshare(*SEARCH)
    rows = read_rows()
    html = page(read_runs([run_directory()]))
    dom = browse(html, "#tree=1")
    buttons = [e for e in dom.elements if "data-tree" in e]
    assert [e["title"] for e in buttons] == [row["problem"] for row in rows]
    assert ["aria-current" in e for e in buttons] == [False, True, False]
    assert dom.by_id("summary")["text"].startswith(rows[1]["problem"] + "✗ wrong")
    assert "puzzles3" in dom.by_id("totals")["text"]
    other = browse(html, script="$('puzzles').lastChild.firstChild.click()")
    assert other.by_id("summary")["text"].startswith(rows[2]["problem"])


@pytest.fixture
def two_runs():
    """Two runs of the same puzzles; in the second, one fails and one has no row yet."""
    tree = json_text(json.loads(big_tree(4).to_json(problem="p/1")))
    failure = FailedSearch("p/1", "ValueError", NASTY[0], f"Traceback\n{NASTY[1]}", "my.py:3")
    first = [
        Entry("p/1", row("p/1", right=[True], nodes=30), tree=tree),
        Entry("p/2", row("p/2", right=[False, True], nodes=200), tree=tree),
        Entry("p/10", row("p/10", nodes=4)),
    ]
    second = [
        Entry("p/1", failure=failure),
        Entry("p/2", row("p/2", nodes=90), tree=tree),
        Entry("p/3", tree=tree),
    ]
    return page([ShownRun("one", "A", first, TOTALS), ShownRun("two", "B", second, TOTALS)])


TOTALS = Totals.of([row("p/1")], [])


@in_browser
def test_runs_and_their_puzzles_are_listed(browse, two_runs):
    dom = browse(two_runs)
    assert puzzles(dom) == ["✓p/1A30", "◐p/2A200", "✗p/10A4", "!p/1B", "✗p/2B90", "–p/3B"]
    runs = [e["text"] for e in dom.elements if "data-run" in e]
    assert runs == ["all runs1 failed", "A0.0%", "B1 failed0.0%"]
    assert dom.by_id("totals")["text"] == "" and dom.by_id("count")["text"] == "6 puzzles"
    dom = browse(two_runs, script="$('runs').lastChild.firstChild.click()")
    assert puzzles(dom) == ["!p/1", "✗p/290", "–p/3"]
    assert "failed1" in dom.by_id("totals")["text"]


def choose(name, value):
    event = "input" if name == "filter" else "change"
    return f"$('{name}').value = '{value}'; $('{name}').dispatchEvent(new Event('{event}'));"


CHOICES = [  # what is chosen, and the puzzles that are then in the list
    (choose("order", "nodes"), ["p/2A", "p/2B", "p/1A", "p/10A", "p/1B", "p/3B"]),
    (choose("order", "fewest"), ["p/10A", "p/1A", "p/2B", "p/2A", "p/1B", "p/3B"]),
    (choose("order", "name"), ["p/1A", "p/1B", "p/2A", "p/2B", "p/3B", "p/10A"]),
    (choose("filter", "P/1"), ["p/1A", "p/1B", "p/10A"]),
    (choose("state", "failed"), ["p/1B"]),
    (choose("state", "right"), ["p/1A"]),
    (choose("state", "wrong") + choose("filter", "/2"), ["p/2B"]),
    (choose("filter", "nowhere"), []),
]


@in_browser
def test_puzzles_are_searched_filtered_and_sorted(browse, two_runs):
    names = "[...$('puzzles').querySelectorAll('.name')].map(e => e.textContent)"
    note = f"lists.push([{names}, $('count').textContent]);"
    steps = "".join(f"{script}{note}" for script, _ in CHOICES)
    dom = browse(
        two_runs, script=f"const lists = [];{steps}$('title').textContent = JSON.stringify(lists);"
    )
    lists = json.loads(dom.by_id("title")["text"])
    assert [names for names, _ in lists] == [shown for _, shown in CHOICES]
    assert [count for _, count in lists] == [
        f"{len(shown)} of 6 puzzles" if len(shown) < 6 else "6 puzzles" for _, shown in CHOICES
    ]


@in_browser
def test_failed_puzzle_shows_its_error(browse, two_runs):
    dom = browse(two_runs, "#tree=3")
    assert dom.by_id("summary")["text"].startswith("p/1! failedtwo · its tree was not saved")
    assert dom.by_id("error")["text"] == f"my.py:3: ValueError: {NASTY[0]}"
    assert dom.by_id("traceback")["text"] == f"Traceback\n{NASTY[1]}"
    assert dom.by_id("elsewhere")["text"] == "in other runs✓ A"
    (title,) = (e for e in dom.elements if e["tag"] == "title")
    assert title["text"] == "2 runs – treeshare"
    dom = browse(two_runs, "#tree=3", "$('elsewhere').lastChild.click()")
    assert dom.by_id("summary")["text"].startswith("p/1✓ top-1 right") and dom.rows


@in_browser
@pytest.mark.parametrize(
    ("right", "marks", "badges"),
    [
        ([True, False, False], False, ["1 ✓", "2 ✗", "3 ✗"]),
        ([False, True, False], False, ["1 ✗", "2", "3"]),  # the row does not say which
        ([False, True, False], True, ["1 ✗", "2 ✓", "3 ✗"]),
        ([True, True, True], False, ["1 ✓", "2 ✓", "3 ✓"]),
    ],
    ids=["first", "another", "marked", "all"],
)
def test_answers_are_marked_as_far_as_the_row_tells(right, marks, badges, browse):
    graph = SearchGraph(0)
    for answer in "abc":
        graph.add(graph.root, answer, answer, is_terminal=True)
    tree = graph.to_json(problem="p", ranked=[3, 1, 2], answers=["c", "a", "b"])
    entry = Entry("p", row("p", right=right, marks=marks), tree=json_text(json.loads(tree)))
    dom = browse(page([ShownRun("t", "t", [entry])]))
    shown = {e["data-id"]: e["text"] for e in dom.rows}
    assert [shown[i][1:].removesuffix("abc"[int(i) - 1]) for i in "312"] == badges
