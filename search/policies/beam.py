"""Beam search over reasoning steps (Xie et al., arXiv 2305.00633, section 3).

A hypothesis is a path; its score aggregates the values of its steps (aggregation.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from treeshare.search.bounds import at_least, one_of
from treeshare.search.context import Context, flatten, top_k
from treeshare.search.graph import Node

from .aggregation import AGGREGATES, Aggregate, path_score


@dataclass(frozen=True)
class Beam:
    """Keep the `width` hypotheses of highest score a level.

    A finished hypothesis stays in the beam as long as its score does. Returns the `width` best
    finished hypotheses of any level; without any, those of the last.

    Raises:
        ValueError: a number is below 1, or `aggregate` is none of the names.
    """

    width: int = 5
    samples: int = 1  # for each open hypothesis
    depth: int = 3  # levels
    aggregate: Aggregate = "sum"

    def __post_init__(self) -> None:
        at_least(1, width=self.width, samples=self.samples, depth=self.depth)
        one_of(AGGREGATES, aggregate=self.aggregate)

    async def search(self, ctx: Context) -> list[Node]:
        def score(node: Node) -> float:
            return path_score(node, self.aggregate)

        beam = [ctx.root]
        try:
            for _ in range(self.depth):
                expansions = (ctx.expand(node, self.samples) for node in beam)
                children = flatten(await ctx.gather(*expansions))
                await ctx.evaluate(children)
                hypotheses = [node for node in beam if node.is_terminal] + children
                scores = [score(node) for node in hypotheses]
                beam = top_k(hypotheses, scores, self.width)
        finally:
            ctx.best = ctx.ranked(score)[: self.width]
        return ctx.best
