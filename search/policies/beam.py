"""Beam search over reasoning steps (Xie et al., arXiv 2305.00633).

A hypothesis is a path; its score aggregates the values of its steps (search/aggregation.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from treeshare.search.aggregation import AGGREGATES, Aggregate, path_score
from treeshare.search.bounds import check_numbers, one_of
from treeshare.search.context import Context, flatten, top_k
from treeshare.search.graph import Node


@dataclass(frozen=True)
class Beam:
    """Keep the `width` hypotheses of highest score at each level.

    A finished hypothesis stays in the beam as long as its score is high enough.

    Returns the `width` best finished hypotheses of any level; without any, those of the last.

    Args:
        width: hypotheses kept.
        num_samples: samples for each open hypothesis; None takes the expander's.
        depth: levels; None takes the task's (`ctx.depth`).
        aggregate: how a score is made from the values of the steps.

    Raises:
        ValueError: a number is below 1, or `aggregate` is not a known name.
    """

    width: int = 5
    num_samples: int | None = None
    depth: int | None = None
    aggregate: Aggregate = "sum"

    paper: ClassVar[str] = "Xie et al., 2305.00633"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "all children"
    together: ClassVar[str] = "a level"
    max_requests: ClassVar[str | None] = "1 + (depth - 1) * width"

    def __post_init__(self) -> None:
        check_numbers(self, width=1, num_samples=1, depth=1)
        one_of(AGGREGATES, aggregate=self.aggregate)

    async def search(self, ctx: Context) -> list[Node]:
        """Grow the beam level by level."""

        def score(node: Node) -> float:
            return path_score(node, self.aggregate)

        beam = [ctx.root]
        try:
            for _ in range(self.depth or ctx.depth):
                expansions = (ctx.expand(node, self.num_samples) for node in beam)
                children = flatten(await ctx.gather(*expansions))
                await ctx.evaluate(children)
                hypotheses = [node for node in beam if node.is_terminal] + children
                scores = [score(node) for node in hypotheses]
                beam = top_k(hypotheses, scores, self.width)
        finally:
            ctx.best = ctx.ranked(score)[: self.width]
        return ctx.best
