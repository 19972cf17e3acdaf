"""RAP, Reasoning via Planning (Hao et al., arXiv 2305.14992).

It is Monte-Carlo tree search over reasoning steps, each with a reward of its own. The model that
reasons is the agent. Its likelihood of a step is one part of the step's reward; the other is the
value from the run's evaluator, which should lie in [0, 1]. The task takes the place of the paper's
world model. The defaults are those of the authors' program for GSM8K (llm-reasoners, arXiv
2404.05221).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from treeshare.search.bounds import check_numbers
from treeshare.search.context import Context
from treeshare.search.graph import Node

from .formulas import uct_with_guess
from .tree_operations import batches, highest, most_visited, prior_or_uniform, roll_out


@dataclass(frozen=True)
class RAP:
    """Follow the children of highest UCT to the end of a path; back up the mean rewards to go.

    Nodes on the way are expanded and all their children evaluated. Each step of the path receives
    the mean of its reward and all later ones. A step's Q is the largest mean that it received, or
    its own reward before it received any. The children of a new node differ in reward only, so the
    paper's simulation phase, which takes the child of highest reward, is the same as going on with
    the selection. The reward of a dead end counts 0.

    In a batch of several, a child whose first visit has not received a mean yet has Q = 0.

    Returns the terminal nodes by the mean reward of their whole path; without any, the end of the
    most visited path. A node's `value_sum` is the sum of the means that it received.

    Args:
        num_simulations: how many paths to follow.
        batch_size: paths that grow together.
        num_samples: samples of each expansion.
        alpha: weight of the step's likelihood in its reward, against that of its value.
        c: w, the weight of the exploration term.
        depth: steps below the root; None takes the task's (`ctx.depth`).

    Raises:
        ValueError: a number is out of its bounds.
    """

    num_simulations: int = 10
    batch_size: int = 1
    num_samples: int = 4
    alpha: float = 0.5
    c: float = 1.0
    depth: int | None = None

    paper: ClassVar[str] = "Hao et al., 2305.14992"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "all children"
    together: ClassVar[str] = "`batch_size` simulations"
    max_requests: ClassVar[str | None] = "num_simulations * depth"

    def __post_init__(self) -> None:
        check_numbers(self, num_simulations=1, batch_size=1, num_samples=1, depth=1, alpha=0, c=0)
        if self.alpha > 1:
            raise ValueError(f"alpha={self.alpha!r} must be at most 1")

    async def search(self, ctx: Context) -> list[Node]:
        """Follow the paths and rank the terminal nodes."""
        dead_ends: set[Node] = set()
        best: dict[Node, float] = {}  # the largest mean reward that a step received

        def score(child: Node) -> float:
            guess = 0.0 if child.visits else reward(child, self.alpha)
            parent_visits = child.parents[0].visits
            return uct_with_guess(best.get(child, guess), child.visits, parent_visits, self.c)

        try:
            for batch in batches(self.num_simulations, self.batch_size):
                paths = await roll_out(
                    ctx,
                    len(batch),
                    lambda parent: highest(parent.children, score),
                    lambda leaf: ctx.expand(leaf, self.num_samples),
                    self.depth or ctx.depth,
                    dead_ends,
                )
                for path in paths:
                    self._backup(path, best, path[-1] in dead_ends)
        finally:
            ctx.best = self._rank(ctx)
        return ctx.best

    def _backup(self, path: Sequence[Node], best: dict[Node, float], is_dead_end: bool) -> None:
        root, *steps = path
        rewards = [reward(step, self.alpha) for step in steps]
        if rewards and is_dead_end:  # the root may be a dead end, but it has no reward
            rewards[-1] = 0.0
        means = means_to_go(rewards)
        for step, mean in zip(steps, means, strict=True):
            best[step] = max(best.get(step, -math.inf), mean)
            step.value_sum += mean
        root.value_sum += means[0] if means else 0.0

    def _rank(self, ctx: Context) -> list[Node]:
        def mean_reward(node: Node) -> float:
            steps = node.path[1:]
            if not steps or any(step.value is None for step in steps):
                return -math.inf
            return means_to_go([reward(step, self.alpha) for step in steps])[0]

        finished = [node for node in ctx.graph if node.is_terminal]
        return sorted(finished, key=mean_reward, reverse=True) or [most_visited(ctx.root)]


def reward(step: Node, alpha: float) -> float:
    """Return r = p^α · v^(1-α), the form that llm-reasoners uses.

    p is the step's prior among its siblings, and v is its value, at least 0.

    Args:
        step: an evaluated node.
        alpha: α.
    """
    assert step.value is not None
    return math.pow(prior_or_uniform(step), alpha) * math.pow(max(0.0, step.value), 1 - alpha)


def means_to_go(rewards: Sequence[float]) -> list[float]:
    """Return (r_t + ... + r_T) / (T - t + 1) for each step t."""
    means, total = [], 0.0
    for count, value in enumerate(reversed(rewards), 1):
        total += value
        means.append(total / count)
    return means[::-1]
