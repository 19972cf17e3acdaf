"""Monte-Carlo tree search: UCT (Kocsis & Szepesvári, "Bandit based Monte-Carlo planning", ECML
2006, section 2) and PUCT (Silver et al., "Mastering the game of Go without human knowledge",
Nature 2017, Methods).

The run's evaluator stands where the textbook has a random playout; values should lie in [0, 1],
the scale of the exploration term. Several simulations can be in flight: each counts its visits
before it waits and adds its value after, so that the next one sees a loss and goes elsewhere
("virtual loss", Chaslot et al., "Parallel Monte-Carlo tree search", 2008). One at a time, this is
the sequential algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from treeshare.search.bounds import at_least, one_of
from treeshare.search.context import Context, flatten, value_or_least
from treeshare.search.graph import Node


@dataclass(frozen=True)
class MCTS:
    """Select a leaf, expand it if it was visited before, evaluate one new child, back its value up.

    A leaf that can have no children (terminal, too deep) backs up its own value at every visit, a
    dead end (its expansion gave nothing) the value 0; neither asks the model again.

    Returns the terminal nodes visited, by value, then visits; without any, the end of the most
    visited path.

    Raises:
        ValueError: a number is below its bound, or `selection` is none of the two.
    """

    simulations: int = 50
    parallel: int = 1  # simulations in flight together
    samples: int = 1  # for each expansion
    selection: Literal["uct", "puct"] = "uct"
    c: float = math.sqrt(2)  # weight of the exploration term
    depth: int | None = None  # steps below the root; None is no limit

    def __post_init__(self) -> None:
        at_least(
            1,
            simulations=self.simulations,
            parallel=self.parallel,
            samples=self.samples,
            depth=self.depth,
        )
        at_least(0, c=self.c)
        one_of(("uct", "puct"), selection=self.selection)

    async def search(self, ctx: Context) -> list[Node]:
        dead_ends: set[Node] = set()
        try:
            for begun in range(0, self.simulations, self.parallel):
                await simulate(
                    ctx,
                    min(self.parallel, self.simulations - begun),
                    lambda parent: best_child(parent, self.selection, self.c),
                    self.samples,
                    self.depth,
                    dead_ends,
                )
        finally:
            ctx.best = rank(ctx)
        return ctx.best


async def simulate(
    ctx: Context,
    count: int,
    pick: Callable[[Node], Node],
    samples: int,
    depth: int | None,
    dead_ends: set[Node],
) -> None:
    """Run `count` simulations together; those that meet at a leaf share its expansion."""
    paths: list[list[Node]] = []
    growing: list[list[Node]] = []  # those whose leaf is to be expanded
    for _ in range(count):
        path = select(ctx.root, pick)
        leaf = path[-1]
        is_known = leaf.visits > 0 or leaf is ctx.root
        is_open = ctx.can_expand(leaf) and (depth is None or leaf.depth < depth)
        if is_known and is_open and leaf not in dead_ends:
            growing.append(path)
        for node in path:
            node.visits += 1
        paths.append(path)

    leaves = list(dict.fromkeys(path[-1] for path in growing))
    await ctx.gather(*(ctx.expand(leaf, samples) for leaf in leaves))
    dead_ends.update(leaf for leaf in leaves if not leaf.children)
    for path in growing:
        if path[-1].children:
            child = pick(path[-1])
            child.visits += 1
            path.append(child)

    alive = [path[-1] for path in paths if path[-1] not in dead_ends]
    value_of = dict(zip(alive, await ctx.evaluate(alive), strict=True))
    for path in paths:
        backup(path, value_of.get(path[-1], 0.0))


def select(root: Node, pick: Callable[[Node], Node]) -> list[Node]:
    """The path from the root, by the child `pick` gives, down to a node without children."""
    path = [root]
    while path[-1].children:
        path.append(pick(path[-1]))
    return path


def best_child(parent: Node, selection: str, c: float) -> Node:
    """The child of highest UCT or PUCT score."""

    def score(child: Node) -> float:
        if selection == "uct":
            return uct_score(child.value_sum, child.visits, parent.visits, c)
        prior = prior_or_uniform(child)
        return puct_score(child.value_sum, child.visits, parent.visits, prior, c)

    return highest(parent.children, score)


def highest(children: Sequence[Node], score: Callable[[Node], float]) -> Node:
    """The child of highest score; ties go to the higher prior, then to the earlier child."""
    return max(children, key=lambda child: (score(child), prior_or_uniform(child)))


def prior_or_uniform(child: Node) -> float:
    """The child's prior; one over the number of siblings if its expander gives none."""
    if child.prior is not None:
        return child.prior
    return 1 / len(child.parents[0].children)


