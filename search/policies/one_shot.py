"""Whole solutions drawn at once, without a tree: the baselines.

`IO` answers directly; `CoT` reasons first (Wei et al., arXiv 2201.11903, section 2);
`SelfConsistency` takes the majority of many answers (Wang et al., arXiv 2203.11171, section 2),
`WeightedSelfConsistency` weighs the votes by value (Li et al., arXiv 2206.02336);
`BestOfN` the one of highest value (Cobbe et al., arXiv 2110.14168, section 4.2). A sample that
cannot be read gives no node.
"""

from __future__ import annotations

from dataclasses import dataclass

from treeshare.search.bounds import at_least
from treeshare.search.context import Context, top_k
from treeshare.search.graph import Node

from .aggregation import rank_answers


@dataclass(frozen=True)
class IO:
    """One direct answer (role `io`)."""

    async def search(self, ctx: Context) -> list[Node]:
        return await ctx.sample(ctx.root, "io")


@dataclass(frozen=True)
class CoT:
    """One chain of thought (role `cot`)."""

    async def search(self, ctx: Context) -> list[Node]:
        return await ctx.sample(ctx.root, "cot")


@dataclass(frozen=True)
class SelfConsistency:
    """Majority over the answers of several samples.

    Returns the first sample of each answer, the most frequent answer first, ties to the answer seen
    first. A sample without an answer has no vote.

    Raises:
        ValueError: `samples` is below 1.
    """

    samples: int = 10
    role: str = "cot"

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples)

    async def search(self, ctx: Context) -> list[Node]:
        nodes = await ctx.sample(ctx.root, self.role, self.samples)
        return rank_answers(ctx, nodes, "majority")


@dataclass(frozen=True)
class WeightedSelfConsistency:
    """The answer whose samples have the highest sum of values, which should be 0 or more.

    Returns the sample of highest value of each answer, ties to the one seen first. A sample without
    an answer is not evaluated and has no vote. If the budget ends the search before the values
    are known, the majority decides.

    Raises:
        ValueError: `samples` is below 1.
    """

    samples: int = 10
    role: str = "cot"

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples)

    async def search(self, ctx: Context) -> list[Node]:
        nodes = await ctx.sample(ctx.root, self.role, self.samples)
        voters = [node for node in nodes if node.is_terminal]
        ctx.best = rank_answers(ctx, voters, "majority") or None
        await ctx.evaluate(voters)
        return rank_answers(ctx, voters, "weighted")


@dataclass(frozen=True)
class BestOfN:
    """The sample that the evaluator values most.

    Raises:
        ValueError: `samples` is below 1.
    """

    samples: int = 10
    role: str = "cot"

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples)

    async def search(self, ctx: Context) -> list[Node]:
        nodes = await ctx.sample(ctx.root, self.role, self.samples)
        return top_k(nodes, await ctx.evaluate(nodes), self.samples)
