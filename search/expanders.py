"""The expanders, which ask the model for a node's next steps.

`Propose` and `Sample` are the two thought generators of Tree of Thoughts (Yao et al., arXiv
2305.10601, section 3). `Choose` makes the model rank the steps that the task enumerates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from treeshare.tasks.task import HasMoves, Step

from . import checks
from .bounds import check_numbers
from .context import Context, known_logprob
from .graph import Node


@dataclass(frozen=True)
class Propose:
    """Draw samples that each list several steps (role `propose`), and merge the lists in order.

    A child's prior is its share of all the proposals: Σ over samples [proposed] / Σ proposals.
    A step has no log-probability of its own.
    """

    paper: ClassVar[str] = "Yao et al., 2305.10601"
    asks: ClassVar[str] = "propose"
    max_requests: ClassVar[str | None] = "1"

    async def expand(self, ctx: Context, node: Node, n: int) -> list[Node]:
        """Draw `n` lists and add their steps below `node`."""
        completions = await ctx.generate(node, "propose", n)
        return _add_merged(
            ctx,
            node,
            [
                (step, None)
                for reply in completions
                for step in ctx.parse("propose", node, reply.text)
            ],
        )


@dataclass(frozen=True)
class Sample:
    """Draw samples that are one step each (role `step`); equal steps become one child.

    A child's prior is the share of the samples that gave it. Its log-probability is that of the
    first of them.
    """

    default_samples: ClassVar[int] = 4  # with 1, a node has one child at most: the tree is a chain
    paper: ClassVar[str] = "Yao et al., 2305.10601"
    asks: ClassVar[str] = "step"
    max_requests: ClassVar[str | None] = "1"

    async def expand(self, ctx: Context, node: Node, n: int) -> list[Node]:
        """Draw `n` steps and add them below `node`."""
        completions = await ctx.generate(node, "step", n)
        return _add_merged(
            ctx,
            node,
            [
                (step, known_logprob(reply))
                for reply in completions
                for step in ctx.parse("step", node, reply.text)[:1]
            ],
        )


@dataclass(frozen=True)
class Choose:
    """Rank the task's legal moves by their log-probability under the model (role `choose`).

    The children are the `width` most likely moves, the likeliest first; ties go to the earlier
    move. A child's prior is the softmax over the log-probabilities of *all* the moves. Nothing is
    sampled, so the number of samples is ignored.

    Args:
        width: moves that become children; None is all of them.

    Raises:
        ValueError: `width` is below 1.
    """

    width: int | None = None

    needs: ClassVar[type] = HasMoves
    needs_scores: ClassVar[bool] = True
    expands_once: ClassVar[bool] = True
    paper: ClassVar[str] = "none"
    asks: ClassVar[str] = "choose"
    max_requests: ClassVar[str | None] = "1"

    def __post_init__(self) -> None:
        check_numbers(self, width=1)

    async def expand(self, ctx: Context, node: Node, n: int) -> list[Node]:
        """Score the moves and add the likeliest below `node`."""
        assert isinstance(ctx.task, HasMoves)
        moves = checks.steps(ctx.task.moves(node.state), f"{type(ctx.task).__name__}.moves")
        if not moves:
            return []
        logprobs = await ctx.score(node, "choose", [move.text for move in moves])
        priors = softmax(logprobs)
        likeliest: dict[object, int] = {}  # state to the index of the move that reaches it
        for i in sorted(range(len(moves)), key=lambda i: -logprobs[i]):
            likeliest.setdefault(moves[i].state, i)
        kept = list(likeliest.values())[: self.width]
        children = ctx.add(node, [(moves[i], logprobs[i]) for i in kept])
        for child in children:
            child.prior = priors[likeliest[child.state]]
        return children


def softmax(logits: Sequence[float]) -> list[float]:
    """Return exp(l_i) / Σ_j exp(l_j) for each logit; equal shares if all are -∞."""
    largest = max(logits)
    if largest == -math.inf:
        return [1 / len(logits)] * len(logits)
    weights = [math.exp(logit - largest) for logit in logits]
    total = sum(weights)
    return [weight / total for weight in weights]


def _add_merged(ctx: Context, node: Node, steps: Sequence[tuple[Step, float | None]]) -> list[Node]:
    counts = Counter(step.state for step, _ in steps)
    children = ctx.add(node, steps)
    for child in children:
        child.prior = counts[child.state] / len(steps)
    return children
