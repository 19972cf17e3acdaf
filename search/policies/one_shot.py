"""The baselines: whole solutions drawn at once, without a tree.

`IO` answers directly; `CoT` reasons first (Wei et al., arXiv 2201.11903). The others draw many
solutions by one request: `SelfConsistency` takes the majority of the answers (Wang et al., arXiv
2203.11171), `WeightedSelfConsistency` weights the votes by value (Li et al., arXiv 2206.02336), and
`BestOfN` takes the solution of highest value (Cobbe et al., arXiv 2110.14168). A sample that cannot
be parsed gives no node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from treeshare.search.aggregation import rank_answers
from treeshare.search.bounds import check_numbers
from treeshare.search.context import Context, top_k
from treeshare.search.graph import Node


@dataclass(frozen=True)
class IO:
    """One direct answer (role `io`)."""

    paper: ClassVar[str] = "baseline"
    asks: ClassVar[str] = "io"
    evaluates: ClassVar[str] = "nothing"
    together: ClassVar[str] = "all"
    max_requests: ClassVar[str | None] = "1"

    async def search(self, ctx: Context) -> list[Node]:
        """Draw one answer."""
        return await ctx.sample(ctx.root, "io")


@dataclass(frozen=True)
class CoT:
    """One chain of thought (role `cot`)."""

    paper: ClassVar[str] = "Wei et al., 2201.11903"
    asks: ClassVar[str] = "cot"
    evaluates: ClassVar[str] = "nothing"
    together: ClassVar[str] = "all"
    max_requests: ClassVar[str | None] = "1"

    async def search(self, ctx: Context) -> list[Node]:
        """Draw one chain of thought."""
        return await ctx.sample(ctx.root, "cot")


@dataclass(frozen=True)
class _ManySamples:
    """Draws several solutions by one request; a subclass ranks them.

    Args:
        num_samples: how many solutions.
        role: the role of the task's prompts, `cot` or `io`.

    Raises:
        ValueError: `num_samples` is below 1.
    """

    num_samples: int = 10
    role: str = "cot"

    asks: ClassVar[str] = "io or cot"
    together: ClassVar[str] = "all"
    max_requests: ClassVar[str | None] = "1"

    def __post_init__(self) -> None:
        check_numbers(self, num_samples=1)

    async def search(self, ctx: Context) -> list[Node]:
        """Draw the solutions and rank them."""
        return await self._rank(ctx, await ctx.sample(ctx.root, self.role, self.num_samples))

    async def _rank(self, ctx: Context, solutions: list[Node]) -> list[Node]:
        raise NotImplementedError


@dataclass(frozen=True)
class SelfConsistency(_ManySamples):
    """The most frequent answer of several solutions.

    Returns the first solution of each answer, the most frequent answer first; ties go to the answer
    seen first. A solution without an answer has no vote.

    Args:
        num_samples: how many solutions.
        role: the role of the task's prompts, `cot` or `io`.

    Raises:
        ValueError: `num_samples` is below 1.
    """

    paper: ClassVar[str] = "Wang et al., 2203.11171"
    evaluates: ClassVar[str] = "nothing"

    async def _rank(self, ctx: Context, solutions: list[Node]) -> list[Node]:
        return rank_answers(ctx, solutions, "majority")


@dataclass(frozen=True)
class WeightedSelfConsistency(_ManySamples):
    """The answer whose solutions have the highest sum of values, which should be 0 or more.

    Returns the solution of highest value of each answer; ties go to the one seen first. A solution
    without an answer is not evaluated and has no vote. If the budget ends the search before the
    values are known, the majority decides.

    Args:
        num_samples: how many solutions.
        role: the role of the task's prompts, `cot` or `io`.

    Raises:
        ValueError: `num_samples` is below 1.
    """

    paper: ClassVar[str] = "Li et al., 2206.02336"
    evaluates: ClassVar[str] = "answers"

    async def _rank(self, ctx: Context, solutions: list[Node]) -> list[Node]:
        voters = [node for node in solutions if node.is_terminal]
        ctx.best = rank_answers(ctx, voters, "majority") or None
        await ctx.evaluate(voters)
        return rank_answers(ctx, voters, "weighted")


@dataclass(frozen=True)
class BestOfN(_ManySamples):
    """The solution of highest value.

    Returns all solutions by value.

    Args:
        num_samples: how many solutions.
        role: the role of the task's prompts, `cot` or `io`.

    Raises:
        ValueError: `num_samples` is below 1.
    """

    paper: ClassVar[str] = "Cobbe et al., 2110.14168"
    evaluates: ClassVar[str] = "all samples"

    async def _rank(self, ctx: Context, solutions: list[Node]) -> list[Node]:
        return top_k(solutions, await ctx.evaluate(solutions), self.num_samples)
