"""Tree of Thoughts (Yao et al., arXiv 2305.10601, section 3): breadth-first and depth-first.

Which thoughts are generated (G, with k samples) and how states are valued (V) is up to the run's
expander and evaluator.
"""

from __future__ import annotations

from dataclasses import dataclass

from treeshare.search.bounds import at_least
from treeshare.search.context import Context, flatten, top_k, value_or_least
from treeshare.search.graph import Node


@dataclass(frozen=True)
class ToTBFS:
    """Algorithm 1: level by level, keep the `breadth` states of highest value.

    Returns the `breadth` best terminal nodes of any level; without any, those of the last.

    Raises:
        ValueError: a parameter is below 1.
    """

    breadth: int = 5  # b, states kept a level
    samples: int = 1  # k, a state
    depth: int = 3  # T, levels

    def __post_init__(self) -> None:
        at_least(1, breadth=self.breadth, samples=self.samples, depth=self.depth)

    async def search(self, ctx: Context) -> list[Node]:
        beam = [ctx.root]
        try:
            for _ in range(self.depth):
                expansions = (ctx.expand(node, self.samples) for node in beam)
                children = flatten(await ctx.gather(*expansions))
                beam = top_k(children, await ctx.evaluate(children), self.breadth)
        finally:
            ctx.best = ctx.ranked()[: self.breadth]
        return ctx.best


@dataclass(frozen=True)
class ToTDFS:
    """Algorithm 2: follow the child of highest value, drop children valued `threshold` or less,
    and backtrack from terminal nodes and dead ends.

    Returns the terminal nodes reached, by value; without any, the best so far.

    Raises:
        ValueError: a parameter other than `threshold` is below 1.
    """

    samples: int = 1  # k, a state
    width: int | None = None  # most children followed of a state
    threshold: float = 0.0  # v_th, on the evaluator's scale
    max_leaves: int | None = 1  # terminal nodes to reach; None searches on
    depth: int = 3  # T, levels

    def __post_init__(self) -> None:
        at_least(
            1,
            samples=self.samples,
            width=self.width,
            max_leaves=self.max_leaves,
            depth=self.depth,
        )

    async def search(self, ctx: Context) -> list[Node]:
        stack = [ctx.root]  # the state to visit next is the last
        leaves: list[Node] = []
        try:
            while stack and len(leaves) != self.max_leaves:
                node = stack.pop()
                if node.is_terminal:
                    leaves.append(node)
                elif node.depth < self.depth:
                    stack += reversed(await self._promising_children(ctx, node))
        finally:
            by_value = sorted(leaves, key=value_or_least, reverse=True)
            ctx.best = by_value or ctx.ranked()[: self.max_leaves]
        return ctx.best

    async def _promising_children(self, ctx: Context, node: Node) -> list[Node]:
        children = await ctx.expand(node, self.samples)
        values = await ctx.evaluate(children)
        num_promising = sum(value > self.threshold for value in values)
        return top_k(children, values, num_promising)[: self.width]
