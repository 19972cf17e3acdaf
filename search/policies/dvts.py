"""Diverse verifier tree search: independent subtrees, each searched greedily.

Beeching, Tunstall & Rush, "Scaling test-time compute with open models", Hugging Face 2024; their
program is `search-and-learn`. Beam search tends to put all its hypotheses below one good step;
independent subtrees keep the solutions different. The run's evaluator takes the place of the
authors' process reward model.
"""

from __future__ import annotations

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
from treeshare.search.context import Context, flatten
from treeshare.search.graph import Node


@dataclass(frozen=True)
class DVTS:
    """Divide the first steps among `subtrees`, and search each subtree greedily.

    In each, keep the step of highest score, draw `num_samples` next steps of it, and so on until
    the step is terminal or has no next steps.

    The authors' N is `subtrees`·`num_samples`, the first steps drawn, and M is `num_samples`. Equal
    first steps become one, so fewer than `subtrees` distinct ones make fewer subtrees. The first
    steps go to the subtrees in turn, because `propose` and `choose` return them in order of rank.
    The requests of all subtrees join one batch.

    Returns one terminal node for each answer, by the rule `answers` over all terminal nodes and
    their scores; without any, the deepest nodes by score.

    Args:
        subtrees: N / M.
        num_samples: M, the samples for each subtree's step.
        depth: steps below the root; None takes the task's (`ctx.depth`).
        aggregate: how a path's score is made from the values of its steps.
        answers: how the answers are ranked.

    Raises:
        ValueError: a number is below 1, or `aggregate` or `answers` is not a known name.
    """

    subtrees: int = 4
    num_samples: int = 4
    depth: int | None = None
    aggregate: Aggregate = "last"
    answers: AnswerRule = "weighted"

    paper: ClassVar[str] = "Beeching et al., 2024 (Hugging Face)"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "all children"
    together: ClassVar[str] = "a level"
    max_requests: ClassVar[str | None] = "1 + (depth - 1) * subtrees"

    def __post_init__(self) -> None:
        check_numbers(self, subtrees=1, num_samples=1, depth=1)
        one_of(AGGREGATES, aggregate=self.aggregate)
        one_of(ANSWER_RULES, answers=self.answers)

    async def search(self, ctx: Context) -> list[Node]:
        """Search the subtrees and rank the answers."""

        def score(node: Node) -> float:
            return path_score(node, self.aggregate)

        depth = self.depth or ctx.depth
        try:
            steps = await ctx.expand(ctx.root, self.subtrees * self.num_samples)
            groups = deal(steps, self.subtrees)
            for level in range(1, depth + 1):
                await ctx.evaluate(flatten(groups))
                leaves = [max(group, key=score) for group in groups if group]
                if level == depth or not leaves:
                    break
                groups = await ctx.gather(*(ctx.expand(leaf, self.num_samples) for leaf in leaves))
        finally:
            ctx.best = rank_finished(ctx, self.answers, score)
        return ctx.best


def deal(steps: list[Node], num_groups: int) -> list[list[Node]]:
    """Divide the steps into groups in turn: step i goes to group i mod `num_groups`."""
    return [steps[i::num_groups] for i in range(num_groups)]
