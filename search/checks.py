"""Checks of what a user's expander, evaluator, policy or task returns to a search.

Each check raises an error of one line that names the class, the node and the mistake. Numbers of
NumPy and torch become Python floats here, so that a graph holds only what JSON can represent.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Awaitable, Iterable, Sequence
from reprlib import Repr
from typing import Any, cast

from treeshare.tasks.task import Step

from .graph import Node, SearchGraph

LARGEST = 1e100  # a value's bound: its square, and the sum of a million squares, are finite

_short = Repr()
_short.maxstring = _short.maxother = 60


def short(value: object) -> str:
    """Return a short description for an error message: a node's id, or a type and a `repr`."""
    if isinstance(value, Node):
        return f"node {value.id!r} ({_short.repr(value.text)})"
    if value is None:
        return "None"
    return f"the {type(value).__name__} {' '.join(_short.repr(value).split())}"


def number(value: object, what: str, of: object | None = None, *, least: float = -LARGEST) -> float:
    """Return a value as a Python float.

    Args:
        value: a real number of Python, or a NumPy or torch number without dimensions.
        what: names the value in the error message, such as `Mine.evaluate: the value`.
        of: the node that has the value, for the error message.
        least: the lower bound.

    Raises:
        TypeError: it is not a number.
        ValueError: it is NaN, or outside [least, 1e100].
    """
    if type(value) is not float:
        value = _python_float(value, what, of)
    if not least <= value <= LARGEST:
        raise ValueError(
            f"{_named(what, of)} is {value!r}; it must be a number from {least:g} to {LARGEST:g}"
        )
    return value


def _named(what: str, of: object | None) -> str:
    return what if of is None else f"{what} of {short(of)}"


def _python_float(value: object, what: str, of: object | None) -> float:
    python: Any = value.tolist() if hasattr(value, "tolist") else value  # from NumPy or torch
    if hasattr(type(python), "__float__") or hasattr(type(python), "__index__"):
        try:
            return float(python)
        except OverflowError:
            return math.inf  # an int that is too large for a float
    raise TypeError(f"{_named(what, of)} is {short(value)}, not a number")


def numbers(values: object, nodes: Sequence[Node], what: str) -> list[float]:
    """Return one value for each node, as Python floats.

    Args:
        values: a list, a tuple, or a NumPy array or torch tensor of shape [len(nodes)].
        nodes: the nodes that the values belong to, in order.
        what: names the method in the error message, such as `Mine.evaluate`.

    Raises:
        TypeError: `values` is not a list, or holds something that is not a number.
        ValueError: there are more or fewer values than nodes, or one is NaN or infinite.
    """
    if not isinstance(values, list | tuple) and not getattr(values, "shape", ()):
        raise TypeError(
            f"{what} returned {short(values)}, not a list of numbers, one for each node"
        )
    listed = list(cast(Iterable[object], values))
    if len(listed) != len(nodes):
        raise ValueError(f"{what} returned {len(listed)} values for {len(nodes)} nodes")
    name = f"{what}: the value"
    return [number(value, name, node) for value, node in zip(listed, nodes, strict=True)]


def whole(value: object, what: str) -> int:
    """Return a count, at least 1, as a Python int.

    Args:
        value: a whole number of Python, NumPy or torch.
        what: names it in the error message.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it is below 1.
    """
    count = _python_int(value, what)
    if count < 1:
        raise ValueError(f"{what} is {count}; it must be at least 1")
    return count


def index(value: object, length: int, what: str) -> int:
    """Return an index, from 0 to `length` - 1, as a Python int.

    Args:
        value: a whole number of Python, NumPy or torch.
        length: that of the list it points into.
        what: names it in the error message.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it is out of that range.
    """
    place = _python_int(value, what)
    if not 0 <= place < length:
        raise ValueError(f"{what} is {place}; it must be from 0 to {length - 1}")
    return place


def _python_int(value: object, what: str) -> int:
    try:
        return operator.index(cast(Any, value))
    except TypeError:  # raised for an array too, unless it holds one whole number
        raise TypeError(f"{what} is {short(value)}, not a whole number") from None


def node_of(graph: SearchGraph, node: object, what: str) -> Node:
    """Return `node` if it is a node of this search.

    Args:
        graph: the graph of this search.
        node: what to check.
        what: names it in the error message.

    Raises:
        TypeError: it is not a node.
        ValueError: it is a node of another search.
    """
    if not isinstance(node, Node):
        raise TypeError(f"{what} is {short(node)}, not a node")
    if node not in graph:
        raise ValueError(f"{what} is {short(node)}, which is no node of this search's graph")
    return node


