import json
import math
import re

import networkx as nx
import numpy as np
import pytest
import torch

from treeshare.search.budget import OutOfBudget
from treeshare.search.graph import Node, SearchGraph, graphml


@pytest.fixture
def diamond():
    """root -> a, b; a and b merge into c; c -> d."""
    graph = SearchGraph(("start",))
    a = graph.add(graph.root, "a", ("a",), is_terminal=False)
    b = graph.add(graph.root, "b", ("b",), is_terminal=False)
    c = graph.add([b, a], "c", ("c",), is_terminal=False)
    graph.add(c, "d", ("d",), is_terminal=True)
    return graph


def test_ids_follow_creation(diamond):
    assert [node.id for node in diamond] == [0, 1, 2, 3, 4]
    assert len(diamond) == 5
    assert diamond.nodes[0] is diamond.root


def test_merge_hangs_below_all_its_parents(diamond):
    _, a, b, c, d = diamond
    assert c.parents == [b, a]
    assert c in a.children
    assert c in b.children
    assert c.parent is b
    assert [node.text for node in d.path] == ["", "b", "c", "d"]


def test_first_parent_gives_depth_and_position(diamond):
    assert [node.depth for node in diamond] == [0, 1, 1, 2, 3]
    assert [node.positions for node in diamond] == [(), (0,), (1,), (1, 0), (1, 0, 0)]


def test_positions_are_unique_after_a_merge(diamond):
    a = diamond.nodes[1]
    diamond.add(a, "e", ("e",), is_terminal=False)
    positions = [node.positions for node in diamond]
    assert len(set(positions)) == len(positions)


def test_only_the_root_has_no_parent(diamond):
    assert diamond.root.parent is None
    with pytest.raises(ValueError, match="at least one parent"):
        diamond.add([], "x", ("x",), is_terminal=False)


def test_nodes_of_equal_content_differ():
    graph = SearchGraph(0)
    first, second = (graph.add(graph.root, "x", 1, is_terminal=False) for _ in range(2))
    assert first != second
    assert len({first, second}) == 2


def test_networkx_copy(diamond):
    d = diamond.nodes[4]
    d.value, d.prior, d.logprob, d.visits, d.value_sum = 0.5, 0.25, -1.5, 2, 1.0
    graph = diamond.to_networkx()
    assert sorted(graph.edges) == [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]
    assert nx.is_directed_acyclic_graph(graph)
    assert graph.nodes[4] == {
        "text": "d",
        "state": "('d',)",
        "depth": 3,
        "is_terminal": True,
        "value": 0.5,
        "prior": 0.25,
        "logprob": -1.5,
        "visits": 2,
        "value_sum": 1.0,
    }


def test_json_round_trip(diamond):
    read = nx.node_link_graph(json.loads(diamond.to_json()), edges="edges")
    copy = diamond.to_networkx()
    assert read.is_directed()
    assert dict(read.nodes(data=True)) == dict(copy.nodes(data=True))
    assert sorted(read.edges) == sorted(copy.edges)


ABOUT = {"problem": "p/1", "ranked": [4, 0], "answers": ["d", None]}


def test_json_carries_what_is_said_about_the_graph(diamond):
    read = nx.node_link_graph(json.loads(diamond.to_json(**ABOUT)), edges="edges")
    assert read.graph == diamond.to_networkx(**ABOUT).graph == ABOUT


def test_edges_carry_the_order_of_a_nodes_parents(diamond):
    read = nx.node_link_graph(json.loads(diamond.to_json()), edges="edges")
    assert {parent: read.edges[parent, 3]["order"] for parent in (1, 2)} == {2: 0, 1: 1}


def test_graphml_round_trip(diamond):
    first, last = diamond.nodes[1], diamond.nodes[4]
    first.text = "<b> & \"quoted\" 'ünï' 树\n  indented "
    first.value, first.logprob = -3.0, -0.1
    last.value, last.prior, last.visits, last.value_sum = 1, 0.25, 2, 1.5
    read = nx.parse_graphml(graphml(diamond.to_networkx()), node_type=int)
    copy = diamond.to_networkx()
    assert read.is_directed()
    assert dict(read.nodes(data=True)) == {
        node: {key: value for key, value in about.items() if value is not None}
        for node, about in copy.nodes(data=True)
    }
    assert sorted(read.edges(data="order")) == sorted(copy.edges(data="order"))


