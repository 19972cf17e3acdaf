"""RAP, Reasoning via Planning (Hao et al., arXiv 2305.14992, section 3): Monte-Carlo tree search
over reasoning steps, each with a reward of its own.

The model that reasons is the agent: its likelihood of a step is one part of the step's reward; the
run's evaluator, whose values should lie in [0, 1], is the other. The paper's world model is the
task. Numbers are those of the authors' program for GSM8K (llm-reasoners, arXiv 2404.05221).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from treeshare.search.bounds import at_least
from treeshare.search.context import Context
from treeshare.search.graph import Node

from .mcts import highest, most_visited, prior_or_uniform, roll_out, uct_with_guess


@dataclass(frozen=True)
class RAP:
    """Follow the children of highest UCT to the end of a path, expanding on the way and valuing
    all the children; back up to each step the mean reward from it on.

    A step's Q is the largest mean that came back, or its own reward before any did. A new node's
    children differ in reward only, so the paper's simulation phase, which takes the child of
    highest reward, is the selection gone on. A dead end's own reward counts 0.

    With `parallel`, a child on whose first visit nothing came back yet has Q = 0.

    Returns the terminal nodes by the mean reward of their whole path; without any, the end of the
    most visited path. The nodes' `value_sum` is the sum of the means backed up.

    Raises:
        ValueError: a number is out of its bounds.
    """

    simulations: int = 10
    parallel: int = 1  # simulations in flight together
    samples: int = 4  # for each expansion
    alpha: float = 0.5  # weight of the step's likelihood in its reward, against its value's
    c: float = 1.0  # w, weight of the exploration term
    depth: int = 5  # steps below the root

    def __post_init__(self) -> None:
        at_least(
            1,
            simulations=self.simulations,
            parallel=self.parallel,
            samples=self.samples,
            depth=self.depth,
        )
        at_least(0, alpha=self.alpha, c=self.c)
        if self.alpha > 1:
            raise ValueError(f"alpha={self.alpha!r} must be at most 1")

    async def search(self, ctx: Context) -> list[Node]:
        dead_ends: set[Node] = set()
        best: dict[Node, float] = {}  # the largest mean reward that came back to a step

        def score(child: Node) -> float:
            guess = 0.0 if child.visits else reward(child, self.alpha)
            parent_visits = child.parents[0].visits
            return uct_with_guess(best.get(child, guess), child.visits, parent_visits, self.c)

        try:
            for begun in range(0, self.simulations, self.parallel):
                paths = await roll_out(
                    ctx,
                    min(self.parallel, self.simulations - begun),
                    lambda parent: highest(parent.children, score),
                    lambda leaf: ctx.expand(leaf, self.samples),
                    self.depth,
                    dead_ends,
                )
                for path in paths:
                    rewards = [reward(step, self.alpha) for step in path[1:]]
                    if rewards and path[-1] in dead_ends:  # the root may be one, without a reward
                        rewards[-1] = 0.0
                    means = means_to_go(rewards)
                    for step, mean in zip(path[1:], means, strict=True):
                        best[step] = max(best.get(step, -math.inf), mean)
                        step.value_sum += mean
                    ctx.root.value_sum += means[0] if means else 0.0
        finally:
            ctx.best = self._rank(ctx)
        return ctx.best

    def _rank(self, ctx: Context) -> list[Node]:
        def mean_reward(node: Node) -> float:
            steps = node.path[1:]
            if not steps or any(step.value is None for step in steps):
                return -math.inf
            return means_to_go([reward(step, self.alpha) for step in steps])[0]

        finished = [node for node in ctx.graph if node.is_terminal]
        return sorted(finished, key=mean_reward, reverse=True) or [most_visited(ctx.root)]


def reward(step: Node, alpha: float) -> float:
    """r = p^α · v^(1-α), where p is the step's prior among its siblings and v its value, at
    least 0 (section 3.2; α and the form of the product are llm-reasoners')."""
    assert step.value is not None
    return math.pow(prior_or_uniform(step), alpha) * math.pow(max(0.0, step.value), 1 - alpha)


def means_to_go(rewards: Sequence[float]) -> list[float]:
    """For each step the mean of its reward and all later ones: (r_t + ... + r_T) / (T - t + 1)."""
    means, total = [], 0.0
    for count, value in enumerate(reversed(rewards), 1):
        total += value
        means.append(total / count)
    return means[::-1]
