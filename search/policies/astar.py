"""A* over reasoning steps: expand the open node of least f = g + h.

Hart, Nilsson & Raphael, "A formal basis for the heuristic determination of minimum cost paths",
1968; for language models: Zhuang et al., "ToolChain*", arXiv 2310.13227.

With `cost=logprob` both terms are in nats, and f = -ln(p(path) · value). If the value is the
probability of success from a node on, the node expanded next is the likeliest to succeed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import ClassVar, Literal

from treeshare.search.bounds import check_numbers, one_of
from treeshare.search.context import Context, flatten
from treeshare.search.evaluators.prompted import LogProb
from treeshare.search.graph import Node

LEAST_VALUE = 1e-6  # keeps h finite: a value of 0 costs 13.8 nats


@dataclass(frozen=True)
class AStar:
    """Expand the `width` open nodes of least f together; ties go to the earlier node.

    The search ends when a terminal node has the least f of all open nodes, after `expansions`
    nodes, or when no open node is left. If h never overestimates the cost to go, that terminal node
    has the least f of all. A larger `width` expands more nodes, but never changes which terminal
    node that is.

    Returns the terminal nodes found, by f; without any, the deepest by f.

    Args:
        num_samples: samples for each node; None takes the expander's.
        width: nodes expanded together.
        expansions: nodes expanded in all.
        cost: the cost of a step: 1 (`step`), or its negative log-probability (`logprob`).
        weight: the weight of h; 0 is uniform-cost search.

    Raises:
        ValueError: a number is below its bound, or `cost` is not one of the two; during a search
            with `cost=logprob`, a step has no log-probability.
    """

    num_samples: int | None = None
    width: int = 1
    expansions: int = 30
    cost: Literal["step", "logprob"] = "step"
    weight: float = 1.0

    paper: ClassVar[str] = "Hart et al., 1968; Zhuang et al., 2310.13227"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "all children"
    together: ClassVar[str] = "`width` states"
    max_requests: ClassVar[str | None] = "expansions"

    def __post_init__(self) -> None:
        check_numbers(self, num_samples=1, width=1, expansions=1, weight=0)
        one_of(("step", "logprob"), cost=self.cost)

    @property
    def needs_logprobs(self) -> bool:
        """Whether the cost of a step is its log-probability."""
        return self.cost == "logprob"

    async def search(self, ctx: Context) -> list[Node]:
        """Expand nodes by f and rank the terminal ones."""
        frontier = [(0.0, ctx.root.id, ctx.root)]  # heap of (f, id, node)
        f_of: dict[Node, float] = {}
        num_expanded = 0
        try:
            while frontier and not frontier[0][-1].is_terminal and num_expanded < self.expansions:
                nodes = self._pop(frontier, self.expansions - num_expanded)
                num_expanded += len(nodes)
                expansions = (ctx.expand(node, self.num_samples) for node in nodes)
                children = flatten(await ctx.gather(*expansions))
                values = await ctx.evaluate(children)
                costs = await self._path_costs(ctx, children)
                for child, value, g in zip(children, values, costs, strict=True):
                    f_of[child] = g + self.weight * cost_to_go(value)
                    heappush(frontier, (f_of[child], child.id, child))
        finally:
            ctx.best = ctx.ranked(lambda node: -f_of.get(node, math.inf))
        return ctx.best

    def _pop(self, frontier: list[tuple[float, int, Node]], limit: int) -> list[Node]:
        """Remove and return the open nodes to expand, up to the first terminal one."""
        nodes: list[Node] = []
        while frontier and not frontier[0][-1].is_terminal and len(nodes) < min(self.width, limit):
            nodes.append(heappop(frontier)[-1])
        return nodes

    async def _path_costs(self, ctx: Context, nodes: list[Node]) -> list[float]:
        """Return g = Σ over the path's steps of 1 (`step`) or of -ln p(step) (`logprob`)."""
        if self.cost == "step":
            return [float(node.depth) for node in nodes]
        return [-logprob for logprob in await LogProb().evaluate(ctx, nodes)]


def cost_to_go(value: float) -> float:
    """Return h = -ln v, with v clipped to [10⁻⁶, 1]."""
    return -math.log(min(1.0, max(LEAST_VALUE, value)))
