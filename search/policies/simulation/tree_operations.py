"""The operations of Monte-Carlo tree search that its variants share: select, expand, back up.

Several simulations can be in flight. Each counts its visits before it waits for the model and adds
its value afterwards, so the next simulation sees a loss there and goes elsewhere ("virtual loss",
Chaslot et al., "Parallel Monte-Carlo tree search", 2008). With one simulation at a time, this is
the sequential algorithm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from treeshare.search.context import Context, flatten, value_or_least
from treeshare.search.graph import Node


def batches(num_simulations: int, batch_size: int) -> Iterator[range]:
    """Yield the indices of the simulations that run together, batch after batch.

    Args:
        num_simulations: how many there are in all.
        batch_size: how many run together; the last batch may be smaller.
    """
    for begin in range(0, num_simulations, batch_size):
        yield range(begin, min(begin + batch_size, num_simulations))


def select(root: Node, pick: Callable[[Node], Node]) -> list[Node]:
    """Return the path from the root, by the child that `pick` returns, to a node without any."""
    path = [root]
    while path[-1].children:
        path.append(pick(path[-1]))
    return path


def highest(children: Sequence[Node], score: Callable[[Node], float]) -> Node:
    """Return the child of highest score; ties go to the higher prior, then to the earlier child."""
    return max(children, key=lambda child: (score(child), prior_or_uniform(child)))


def prior_or_uniform(child: Node) -> float:
    """Return the child's prior, or one over the number of siblings if its expander gives none."""
    if child.prior is not None:
        return child.prior
    return 1 / len(child.parents[0].children)


def backup(path: Sequence[Node], value: float) -> None:
    """Add the value of a simulation to all nodes of its path. Their visits are counted already."""
    for node in path:
        node.value_sum += value


async def simulate(
    ctx: Context,
    count: int,
    pick: Callable[[Node], Node],
    num_samples: int | None,
    depth: int,
    dead_ends: set[Node],
) -> None:
    """Run simulations together, each of which evaluates one node and backs its value up.

    A simulation selects a leaf, expands it if it was visited before, and goes on to one child.
    Simulations that meet at a leaf share its expansion.

    Args:
        ctx: the search.
        count: how many simulations.
        pick: chooses a child of a node.
        num_samples: samples of each expansion; None takes the expander's.
        depth: steps below the root.
        dead_ends: nodes whose expansion gave no children; new ones are added.
    """
    paths: list[list[Node]] = []
    growing: list[list[Node]] = []  # those whose leaf is to be expanded
    for _ in range(count):
        path = select(ctx.root, pick)
        leaf = path[-1]
        is_known = leaf.visits > 0 or leaf is ctx.root
        is_open = ctx.can_expand(leaf) and leaf.depth < depth
        if is_known and is_open and leaf not in dead_ends:
            growing.append(path)
        for node in path:
            node.visits += 1
        paths.append(path)

    leaves = list(dict.fromkeys(path[-1] for path in growing))
    await ctx.gather(*(ctx.expand(leaf, num_samples) for leaf in leaves))
    dead_ends.update(leaf for leaf in leaves if not leaf.children)
    for path in growing:
        if path[-1].children:
            _extend(path, pick)
    await evaluate_and_backup(ctx, paths, dead_ends)


async def roll_out(
    ctx: Context,
    count: int,
    pick: Callable[[Node], Node],
    expand: Callable[[Node], Awaitable[Sequence[Node]]],
    depth: int,
    dead_ends: set[Node],
) -> list[list[Node]]:
    """Grow paths together, each from the root to a terminal node, a dead end or `depth`.

    Where a path has no child to go on to, its last node is expanded and all the new children are
    evaluated. Paths that meet there share this. Visits are counted on the way; the caller backs the
    values up.

    Args:
        ctx: the search.
        count: how many paths.
        pick: chooses a child of a node.
        expand: adds children to a node.
        depth: steps below the root.
        dead_ends: nodes whose expansion gave no children; new ones are added.

    Returns:
        The paths, each from the root on.
    """
    paths = []
    for _ in range(count):
        path = select(ctx.root, pick)
        for node in path:
            node.visits += 1
        paths.append(path)

    def can_grow(path: Sequence[Node]) -> bool:
        end = path[-1]
        return ctx.can_expand(end) and end.depth < depth and end not in dead_ends

    growing = paths
    while growing := [path for path in growing if can_grow(path)]:
        leaves = [leaf for leaf in dict.fromkeys(p[-1] for p in growing) if not leaf.children]
        children = flatten(await ctx.gather(*(expand(leaf) for leaf in leaves)))
        dead_ends.update(leaf for leaf in leaves if not leaf.children)
        await ctx.evaluate(children)
        for path in growing:
            if path[-1].children:
                _extend(path, pick)
    return paths


async def evaluate_and_backup(
    ctx: Context, paths: Sequence[Sequence[Node]], dead_ends: set[Node]
) -> dict[Node, float]:
    """Evaluate the ends of the paths together and back the values up; a dead end's value is 0.

    Returns:
        The value of each end that is not a dead end, in the order of the paths.
    """
    ends = [path[-1] for path in paths if path[-1] not in dead_ends]
    value_of = dict(zip(ends, await ctx.evaluate(ends), strict=True))
    for path in paths:
        backup(path, value_of.get(path[-1], 0.0))
    return value_of


def _extend(path: list[Node], pick: Callable[[Node], Node]) -> None:
    child = pick(path[-1])
    child.visits += 1
    path.append(child)


def rank_visited(ctx: Context) -> list[Node]:
    """Return the terminal nodes visited, by value, then visits.

    Without one, it is the end of the most visited path.
    """
    finished = [node for node in ctx.graph if node.is_terminal and node.visits]
    if finished:
        return sorted(finished, key=lambda n: (value_or_least(n), n.visits), reverse=True)
    return [most_visited(ctx.root)]


def most_visited(root: Node) -> Node:
    """Return the end of the path that follows the most visited child; ties go to the earlier."""
    node = root
    while visited := [child for child in node.children if child.visits]:
        node = max(visited, key=lambda child: child.visits)
    return node