def nodes_of(graph: SearchGraph, nodes: object, what: str) -> list[Node]:
    """Return a list of nodes of this search.

    Args:
        graph: the graph of this search.
        nodes: a list or a tuple.
        what: names the list in the error message, such as `ctx.best`.

    Raises:
        TypeError: it is neither a list nor a tuple, or holds something that is not a node.
        ValueError: it holds a node of another search.
    """
    if isinstance(nodes, Node):
        raise TypeError(f"{what} is {short(nodes)}, not a list of nodes: write [node]")
    if not isinstance(nodes, list | tuple):
        raise TypeError(f"{what} is {short(nodes)}, not a list of nodes")
    for place, node in enumerate(nodes):
        if not (isinstance(node, Node) and node in graph):
            node_of(graph, node, f"item {place} of {what}")
    return list(nodes)


def children_of(graph: SearchGraph, parent: Node, children: object, what: str) -> list[Node]:
    """Return the children that an expander returned, with `prior` and `logprob` as Python floats.

    Args:
        graph: the graph of this search.
        parent: the node that was expanded.
        children: what the expander returned.
        what: names the method in the error message, such as `Mine.expand`.

    Raises:
        TypeError: `children` is not a list of nodes, or a prior or a log-probability is not a
            number.
        ValueError: a node belongs to another search, is not a child of `parent`, or is there twice;
            or a prior is negative, NaN or infinite, or a log-probability is NaN.
    """
    checked = nodes_of(graph, children, f"what {what} returned")
    for child in checked:
        if all(above is not parent for above in child.parents):
            kind = "the node itself" if child is parent else "no child of it"
            raise ValueError(f"{what} of {short(parent)} returned {short(child)}, which is {kind}")
        if child.prior is not None:
            child.prior = number(child.prior, f"{what}: the prior", child, least=0.0)
        child.logprob = logprob(child.logprob, f"{what}: the log-probability", child)
    if len(set(checked)) < len(checked):
        twice = next(child for child in checked if checked.count(child) > 1)
        raise ValueError(f"{what} of {short(parent)} returned {short(twice)} twice")
    return checked


def logprob(value: object, what: str, of: object | None = None) -> float | None:
    """Return a log-probability in nats as a Python float.

    Args:
        value: a number; None if it is not known, -∞ if the step is impossible.
        what: names it in the error message.
        of: the node that it belongs to, for the error message.

    Raises:
        TypeError: it is not a number.
        ValueError: it is NaN or +∞.
    """
    if value is None or (type(value) is float and value <= 0):
        return value
    as_float = _python_float(value, what, of)
    return as_float if as_float == -math.inf else number(as_float, what, of)


def steps(found: object, what: str) -> list[Step]:
    """Return the steps that a task read from a reply, or its legal moves.

    Args:
        found: what the task returned.
        what: names the method in the error message, such as `MyTask.parse`.

    Raises:
        TypeError: `found` is not a list of steps, a step's text is not a string, or its state
            cannot be hashed.
    """
    if not isinstance(found, list | tuple):
        raise TypeError(f"{what} returned {short(found)}, not a list of steps")
    for one in found:
        if not isinstance(one, Step):
            raise TypeError(f"{what}: a step is {short(one)}, not a Step")
        if not isinstance(one.text, str):
            raise TypeError(f"{what}: a step's text is {short(one.text)}, not text")
        hashable(one.state, f"{what}: the state of step", one.text)
    return list(found)


def hashable(state: object, what: str, of: object | None = None) -> None:
    """Check that a task's state can be hashed.

    Args:
        state: the state.
        what: names it in the error message.
        of: the text of the step that leads to it, for the error message.

    Raises:
        TypeError: it cannot.
    """
    try:
        hash(state)
    except TypeError:
        name = what if of is None else f"{what} {_short.repr(of)}"
        hint = "; a tuple would do" if isinstance(state, list) else ""
        raise TypeError(f"{name} is {short(state)}, which cannot be hashed{hint}") from None


async def awaited(result: Awaitable[Any] | object, what: str) -> Any:
    """Await the result of a user's `async def` method and return it.

    Args:
        result: what the call of the method returned.
        what: names the method in the error message.

    Raises:
        TypeError: the method is not `async def`.
    """
    if not inspect.isawaitable(result):
        raise TypeError(f"{what} returned {short(result)} at once; it must be an `async def`")
    return await result
