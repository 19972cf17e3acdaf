"""Trees to view: one of nasty texts, and a large one."""

import json

from treeshare.search.graph import SearchGraph

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


def big_tree(size=10_000):
    graph = SearchGraph("root")
    for i in range(1, size):
        graph.add(graph.nodes[(i - 1) // 3], f"step {i}", i, is_terminal=False).value = i / size
    return graph
