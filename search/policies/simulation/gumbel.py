"""Gumbel MCTS (Danihelka et al., "Policy improvement by planning with Gumbel", ICLR 2022).

It improves on the model's own choice of a first step even with few simulations. At the root, it is
sequential halving (Karnin et al., "Almost optimal exploration in multi-armed bandits", 2013) over
the steps with the highest logit plus Gumbel noise. Below the root, visits follow the improved
policy. Logits are log-priors, Q is the mean of the values backed up, and the run's evaluator gives
the value of each new node, and of the root. The rules are those of mctx's `gumbel_muzero_policy`,
to which the tests compare it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from treeshare.search.bounds import check_numbers
from treeshare.search.context import Context, value_or_least
from treeshare.search.expanders import softmax
from treeshare.search.graph import Node

from .tree_operations import batches, most_visited, prior_or_uniform, rank_visited, simulate


@dataclass(frozen=True)
class GumbelMCTS:
    """Divide the simulations among the root's steps by sequential halving.

    The winner is the most visited step; ties go to the higher sum of noise, logit and σ(Q). A
    simulation is that of `MCTS`, except for the choice of the child.

    The candidates of one sweep that run in one batch are different steps of the root, so a
    larger `batch_size` changes nothing below them. But the members of the batch are chosen by the
    values from before it, while one at a time the scale of σ grows within a sweep. This matters
    only where scores are nearly equal.

    Returns the terminal nodes visited, those below the winner first, by value, then visits;
    without any, the end of the winner's most visited path.

    Args:
        num_simulations: how many simulations to run.
        batch_size: simulations that run together, at most.
        num_samples: samples of each expansion; None takes the expander's.
        max_num_considered_actions: m, the most steps of the root that are tried.
        gumbel_scale: scale of the Gumbel noise; 0 takes the steps of highest prior.
        maxvisit_init: c_visit, which is added to the largest number of visits in σ.
        value_scale: c_scale, the factor of Q in σ. 1 suits values in [0, 1].
        rescale: whether to rescale Q to [0, 1] at each node. mctx does, with a value_scale of 0.1.
        depth: steps below the root; None takes the task's (`ctx.depth`).

    Raises:
        ValueError: a number is below its bound.
    """

    num_simulations: int = 50
    batch_size: int = 1
    num_samples: int | None = None
    max_num_considered_actions: int = 16
    gumbel_scale: float = 1.0
    maxvisit_init: float = 50.0
    value_scale: float = 1.0
    rescale: bool = False
    depth: int | None = None

    paper: ClassVar[str] = "Danihelka et al., 2022 (ICLR)"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "one node a simulation, the root"
    together: ClassVar[str] = "`batch_size` simulations"
    max_requests: ClassVar[str | None] = "1 + num_simulations"

    def __post_init__(self) -> None:
        check_numbers(
            self,
            num_simulations=1,
            batch_size=1,
            num_samples=1,
            max_num_considered_actions=1,
            depth=1,
            gumbel_scale=0,
            maxvisit_init=0,
            value_scale=0,
        )

    async def search(self, ctx: Context) -> list[Node]:
        """Run the simulations and rank the terminal nodes."""
        noise: dict[Node, float] = {}  # of the root's steps
        try:
            await ctx.gather(ctx.expand(ctx.root, self.num_samples), ctx.evaluate([ctx.root]))
            steps = ctx.root.children
            draws = gumbel_noise(ctx, len(steps))
            noise.update((s, self.gumbel_scale * g) for s, g in zip(steps, draws, strict=True))
            dead_ends: set[Node] = set()
            num_considered = min(self.max_num_considered_actions, len(steps))
            for visits, sweep in groupby(considered_visits(num_considered, self.num_simulations)):
                for batch in batches(len(list(sweep)), self.batch_size):
                    await self._simulate(ctx, len(batch), visits, noise, dead_ends)
        finally:
            ctx.best = self._rank(ctx, noise)
        return ctx.best

    async def _simulate(
        self,
        ctx: Context,
        count: int,
        visits: int,
        noise: Mapping[Node, float],
        dead_ends: set[Node],
    ) -> None:
        """Simulate the `count` best steps of the root among those with that number of visits."""
        scores = self._scores(ctx.root, noise)

        def pick(parent: Node) -> Node:
            if parent is ctx.root:
                return max(
                    (n for n in parent.children if n.visits == visits), key=scores.__getitem__
                )
            return improved_choice(parent, self.transformed_values(parent))

        await simulate(ctx, count, pick, self.num_samples, self.depth or ctx.depth, dead_ends)

    def transformed_values(self, parent: Node) -> list[float]:
        """Return σ(q) = (c_visit + max_b n(b)) · c_scale · q for each child.

        q is the completed Q (`completed_values`); with `rescale`, (q - min q) / (max q - min q).
        """
        values = completed_values(parent)
        if self.rescale:
            least, spread = min(values), max(values) - min(values)
            values = [(value - least) / max(spread, 1e-8) for value in values]
        most_visits = max(child.visits for child in parent.children)
        scale = (self.maxvisit_init + most_visits) * self.value_scale
        return [scale * value for value in values]

    def _scores(self, root: Node, noise: Mapping[Node, float]) -> dict[Node, float]:
        """Return g(a) + logit(a) + σ(q(a)) for each step of the root."""
        return {
            step: noise[step] + logit(step) + value
            for step, value in zip(root.children, self.transformed_values(root), strict=True)
        }

    def _rank(self, ctx: Context, noise: Mapping[Node, float]) -> list[Node]:
        if not any(step.visits for step in noise):
            return rank_visited(ctx)
        scores = self._scores(ctx.root, noise)
        winner = max(ctx.root.children, key=lambda step: (step.visits, scores[step]))
        finished = [node for node in ctx.graph if node.is_terminal and node.visits]
        if not finished:
            return [most_visited(winner)]
        return sorted(
            finished,
            key=lambda node: (node.path[1] is winner, value_or_least(node), node.visits),
            reverse=True,
        )


def improved_choice(parent: Node, transformed: Sequence[float]) -> Node:
    """Return the child with the largest π'(a) - n(a) / (1 + Σ_b n(b)).

    π' = softmax(logit + σ(q)) is the improved policy. Ties go to the earlier child.

    Args:
        parent: a node with children.
        transformed: σ(q) of each child.
    """
    children = parent.children
    logits = [logit(child) + value for child, value in zip(children, transformed, strict=True)]
    total = 1 + sum(child.visits for child in children)
    policy = softmax(logits)
    lead = [p - child.visits / total for p, child in zip(policy, children, strict=True)]
    return children[lead.index(max(lead))]


def considered_visits(num_considered: int, num_simulations: int) -> list[int]:
    """Return for each simulation how many visits the root's step that it takes has so far.

    Sequential halving: each of ⌈log2 m⌉ phases has an equal share of the n simulations. A phase
    sweeps over its steps max(1, ⌊n / (⌈log2 m⌉ · steps)⌋) times. Then half of the steps, at least
    2, go on, and the last two until the simulations are used up.

    Args:
        num_considered: m, the steps that the first sweep tries.
        num_simulations: n.

    Returns:
        `num_simulations` numbers; none if there are no steps.
    """
    if num_considered <= 1:
        return list(range(num_simulations * num_considered))
    phases = math.ceil(math.log2(num_considered))
    visits: list[int] = []
    steps, sweep = num_considered, 0
    while len(visits) < num_simulations:
        for _ in range(max(1, num_simulations // (phases * steps))):
            visits += [sweep] * steps
            sweep += 1
        steps = max(2, steps // 2)
    return visits[:num_simulations]


def completed_values(parent: Node) -> list[float]:
    """Return the Q of each child; an unvisited child has the mixed value of its parent.

    v_mix = (v + Σ_b n(b) · Σ_visited π(a)·q(a) / Σ_visited π(a)) / (1 + Σ_b n(b)), where v is the
    parent's value, π(a) is a child's prior, and n(b) are the visits of a child.

    Args:
        parent: a node that has a value and children.
    """
    assert parent.value is not None
    visited = [child for child in parent.children if child.visits]
    mixed = parent.value
    if visited:
        count = sum(child.visits for child in visited)
        weights = [max(sys.float_info.min, prior_or_uniform(child)) for child in visited]
        weighted = sum(w * mean_value(child) for w, child in zip(weights, visited, strict=True))
        mixed = (parent.value + count * weighted / sum(weights)) / (1 + count)
    return [mean_value(child) if child.visits else mixed for child in parent.children]


def mean_value(node: Node) -> float:
    """Return the mean of the values backed up through a visited node."""
    return node.value_sum / node.visits


def logit(step: Node) -> float:
    """Return the logarithm of the step's prior, kept finite."""
    return math.log(max(sys.float_info.min, prior_or_uniform(step)))


def gumbel_noise(ctx: Context, count: int) -> Sequence[float]:
    """Return `count` draws of the Gumbel distribution: -ln(-ln u), with u uniform on (0, 1)."""
    random = ctx.random("gumbel")
    return [-math.log(-math.log(max(sys.float_info.min, random.random()))) for _ in range(count)]
