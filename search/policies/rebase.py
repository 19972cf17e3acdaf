"""REBASE, reward-balanced search (Wu et al., "Inference scaling laws", arXiv 2408.00724).

The authors' program is `rebase`. Beam search keeps the best few nodes and gives each the same
number of children; here every open node of a level gets a share of the budget according to its
reward. The run's evaluator takes the place of the paper's process reward model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from treeshare.search.aggregation import (
    AGGREGATES,
    ANSWER_RULES,
    Aggregate,
    AnswerRule,
    path_score,
    rank_finished,
)
from treeshare.search.bounds import check_numbers, one_of
from treeshare.search.context import Context, flatten, value_or_least
from treeshare.search.graph import Node


@dataclass(frozen=True)
class REBASE:
    """Draw next steps of the open nodes of each level, more of a node of higher value.

    Every node that is finished, or cannot be any deeper, takes one from the budget of all later
    levels. The search ends when nothing is left of it, or no node is open. Equal steps from one
    node become one. With an expander that does not sample (`choose`), a share is either nothing or
    all the children.

    Returns one terminal node for each answer, by the rule `answers` over all terminal nodes and
    their scores; without any, the deepest nodes by score.

    Args:
        width: N, the budget: how many solutions to sample.
        temperature: T_b of the balance, on the evaluator's scale.
        depth: levels; None takes the task's (`ctx.depth`).
        aggregate: how a solution's score is made from the values of its steps.
        answers: how the answers are ranked.

    Raises:
        ValueError: a number is below its bound, or `aggregate` or `answers` is not a known name.
    """

    width: int = 16
    temperature: float = 0.2
    depth: int | None = None
    aggregate: Aggregate = "last"
    answers: AnswerRule = "weighted"

    paper: ClassVar[str] = "Wu et al., 2408.00724"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "all children"
    together: ClassVar[str] = "a level"
    max_requests: ClassVar[str | None] = "1 + (depth - 1) * width"

    def __post_init__(self) -> None:
        check_numbers(self, width=1, depth=1, temperature=1e-6)
        one_of(AGGREGATES, aggregate=self.aggregate)
        one_of(ANSWER_RULES, answers=self.answers)

    async def search(self, ctx: Context) -> list[Node]:
        """Spend the budget level by level and rank the answers."""

        def score(node: Node) -> float:
            return path_score(node, self.aggregate)

        try:
            nodes, values, budget = [ctx.root], [0.0], self.width
            for _ in range(self.depth or ctx.depth):
                counts = balanced_counts(values, budget, self.temperature)
                shares = zip(nodes, counts, strict=True)
                expansions = (ctx.expand(node, count) for node, count in shares if count)
                level = flatten(await ctx.gather(*expansions))
                await ctx.evaluate(level)
                nodes = [node for node in level if ctx.can_expand(node)]
                values = [value_or_least(node) for node in nodes]
                budget -= len(level) - len(nodes)
                if budget <= 0 or not nodes:
                    break
        finally:
            ctx.best = rank_finished(ctx, self.answers, score)
        return ctx.best


def balanced_counts(values: Sequence[float], total: int, temperature: float) -> list[int]:
    """Divide `total` into whole shares of about total·softmax(v / T).

    This is the paper's Round as the authors' program computes it: by falling value, ties to the
    earlier,

        W_i = ⌈B_i · exp(v_i / T) / Σ_{j ≥ i} exp(v_j / T)⌉,  B_1 = total,  B_{i+1} = B_i - W_i

    So whatever is rounded up is taken from the nodes of lowest value.

    Args:
        values: v.
        total: what the shares sum to.
        temperature: T.

    Returns:
        One share for each value, in order.
    """
    order = sorted(range(len(values)), key=lambda i: -values[i])
    counts = [0] * len(values)
    left = total
    for rank, i in enumerate(order):
        # The inverse of the share. v_i is the largest of these exponents, so nothing overflows.
        rest = math.fsum(math.exp((values[j] - values[i]) / temperature) for j in order[rank:])
        counts[i] = math.ceil(left / rest - 1e-9)  # tolerance, so ceil(2.0000000000000004) is 2
        left -= counts[i]
    return counts
