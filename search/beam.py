"""Beam search over reasoning steps (Xie et al., arXiv 2305.00633, section 3).

A hypothesis is a path; its score aggregates the values of its steps. Product and minimum are the
solution scores of Lightman et al. (arXiv 2305.20050, section 2.6 and appendix F), the last step's
value that of Snell et al. (arXiv 2408.03314).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from .bounds import at_least, one_of
from .context import Context, flatten, top_k
from .graph import Node

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "last": lambda values: values[-1],
    "min": min,
    "prod": math.prod,
    "mean": fmean,
}


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
    aggregate: Literal["sum", "last", "min", "prod", "mean"] = "sum"

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


def path_score(node: Node, aggregate: str) -> float:
    """aggregate(v_1, ..., v_t) over the values of the path's steps; -∞ while one is missing."""
    values = [step.value for step in node.path[1:] if step.value is not None]
    is_complete = len(values) == node.depth > 0
    return AGGREGATES[aggregate](values) if is_complete else -math.inf
