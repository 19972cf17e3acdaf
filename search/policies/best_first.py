"""Best-first search: always expand the open nodes of highest value, at whatever depth
(for language models: Koh et al., arXiv 2407.01476, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

from treeshare.search.bounds import at_least
from treeshare.search.context import Context, flatten
from treeshare.search.graph import Node


@dataclass(frozen=True)
class BestFirst:
    """Expand the `width` best open nodes at a time, ties to the earlier node.

    Ends after `expansions` nodes, with `leaves` terminal nodes found, or with nothing left to
    expand. Returns the `leaves` best terminal nodes; without any, the best of the deepest.

    Raises:
        ValueError: a parameter is below 1.
    """

    samples: int = 1  # a node
    width: int = 1  # nodes expanded together
    expansions: int = 30  # nodes expanded in all
    leaves: int = 1  # terminal nodes to find

    def __post_init__(self) -> None:
        at_least(
            1,
            samples=self.samples,
            width=self.width,
            expansions=self.expansions,
            leaves=self.leaves,
        )

    async def search(self, ctx: Context) -> list[Node]:
        frontier = [(0.0, ctx.root.id, ctx.root)]  # heap of (-value, id, node)
        num_expanded = num_leaves = 0
        while frontier and num_expanded < self.expansions and num_leaves < self.leaves:
            count = min(self.width, self.expansions - num_expanded, len(frontier))
            best = [heappop(frontier)[-1] for _ in range(count)]
            num_expanded += count
            expansions = (ctx.expand(node, self.samples) for node in best)
            children = flatten(await ctx.gather(*expansions))
            for child, value in zip(children, await ctx.evaluate(children), strict=True):
                if child.is_terminal:
                    num_leaves += 1
                else:
                    heappush(frontier, (-value, child.id, child))
        return ctx.ranked()[: self.leaves]
