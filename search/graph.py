"""The graph of nodes that every policy grows, and its export to networkx, JSON and GraphML.

Nodes are plain objects, because searches read and write them in their inner loops. The graph is
usually a tree, but a node may have several parents (the merge of Graph of Thoughts, arXiv
2308.09687). Only the task reads a node's `state`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

from .budget import OutOfBudget


@dataclass(slots=True, eq=False)
class Node:
    """One step of a search: its text, the task's state after it, and what the search found out."""

    id: int  # order of creation; the root is 0
    text: str  # the step that led here; empty at the root
    state: Any  # the task's state
    is_terminal: bool
    parents: list[Node] = field(default_factory=list, repr=False)
    children: list[Node] = field(default_factory=list, repr=False)
    depth: int = 0  # steps from the root, through the first parent
    position: int = 0  # index among the first parent's children
    value: float | None = None  # the evaluator's; None before it is asked
    prior: float | None = None  # probability among the siblings proposed together
    logprob: float | None = None  # of the step's text under the model, nats
    visits: int = 0  # simulations through the node, those in flight included
    value_sum: float = 0.0  # sum of the values backed up through the node

    @property
    def parent(self) -> Node | None:
        """The first parent; None at the root."""
        return self.parents[0] if self.parents else None

    @property
    def path(self) -> list[Node]:
        """The nodes from the root to this one, through first parents."""
        nodes = [self]
        while (parent := nodes[-1].parent) is not None:
            nodes.append(parent)
        return nodes[::-1]

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions along `path`, from the root down. They are part of every request's seed."""
        return tuple(node.position for node in self.path[1:])


class SearchGraph:
    """A graph of nodes in order of creation; its edges run from parent to child.

    Args:
        state: the root's state.
        is_terminal: whether the root is terminal.
        max_nodes: most nodes, the root included; None is no limit.
    """

    def __init__(
        self, state: Any, *, is_terminal: bool = False, max_nodes: int | None = None
    ) -> None:
        self._nodes = [Node(0, "", state, is_terminal)]
        self._max_nodes = max_nodes

    @property
    def root(self) -> Node:
        """The first node."""
        return self._nodes[0]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """A copy of the list of nodes; only `add` makes the graph larger."""
        return tuple(self._nodes)

    @property
    def is_full(self) -> bool:
        """Whether the graph has as many nodes as it may have."""
        return self._max_nodes is not None and len(self._nodes) >= self._max_nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def __contains__(self, node: object) -> bool:
        return (
            isinstance(node, Node)
            and 0 <= node.id < len(self._nodes)
            and self._nodes[node.id] is node
        )

    def add(
        self, parents: Node | Sequence[Node], text: str, state: Any, *, is_terminal: bool
    ) -> Node:
        """Append a node below one or several parents, and return it.

        Args:
            parents: the node or nodes above; the first one determines depth and position.
            text: the step that leads to the new node.
            state: the task's state after that step.
            is_terminal: whether the search cannot go on from there.

        Raises:
            ValueError: there is no parent, or one belongs to another graph.
            OutOfBudget: the graph is full.
        """
        above = [parents] if isinstance(parents, Node) else list(parents)
        if not above:
            raise ValueError("a node needs at least one parent; only the root has none")
        for parent in above:
            if parent not in self:
                raise ValueError(f"the parent {parent!r:.80} is no node of this graph")
        if self.is_full:
            raise OutOfBudget("nodes")
        node = Node(
            len(self._nodes),
            text,
            state,
            is_terminal,
            parents=above,
            depth=above[0].depth + 1,
            position=len(above[0].children),
        )
        self._nodes.append(node)
        for parent in above:
            parent.children.append(node)
        return node

    def to_networkx(self, **about: Any) -> nx.DiGraph:
        """Return a networkx graph of node ids, with the nodes' fields as attributes.

        States become text, numbers of NumPy and torch become Python's, and numbers that are not
        finite become None. The attribute `order` of an edge is 0 if it comes from the node's first
        parent, 1 from the second, and so on.

        Args:
            about: attributes of the graph itself.
        """
        graph = nx.DiGraph(**_for_json(about))
        for node in self._nodes:
            fields = {
                "text": node.text,
                "state": str(node.state),
                "depth": node.depth,
                "is_terminal": node.is_terminal,
                "value": node.value,
                "prior": node.prior,
                "logprob": node.logprob,
                "visits": node.visits,
                "value_sum": node.value_sum,
            }
            graph.add_node(node.id, **_for_json(fields))
            for order, parent in enumerate(node.parents):
                graph.add_edge(parent.id, node.id, order=order)
        return graph

    def to_json(self, **about: Any) -> str:
        """Return node-link JSON.

        `networkx.node_link_graph(json.loads(text), edges="edges")` reads it.

        Args:
            about: attributes of the graph itself.

        Raises:
            TypeError: `about` or a node holds something that JSON cannot represent.
        """
        data = nx.node_link_data(self.to_networkx(**about), edges="edges")
        return json.dumps(data, allow_nan=False)


def graphml(graph: nx.DiGraph) -> str:
    """Return a graph of `SearchGraph.to_networkx`, or one read from its JSON, as GraphML.

    `networkx.parse_graphml(text, node_type=int)` reads it. GraphML has no None, so attributes that
    are None, NaN or infinite are left out. It has no lists, so these become JSON text. A character
    that XML cannot hold becomes U+FFFD, and a carriage return reads back as a line feed.
    """
    copy = nx.DiGraph(**_for_xml(graph.graph))
    copy.add_nodes_from((node, _for_xml(about)) for node, about in graph.nodes(data=True))
    copy.add_edges_from((u, v, _for_xml(about)) for u, v, about in graph.edges(data=True))
    return "\n".join(nx.generate_graphml(copy))


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _for_json(value: Any) -> Any:
    """Return a copy with Python's numbers for NumPy's and torch's, and None for NaN and ±∞."""
    if isinstance(value, Mapping):
        return {key: _for_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(one) for one in value]
    if hasattr(value, "tolist"):
        value = value.tolist()
        return _for_json(value) if isinstance(value, list) else _finite(value)
    return _finite(value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _for_xml(attributes: Mapping[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> str | int | float:
        if not isinstance(value, str | int | float):
            value = json.dumps(value)
        return _NOT_XML.sub("\ufffd", value) if isinstance(value, str) else value

    cleaned = _for_json(attributes)
    return {key: one(value) for key, value in cleaned.items() if value is not None}