def test_graphml_keeps_lists_about_the_graph_as_json(diamond):
    read = nx.parse_graphml(graphml(diamond.to_networkx(**ABOUT)), node_type=int)
    assert read.graph["problem"] == "p/1"
    assert json.loads(read.graph["ranked"]) == [4, 0]
    assert json.loads(read.graph["answers"]) == ["d", None]


def test_graphml_of_a_tree_read_from_json(diamond):
    read = nx.node_link_graph(json.loads(diamond.to_json(**ABOUT)), edges="edges")
    assert graphml(read) == graphml(diamond.to_networkx(**ABOUT))


def test_graphml_replaces_what_xml_cannot_hold():
    graph = SearchGraph("")
    graph.add(graph.root, "a\x00b\x1bc\ud800d\ufffee\rf\U0001f333", "", is_terminal=False)
    text = graphml(graph.to_networkx())
    text.encode()
    read = nx.parse_graphml(text, node_type=int)
    assert read.nodes[1]["text"] == "a\ufffdb\ufffdc\ufffdd\ufffde\nf\U0001f333"
    assert read.nodes[0]["text"] == ""


def refuse(constant):
    raise AssertionError(f"JSON has no {constant}")


NOT_FINITE = [float("nan"), float("inf"), float("-inf"), np.float32("nan"), torch.tensor(math.inf)]


@pytest.mark.parametrize("value", NOT_FINITE, ids=repr)
@pytest.mark.parametrize("field", ["value", "prior", "logprob", "value_sum"])
def test_numbers_that_are_not_finite_never_reach_a_file(field, value, diamond):
    setattr(diamond.nodes[1], field, value)
    about = {"scores": [value, {"deep": value}], "first": value}
    read = json.loads(diamond.to_json(**about), parse_constant=refuse)
    assert read["nodes"][1][field] is None
    assert read["graph"] == {"scores": [None, {"deep": None}], "first": None}
    text = graphml(diamond.to_networkx(**about))
    assert not re.search(r">(nan|-?inf)", text, re.IGNORECASE)
    parsed = nx.parse_graphml(text, node_type=int)
    assert field not in parsed.nodes[1]
    assert json.loads(parsed.graph["scores"], parse_constant=refuse) == [None, {"deep": None}]


def test_an_old_tree_with_nan_becomes_graphml_without():
    old = nx.DiGraph()
    old.add_node(0, value=math.nan, text="a")
    assert nx.parse_graphml(graphml(old), node_type=int).nodes[0] == {"text": "a"}


@pytest.mark.parametrize(
    ("number", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (torch.tensor(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
    ],
    ids=repr,
)
def test_numbers_of_numpy_and_torch_become_pythons(number, plain, diamond):
    diamond.nodes[1].value = number
    read = json.loads(diamond.to_json(about=number))
    assert read["nodes"][1]["value"] == read["graph"]["about"] == plain


def test_what_json_has_no_word_for_is_refused(diamond):
    with pytest.raises(TypeError, match="not JSON serializable"):
        diamond.to_json(about=object())


def test_a_full_graph_takes_no_further_node():
    graph = SearchGraph(0, max_nodes=2)
    assert not graph.is_full
    child = graph.add(graph.root, "a", 1, is_terminal=False)
    assert graph.is_full
    with pytest.raises(OutOfBudget, match=r"budget\.nodes is spent"):
        graph.add(child, "b", 2, is_terminal=False)
    assert len(graph) == 2
    assert child.children == []


def test_a_graph_holds_its_own_nodes_alone(diamond):
    other = SearchGraph(("root",))
    assert all(node in diamond for node in diamond)
    assert diamond.root not in other
    assert Node(0, "", ("root",), False) not in diamond
    assert Node(99, "", (), False) not in diamond
    assert 0 not in diamond
    with pytest.raises(ValueError, match="no node of this graph"):
        diamond.add([diamond.root, other.root], "x", (), is_terminal=False)


def test_the_list_of_nodes_is_a_copy(diamond):
    assert diamond.nodes == tuple(diamond)
    with pytest.raises(AttributeError):
        diamond.nodes = ()