def uct_score(value_sum: float, visits: int, parent_visits: int, c: float) -> float:
    """W/n + c·√(ln N / n), and ∞ for n = 0: every child is tried once before any twice.

    W = value_sum, n = visits, N = parent_visits. The paper's c is 2·C_p; C_p = 1/√2 gives UCB1.
    """
    if visits == 0:
        return math.inf
    return value_sum / visits + c * math.sqrt(math.log(parent_visits) / visits)


def puct_score(value_sum: float, visits: int, parent_visits: int, prior: float, c: float) -> float:
    """W/n + c·P·√N / (1 + n), with W/n = 0 for n = 0.

    W = value_sum, n = visits, P = prior, N = parent_visits; the paper's Σ_b N(s, b) counts the
    visits of the children, without the one that evaluated the parent itself.
    """
    mean = value_sum / visits if visits else 0.0
    return mean + c * prior * math.sqrt(parent_visits) / (1 + visits)


def backup(path: Sequence[Node], value: float) -> None:
    """Add the value of a simulation to all nodes of its path, whose visits are counted already."""
    for node in path:
        node.value_sum += value


def uct_with_guess(guess: float, visits: int, parent_visits: int, c: float) -> float:
    """Q + c·√(ln N / max(1, n)): a child not visited yet stands at a first guess of its Q.

    Q = guess, n = visits, N = parent_visits: llm-reasoners' rule (arXiv 2404.05221), under which
    an unpromising child may never be tried.
    """
    return guess + c * math.sqrt(math.log(parent_visits) / max(1, visits))


async def roll_out(
    ctx: Context,
    count: int,
    pick: Callable[[Node], Node],
    expand: Callable[[Node], Awaitable[Sequence[Node]]],
    depth: int,
    dead_ends: set[Node],
) -> list[list[Node]]:
    """Grow `count` paths together, from the root to a terminal node, a dead end or `depth`.

    A path goes on by `pick`. Where there is nothing to pick from, the node is expanded and all
    its children are evaluated; paths that meet there share this. Visits are counted on the way
    (virtual loss), values are left to the caller. New dead ends are added to `dead_ends`.
    """
    paths = []
    for _ in range(count):
        path = select(ctx.root, pick)
        for node in path:
            node.visits += 1
        paths.append(path)

    def goes_on(path: Sequence[Node]) -> bool:
        end = path[-1]
        return ctx.can_expand(end) and end.depth < depth and end not in dead_ends

    growing = paths
    while growing := [path for path in growing if goes_on(path)]:
        leaves = [leaf for leaf in dict.fromkeys(p[-1] for p in growing) if not leaf.children]
        children = flatten(await ctx.gather(*(expand(leaf) for leaf in leaves)))
        dead_ends.update(leaf for leaf in leaves if not leaf.children)
        await ctx.evaluate(children)
        for path in growing:
            if path[-1].children:
                child = pick(path[-1])
                child.visits += 1
                path.append(child)
    return paths


def rank(ctx: Context) -> list[Node]:
    """The terminal nodes visited by value, then visits; without any, the end of the most visited
    path."""
    finished = [node for node in ctx.graph if node.is_terminal and node.visits]
    if finished:
        return sorted(finished, key=lambda n: (value_or_least(n), n.visits), reverse=True)
    return [most_visited(ctx.root)]


def most_visited(root: Node) -> Node:
    """The end of the path that follows the most visited child; ties go to the earlier one."""
    node = root
    while visited := [child for child in node.children if child.visits]:
        node = max(visited, key=lambda child: child.visits)
    return node
