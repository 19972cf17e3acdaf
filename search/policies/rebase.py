"""REBASE, reward-balanced search (Wu et al., "Inference scaling laws", arXiv 2408.00724, section
3; the authors' program is `rebase`).

Beam search keeps the best few nodes and gives each the same number of children; here every open
node of a level gets its share of a budget by its reward. The run's evaluator stands where the
paper has a process reward model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from treeshare.search.bounds import at_least, one_of
from treeshare.search.context import Context, flatten, value_or_least
from treeshare.search.graph import Node

from .aggregation import AGGREGATES, ANSWER_RULES, Aggregate, AnswerRule, path_score, rank_finished


@dataclass(frozen=True)
class REBASE:
    """Level by level, draw next steps of each open node in number by its value.

    Every node that is finished, or can be no deeper, takes one from the budget of all later levels;
    the search ends when none is left, or no node is open. Equal steps from one node become one.
    With an expander that does not sample (`choose`) a share is either nothing or all the children.

    Returns one terminal node for each answer, by the rule `answers` over all terminal nodes and
    their scores; without any, the deepest nodes by score.

    Raises:
        ValueError: a number is below its bound, or `aggregate` or `answers` is none of the names.
    """

    width: int = 16  # N, the budget: solutions sampled
    temperature: float = 0.2  # T_b, of the balance, on the evaluator's scale
    depth: int = 25  # levels
    aggregate: Aggregate = "last"  # score of a solution
    answers: AnswerRule = "weighted"

    def __post_init__(self) -> None:
        at_least(1, width=self.width, depth=self.depth)
        at_least(1e-6, temperature=self.temperature)
        one_of(AGGREGATES, aggregate=self.aggregate)
        one_of(ANSWER_RULES, answers=self.answers)

    async def search(self, ctx: Context) -> list[Node]:
        def score(node: Node) -> float:
            return path_score(node, self.aggregate)

        try:
            nodes, values, budget = [ctx.root], [0.0], self.width
            for _ in range(self.depth):
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
    """Shares of `total`, whole numbers that sum to it, about total·softmax(v / T).

    The paper's Round, as the authors' program has it: by falling value, ties to the earlier,

        W_i = ⌈B_i · exp(v_i / T) / Σ_{j ≥ i} exp(v_j / T)⌉,  B_1 = total,  B_{i+1} = B_i - W_i

    so that what is rounded up is taken from the nodes of lowest value; the last gets what is left.
    """
    order = sorted(range(len(values)), key=lambda i: -values[i])
    counts = [0] * len(values)
    left = total
    for rank, i in enumerate(order):
        # the share's inverse, with v_i as the largest exponent: nothing overflows
        rest = math.fsum(math.exp((values[j] - values[i]) / temperature) for j in order[rank:])
        counts[i] = math.ceil(left / rest - 1e-9)  # lest 2.0000000000000004 become 3
        left -= counts[i]
    return counts
