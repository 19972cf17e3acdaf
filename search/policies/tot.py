"""Tree of Thoughts (Yao et al., arXiv 2305.10601, section 3), breadth-first and depth-first.

The run's expander generates the thoughts (the paper's G), and its evaluator gives the values (V).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from treeshare.search.bounds import check_numbers
from treeshare.search.context import Context, flatten, top_k, value_or_least
from treeshare.search.graph import Node


@dataclass(frozen=True)
class ToTBFS:
    """Algorithm 1: go level by level and keep the `breadth` states of highest value.

    Returns the `breadth` best terminal nodes of any level; without any, the best of the last.

    Args:
        breadth: b, the states kept of each level.
        num_samples: k, the samples for each state; None takes the expander's.
        depth: T, the levels; None takes the task's (`ctx.depth`).

    Raises:
        ValueError: a parameter is below 1.
    """

    breadth: int = 5
    num_samples: int | None = None
    depth: int | None = None

    paper: ClassVar[str] = "Yao et al., 2305.10601"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "all children"
    together: ClassVar[str] = "a level"
    max_requests: ClassVar[str | None] = "1 + (depth - 1) * breadth"

    def __post_init__(self) -> None:
        check_numbers(self, breadth=1, num_samples=1, depth=1)

    async def search(self, ctx: Context) -> list[Node]:
        """Grow the tree level by level."""
        beam = [ctx.root]
        try:
            for _ in range(self.depth or ctx.depth):
                expansions = (ctx.expand(node, self.num_samples) for node in beam)
                children = flatten(await ctx.gather(*expansions))
                beam = top_k(children, await ctx.evaluate(children), self.breadth)
        finally:
            ctx.best = ctx.ranked()[: self.breadth]
        return ctx.best


@dataclass(frozen=True)
class ToTDFS:
    """Algorithm 2: follow the child of highest value, and backtrack from terminal nodes.

    Children of a value of `threshold` or less are dropped. The search backtracks from dead ends
    too.

    Returns the terminal nodes reached, by value; without any, the best so far.

    Args:
        num_samples: k, the samples for each state; None takes the expander's.
        width: the most children followed of a state; None follows all above the threshold.
        threshold: v_th, on the evaluator's scale.
        max_leaves: terminal nodes to reach; None searches the whole tree.
        depth: T, the levels; None takes the task's (`ctx.depth`).

    Raises:
        ValueError: a parameter other than `threshold` is below 1.
    """

    num_samples: int | None = None
    width: int | None = None
    threshold: float = 0.0
    max_leaves: int | None = 1
    depth: int | None = None

    paper: ClassVar[str] = "Yao et al., 2305.10601"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "all children"
    together: ClassVar[str] = "one state"
    max_requests: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        check_numbers(self, num_samples=1, width=1, max_leaves=1, depth=1)

    async def search(self, ctx: Context) -> list[Node]:
        """Grow the tree depth first."""
        stack = [ctx.root]  # the state to visit next is the last
        leaves: list[Node] = []
        depth = self.depth or ctx.depth
        try:
            while stack and len(leaves) != self.max_leaves:
                node = stack.pop()
                if node.is_terminal:
                    leaves.append(node)
                elif node.depth < depth:
                    stack += reversed(await self._promising_children(ctx, node))
        finally:
            by_value = sorted(leaves, key=value_or_least, reverse=True)
            ctx.best = by_value or ctx.ranked()[: self.max_leaves]
        return ctx.best

    async def _promising_children(self, ctx: Context, node: Node) -> list[Node]:
        children = await ctx.expand(node, self.num_samples)
        values = await ctx.evaluate(children)
        num_promising = sum(value > self.threshold for value in values)
        return top_k(children, values, num_promising)[: self.width]
