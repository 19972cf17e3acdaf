"""Gumbel MCTS (Danihelka et al., "Policy improvement by planning with Gumbel", ICLR 2022): a search
that improves on the model's own choice of a first step even with few simulations.

At the root, sequential halving over the steps that Gumbel noise puts first (section 3, and Karnin
et al., "Almost optimal exploration in multi-armed bandits", 2013); below it, visits follow the
improved policy (section 5). Logits are log-priors, Q is the mean of the values backed up, and the
run's evaluator values each new node, and the root once. The rules are those of mctx's
`gumbel_muzero_policy`, which the tests compare it with.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from treeshare.search.bounds import at_least
from treeshare.search.context import Context, value_or_least
from treeshare.search.expanders import softmax
from treeshare.search.graph import Node

from .mcts import most_visited, prior_or_uniform, rank, simulate


@dataclass(frozen=True)
class GumbelMCTS:
    """Spread the simulations over the root's steps by sequential halving; the winner is the most
    visited step, ties by noise, logit and Q.

    A simulation is `MCTS`'s but for the choice of the child. `parallel` lets candidates of one
    sweep be evaluated together: they are different steps of the root, so nothing below it changes.
    The sweep's members are chosen by the values from before the batch; one at a time, the scale of
    σ grows within a sweep, which only tells where the scores nearly tie.

    Returns the terminal nodes visited, those below the winner first, by value, then visits;
    without any, the end of the winner's most visited path.

    Raises:
        ValueError: a number is below its bound.
    """

    simulations: int = 50
    parallel: int = 1  # simulations in flight together
    samples: int = 1  # for each expansion
    considered: int = 16  # m, most steps of the root that are tried
    noise: float = 1.0  # scale of the Gumbel noise; 0 takes the steps of highest prior
    c_visit: float = 50.0
    c_scale: float = 1.0  # for Q in [0, 1]
    rescale: bool = False  # Q to [0, 1] at each node; mctx does, and has a c_scale of 0.1
    depth: int | None = None  # steps below the root; None is no limit

    def __post_init__(self) -> None:
        at_least(
            1,
            simulations=self.simulations,
            parallel=self.parallel,
            samples=self.samples,
            considered=self.considered,
            depth=self.depth,
        )
        at_least(0, noise=self.noise, c_visit=self.c_visit, c_scale=self.c_scale)

    async def search(self, ctx: Context) -> list[Node]:
        noise: dict[Node, float] = {}  # of the root's steps
        try:
            await ctx.gather(ctx.expand(ctx.root, self.samples), ctx.evaluate([ctx.root]))
            steps = ctx.root.children
            draws = gumbel_noise(ctx, len(steps))
            noise.update((step, self.noise * g) for step, g in zip(steps, draws, strict=True))
            dead_ends: set[Node] = set()
            visits = considered_visits(min(self.considered, len(steps)), self.simulations)
            for count, sweep in groupby(visits):
                size = len(list(sweep))
                for begun in range(0, size, self.parallel):
                    together = min(self.parallel, size - begun)
                    await self._simulate(ctx, together, count, noise, dead_ends)
        finally:
            ctx.best = self._rank(ctx, noise)
        return ctx.best

    async def _simulate(
        self, ctx: Context, count: int, visits: int, noise: dict[Node, float], dead_ends: set[Node]
    ) -> None:
        """Simulate the `count` best of the root's steps that have so many visits."""
        scores = self._scores(ctx.root, noise)

        def pick(parent: Node) -> Node:
            if parent is ctx.root:
                return max(
                    (n for n in parent.children if n.visits == visits), key=scores.__getitem__
                )
            return self._pick_below(parent)

        await simulate(ctx, count, pick, self.samples, self.depth, dead_ends)

    def _pick_below(self, parent: Node) -> Node:
        """argmax of π'(a) - n(a) / (1 + Σ_b n(b)), where π' = softmax(logit + σ(q)) is the improved
        policy (section 5); ties go to the earlier child."""
        logits = [
            logit(child) + value
            for child, value in zip(parent.children, self._transformed(parent), strict=True)
        ]
        total = 1 + sum(child.visits for child in parent.children)
        policy = softmax(logits)
        lead = [p - n.visits / total for p, n in zip(policy, parent.children, strict=True)]
        return parent.children[lead.index(max(lead))]

    def _scores(self, root: Node, noise: dict[Node, float]) -> dict[Node, float]:
        """g(a) + logit(a) + σ(q(a)) of the root's steps (section 3.3)."""
        return {
            step: noise[step] + logit(step) + value
            for step, value in zip(root.children, self._transformed(root), strict=True)
        }

    def _transformed(self, parent: Node) -> list[float]:
        """σ(q) = (c_visit + max_b n(b)) · c_scale · q of each child (section 3), its Q completed
        and, with `rescale`, (q - min q) / (max q - min q)."""
        values = completed_values(parent)
        if self.rescale:
            least, spread = min(values), max(values) - min(values)
            values = [(value - least) / max(spread, 1e-8) for value in values]
        scale = (self.c_visit + max(child.visits for child in parent.children)) * self.c_scale
        return [scale * value for value in values]

    def _rank(self, ctx: Context, noise: dict[Node, float]) -> list[Node]:
        if not any(step.visits for step in noise):
            return rank(ctx)
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


def considered_visits(considered: int, simulations: int) -> list[int]:
    """For each simulation, the visits that the root's step it takes has so far.

    Sequential halving: each of ⌈log2 m⌉ phases has an equal share of the n simulations; a phase
    sweeps over its steps max(1, ⌊n / (⌈log2 m⌉ · steps)⌋) times, then half of them, at least 2, go
    on, the last two until the simulations are spent.
    """
    if considered <= 1:
        return list(range(simulations * considered))
    phases = math.ceil(math.log2(considered))
    visits: list[int] = []
    steps, sweep = considered, 0
    while len(visits) < simulations:
        for _ in range(max(1, simulations // (phases * steps))):
            visits += [sweep] * steps
            sweep += 1
        steps = max(2, steps // 2)
    return visits[:simulations]


def completed_values(parent: Node) -> list[float]:
    """Q of each child; for those not visited, the parent's value as far as it is known,
    v_mix = (v + Σ_b n(b) · Σ_visited π(a)·q(a) / Σ_visited π(a)) / (1 + Σ_b n(b)) (appendix D).
    """
    assert parent.value is not None
    visited = [child for child in parent.children if child.visits]
    mixed = parent.value
    if visited:
        count = sum(child.visits for child in visited)
        weights = [max(sys.float_info.min, prior_or_uniform(child)) for child in visited]
        weighted = sum(w * mean(child) for w, child in zip(weights, visited, strict=True))
        mixed = (parent.value + count * weighted / sum(weights)) / (1 + count)
    return [mean(child) if child.visits else mixed for child in parent.children]


def mean(node: Node) -> float:
    return node.value_sum / node.visits


def logit(step: Node) -> float:
    return math.log(max(sys.float_info.min, prior_or_uniform(step)))


def gumbel_noise(ctx: Context, count: int) -> Sequence[float]:
    """Draws of the Gumbel distribution: -ln(-ln u), with u uniform on (0, 1)."""
    random = ctx.random("gumbel")
    return [-math.log(-math.log(max(sys.float_info.min, random.random()))) for _ in range(count)]
