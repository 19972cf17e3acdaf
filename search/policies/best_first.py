"""Best-first search: always expand the open nodes of highest value, at whatever depth.

For language models: Koh et al., arXiv 2407.01476.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import ClassVar

from treeshare.search.bounds import check_numbers
from treeshare.search.context import Context, flatten
from treeshare.search.graph import Node


@dataclass(frozen=True)
class BestFirst:
    """Expand the `width` best open nodes together; ties go to the deeper, then the earlier node.

    The search ends after `expansions` nodes, when `leaves` terminal nodes were the best of all open
    nodes, or when no open node is left.

    Returns the `leaves` best terminal nodes; without any, the best of the deepest.

    Args:
        num_samples: samples for each node; None takes the expander's.
        width: nodes expanded together.
        expansions: nodes expanded in all.
        leaves: terminal nodes to find, each better than all nodes that are still open.

    Raises:
        ValueError: a parameter is below 1.
    """

    num_samples: int | None = None
    width: int = 1
    expansions: int = 30
    leaves: int = 1

    paper: ClassVar[str] = "Koh et al., 2407.01476"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "all children"
    together: ClassVar[str] = "`width` states"
    max_requests: ClassVar[str | None] = "expansions"

    def __post_init__(self) -> None:
        check_numbers(self, num_samples=1, width=1, expansions=1, leaves=1)

    async def search(self, ctx: Context) -> list[Node]:
        """Expand nodes by value and rank the terminal ones."""
        frontier = [(0.0, 0, ctx.root.id, ctx.root)]  # heap of (-value, -depth, id, node)
        num_expanded = num_leaves = 0
        while frontier and num_expanded < self.expansions and num_leaves < self.leaves:
            count = min(self.width, self.expansions - num_expanded, len(frontier))
            best = [heappop(frontier)[-1] for _ in range(count)]
            num_leaves += sum(node.is_terminal for node in best)
            num_expanded += sum(not node.is_terminal for node in best)
            expansions = (ctx.expand(node, self.num_samples) for node in best)
            children = flatten(await ctx.gather(*expansions))
            for child, value in zip(children, await ctx.evaluate(children), strict=True):
                heappush(frontier, (-value, -child.depth, child.id, child))
        return ctx.ranked()[: self.leaves]
