"""Particle filtering (Puri et al., "Rollout roulette: a probabilistic inference approach to
inference-time scaling of LLMs", arXiv 2502.01618, section 3; their program is `its_hub`).

A state-space model whose transitions are the model's steps and whose observation is that the step
is right; the run's evaluator stands where the paper has a process reward model. Sequential Monte
Carlo draws from its posterior, where beam search follows the reward's maxima.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from treeshare.search.bounds import at_least, one_of
from treeshare.search.context import Context, value_or_least
from treeshare.search.expanders import softmax
from treeshare.search.graph import Node

from .aggregation import ANSWER_RULES, AnswerRule, rank_answers, rank_finished


@dataclass(frozen=True)
class ParticleFilter:
    """Move every open particle one step on, weigh all by value, resample, until all are finished.

    Particles at one node are moved together, by one request. Where they go is drawn from the
    priors of the children: with the expander `sample` one to each sample, and with `choose` by the
    model's probabilities. A particle whose node has no children is dropped. A finished
    one moves no more, but keeps its weight and is resampled with the others (the authors'
    `--resample-inactive`), unless `resample_finished` is off.

    Returns one terminal node for each answer of the particles at the end, by the rule `answers`;
    a node counts as often as it holds particles. Without any, the terminal nodes that were lost
    on the way, and else the deepest nodes by value.

    Raises:
        ValueError: a number is below its bound, or a name is none of its names.
    """

    particles: int = 4  # the paper uses 1 to 128
    temperature: float = 1.0  # of the weights
    values: Literal["probability", "logit"] = "probability"  # what the evaluator gives
    resampling: Literal["multinomial", "systematic"] = "multinomial"
    resample_finished: bool = True
    depth: int = 40  # steps
    answers: AnswerRule = "best"

    def __post_init__(self) -> None:
        at_least(1, particles=self.particles, depth=self.depth)
        at_least(1e-6, temperature=self.temperature)
        one_of(("probability", "logit"), values=self.values)
        one_of(RESAMPLING, resampling=self.resampling)
        one_of(ANSWER_RULES, answers=self.answers)

    async def search(self, ctx: Context) -> list[Node]:
        particles = [ctx.root] * self.particles
        try:
            for step in range(self.depth):
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
        """Where the particles are a step later; the finished ones first."""
        moved = [node for node in particles if not ctx.can_expand(node)]
        crowds = Counter(node for node in particles if ctx.can_expand(node))
        broods = await ctx.gather(*(ctx.expand(node, n) for node, n in crowds.items()))
        for n, children in zip(crowds.values(), broods, strict=True):
            if children:
                priors = [1.0 if child.prior is None else child.prior for child in children]
                moved += [children[i] for i in systematic(priors, n, draw)]
        return moved

    def _resample(self, ctx: Context, particles: Sequence[Node], draw: Random) -> list[Node]:
        """As many particles as at the start, drawn by weight."""
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
    """ln(p / (1 - p)), with p kept within 1e-7 of [0, 1]'s inside; softmax of it is the weight

    w_i ∝ (p_i / (1 - p_i))^(1/T).
    """
    p = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(p / (1 - p))


def multinomial(weights: Sequence[float], n: int, draw: Random) -> list[int]:
    """n independent draws of an index, P(i) = w_i / Σ w, in rising order."""
    return sorted(draw.choices(range(len(weights)), weights, k=n))


def systematic(weights: Sequence[float], n: int, draw: Random) -> list[int]:
    """n indices, i either ⌊n·w_i / Σ w⌋ or ⌈n·w_i / Σ w⌉ times, in rising order.

    The k-th is the i whose interval of the cumulated weights, scaled to [0, n), holds k + u, with
    one u ~ U[0, 1) for all (Carpenter, Clifford & Fearnhead, 1999). Weights that are all 0 count
    alike.
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
    return indices + [len(weights) - 1] * (n - len(indices))  # what rounding left


RESAMPLING = {"multinomial": multinomial, "systematic": systematic}
