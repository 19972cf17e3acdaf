"""Diverse verifier tree search (Beeching, Tunstall & Rush, "Scaling test-time compute with open
models", Hugging Face 2024, section on DVTS; their program is `search-and-learn`).

Beam search puts all its hypotheses below one good step; here independent subtrees, each searched
greedily, keep the solutions apart. The run's evaluator stands where the authors have a process
reward model.
"""

from __future__ import annotations

from dataclasses import dataclass

from treeshare.search.bounds import at_least, one_of
from treeshare.search.context import Context, flatten
from treeshare.search.graph import Node

from .aggregation import AGGREGATES, ANSWER_RULES, Aggregate, AnswerRule, path_score, rank_finished


@dataclass(frozen=True)
class DVTS:
    """Divide the first steps among `subtrees`; in each, keep the step of highest score, draw
    `samples` next steps of it, and so on until it is terminal or has none.

    The authors' N is `subtrees`·`samples`, the first steps drawn, and M is `samples`. Equal first
    steps become one, so fewer than `subtrees` distinct ones make fewer subtrees. The first steps go
    to the subtrees in turn, as those of `propose` and `choose` come in order. All subtrees'
    requests join one batch.

    Returns one terminal node for each answer, by the rule `answers` over all terminal nodes and
    their scores; without any, the deepest nodes by score.

    Raises:
        ValueError: a number is below 1, or `aggregate` or `answers` is none of the names.
    """

    subtrees: int = 4  # N / M
    samples: int = 4  # M, for each subtree's step
    depth: int = 40  # steps
    aggregate: Aggregate = "last"
    answers: AnswerRule = "weighted"

    def __post_init__(self) -> None:
        at_least(1, subtrees=self.subtrees, samples=self.samples, depth=self.depth)
        one_of(AGGREGATES, aggregate=self.aggregate)
        one_of(ANSWER_RULES, answers=self.answers)

    async def search(self, ctx: Context) -> list[Node]:
        def score(node: Node) -> float:
            return path_score(node, self.aggregate)

        try:
            steps = await ctx.expand(ctx.root, self.subtrees * self.samples)
            groups = deal(steps, self.subtrees)
            for level in range(1, self.depth + 1):
                await ctx.evaluate(flatten(groups))
                leaves = [max(group, key=score) for group in groups if group]
                if level == self.depth or not leaves:
                    break
                groups = await ctx.gather(*(ctx.expand(leaf, self.samples) for leaf in leaves))
        finally:
            ctx.best = rank_finished(ctx, self.answers, score)
        return ctx.best


def deal(steps: list[Node], hands: int) -> list[list[Node]]:
    """Step i goes to hand i mod `hands`."""
    return [steps[i::hands] for i in range(hands)]
