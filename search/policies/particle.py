"""Particle filtering (Puri et al., "Rollout roulette", arXiv 2502.01618).

The authors' program is `its_hub`. Reasoning is a state-space model: its transitions are the model's
steps, and its observation is that a step is right. Sequential Monte Carlo draws from the posterior,
while beam search follows the maxima of the reward. The run's evaluator takes the place of the
paper's process reward model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

from treeshare.search.aggregation import ANSWER_RULES, AnswerRule, rank_answers, rank_finished
from treeshare.search.bounds import check_numbers, one_of
from treeshare.search.context import Context, value_or_least
from treeshare.search.expanders import softmax
from treeshare.search.graph import Node


@dataclass(frozen=True)
class ParticleFilter:
    """Move every open particle one step, weight all by value, resample, until all are finished.

    The particles at one node are moved together, by one request, to children drawn by their priors:
    with the expander `sample` one particle to each sample, with `choose` by the model's
    probabilities. A particle whose node has no children is dropped. A finished particle does not
    move, but keeps its weight and is resampled with the others (the authors'
    `--resample-inactive`), unless `resample_finished` is false.

    Returns one terminal node for each answer of the particles at the end, by the rule `answers`;
    a node counts once for each particle on it. Without any, it returns the terminal nodes that
    resampling dropped, and without those the deepest nodes by value.

    Args:
        particles: how many particles; the paper uses 1 to 128.
        temperature: T of the weights.
        values: the evaluator's scale: a `probability` in [0, 1], or a `logit`.
        resampling: `multinomial` or `systematic`.
        resample_finished: whether finished particles are resampled too.
        depth: steps below the root; None takes the task's (`ctx.depth`).
        answers: how the answers are ranked.

    Raises:
        ValueError: a number is below its bound, or a name is not a known one.
    """

    particles: int = 4
    temperature: float = 1.0
    values: Literal["probability", "logit"] = "probability"
    resampling: Literal["multinomial", "systematic"] = "multinomial"
    resample_finished: bool = True
    depth: int | None = None
    answers: AnswerRule = "best"

    paper: ClassVar[str] = "Puri et al., 2502.01618"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "the particles"
    together: ClassVar[str] = "a level"
    max_requests: ClassVar[str | None] = "1 + (depth - 1) * particles"

    def __post_init__(self) -> None:
        check_numbers(self, particles=1, depth=1, temperature=1e-6)
        one_of(("probability", "logit"), values=self.values)
        one_of(RESAMPLING, resampling=self.resampling)
        one_of(ANSWER_RULES, answers=self.answers)

    async def search(self, ctx: Context) -> list[Node]:
        """Move the particles until all are finished, and rank their answers."""
        particles = [ctx.root] * self.particles
        try:
            for step in range(self.depth or ctx.depth):
                draw = ctx.random("particles", step)
                moved = await self._move(ctx, particles, draw)
                if not moved:
                    break
                await ctx.evaluate(list(dict.fromkeys(moved)))
                particles = self._resample(ctx, moved, draw)
                if not any(ctx.can_expand(node) for node in particles):
                    break
        finally:
            best = rank_answers(ctx, particles, self.answers)
            ctx.best = best or rank_finished(ctx, self.answers)
        return ctx.best

    async def _move(self, ctx: Context, particles: Sequence[Node], draw: Random) -> list[Node]:
        """Return the particles one step later; the finished ones come first."""
        moved = [node for node in particles if not ctx.can_expand(node)]
        counts = Counter(node for node in particles if ctx.can_expand(node))
        families = await ctx.gather(*(ctx.expand(node, n) for node, n in counts.items()))
        for n, children in zip(counts.values(), families, strict=True):
            if children:
                priors = [1.0 if child.prior is None else child.prior for child in children]
                moved += [children[i] for i in systematic(priors, n, draw)]
        return moved

    def _resample(self, ctx: Context, particles: Sequence[Node], draw: Random) -> list[Node]:
        """Return as many particles as at the start, drawn by weight."""
        kept = [] if self.resample_finished else [n for n in particles if not ctx.can_expand(n)]
        drawn = particles if not kept else [node for node in particles if ctx.can_expand(node)]
        if not drawn:
            return kept
        logits = [self._logit(value_or_least(node)) / self.temperature for node in drawn]
        places = RESAMPLING[self.resampling](softmax(logits), self.particles - len(kept), draw)
        return kept + [drawn[i] for i in places]

    def _logit(self, value: float) -> float:
        return logit(value) if self.values == "probability" else value


def logit(probability: float) -> float:
    """Return ln(p / (1 - p)), with p clipped to [1e-7, 1 - 1e-7].

    The softmax of logit / T is the weight w_i ∝ (p_i / (1 - p_i))^(1/T).
    """
    p = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(p / (1 - p))


def multinomial(weights: Sequence[float], n: int, draw: Random) -> list[int]:
    """Return `n` independent draws of an index with P(i) = w_i / Σ w, in rising order."""
    return sorted(draw.choices(range(len(weights)), weights, k=n))


def systematic(weights: Sequence[float], n: int, draw: Random) -> list[int]:
    """Return `n` indices, each i either ⌊n·w_i / Σ w⌋ or ⌈n·w_i / Σ w⌉ times, in rising order.

    The k-th index is the i whose interval of the cumulative weights, scaled to [0, n), contains
    k + u, with one u ~ U[0, 1) for all k (Carpenter, Clifford & Fearnhead, 1999). Weights that are
    all 0 are treated as equal.
    """
    u = draw.random()
    total = math.fsum(weights)
    if not total:
        weights, total = [1.0] * len(weights), float(len(weights))
    indices: list[int] = []
    below = 0.0
    for i, weight in enumerate(weights):
        below += weight
        while len(indices) < n and len(indices) + u < n * below / total:
            indices.append(i)
    return indices + [len(weights) - 1] * (n - len(indices))  # those that rounding left out


RESAMPLING = {"multinomial": multinomial, "systematic": systematic}
