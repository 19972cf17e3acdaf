"""Adaptive-branching Monte-Carlo tree search (Inoue et al., "Wider or deeper?", arXiv 2503.04412,
section 3: AB-MCTS-A, node aggregation; the authors' program is `treequest`, class `ABMCTSA`).

At each node, going down, Thompson sampling decides whether to go wider (GEN: draw a new child) or
deeper (CONT: to one of the children, and which). One posterior belongs to GEN, one to CONT and one
to each child; the run's evaluator gives the scores. With one model, as here, the authors' choice
among models falls away.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from random import Random
from typing import Literal

from treeshare.search.bounds import at_least, one_of
from treeshare.search.checks import short
from treeshare.search.context import Context, flatten
from treeshare.search.graph import Node


@dataclass(frozen=True)
class ABMCTS:
    """Walk down to the node that Thompson sampling widens, draw a child, back its score up.

    Wants an expander that samples (`sample`, `propose`), so that the next call gives other
    children; with `choose` all come at once, and GEN is spent after the first call. An expansion
    that gives no new child is no observation; after `patience` of them in a row GEN is spent too. A
    node that can have no more children, nor its descendants, is not visited again; the search ends
    when that is the root, or after `simulations`.

    Several simulations can be in flight: each counts as a score of 0 until its own is known, so
    that the next one goes elsewhere. (The authors' program draws them all from the same
    posteriors.) Those that meet at a node share one request.

    Returns the terminal nodes by value; without any, the deepest.

    Raises:
        ValueError: a number is below 1, or `posterior` is none of the two; in a search, a value is
            not in [0, 1] and the posterior is `beta`.
    """

    simulations: int = 128
    parallel: int = 1  # simulations in flight together
    posterior: Literal["gaussian", "beta"] = "gaussian"
    patience: int = 3  # expansions in a row without a new child
    depth: int | None = None  # steps below the root; None is no limit

    def __post_init__(self) -> None:
        at_least(
            1,
            simulations=self.simulations,
            parallel=self.parallel,
            patience=self.patience,
            depth=self.depth,
        )
        one_of(DRAWS, posterior=self.posterior)

    async def search(self, ctx: Context) -> list[Node]:
        beliefs: dict[Node, Belief] = {}
        self._meet(ctx, beliefs, ctx.root)
        for begun in range(0, self.simulations, self.parallel):
            if beliefs[ctx.root].is_closed:
                break
            indices = range(begun, min(begun + self.parallel, self.simulations))
            await self._simulate(ctx, beliefs, indices)
        return ctx.ranked()

    async def _simulate(
        self, ctx: Context, beliefs: dict[Node, Belief], indices: Sequence[int]
    ) -> None:
        """Run simulations together; those that meet at a node share its expansion."""
        pending: Counter[Node] = Counter()
        for index in indices:
            draw = partial(DRAWS[self.posterior], ctx.random("ab_mcts", index))
            node = select(ctx.root, beliefs, draw)
            pending[node] += 1
            for arm in arms(node, beliefs):
                arm.count += 1
        broods = await ctx.gather(*(ctx.expand(node, n) for node, n in pending.items()))
        children = flatten(broods)
        value_of = dict(zip(children, await ctx.evaluate(children), strict=True))
        if self.posterior == "beta":
            check_probabilities(value_of)
        for (node, n), brood in zip(pending.items(), broods, strict=True):
            scores = [value_of[child] for child in brood]
            for arm in arms(node, beliefs):
                arm.count -= n
                arm.observe(scores)
            for passed in node.path:
                passed.visits += len(scores)
                passed.value_sum += sum(scores)
            for child in brood:
                child.visits, child.value_sum = 1, value_of[child]
                self._meet(ctx, beliefs, child)
            beliefs[node].fruitless = 0 if brood else beliefs[node].fruitless + 1
            if ctx.expands_once or beliefs[node].fruitless >= self.patience:
                spend(node, beliefs)

    def _meet(self, ctx: Context, beliefs: dict[Node, Belief], node: Node) -> None:
        beliefs[node] = Belief()
        if node.value is not None:
            beliefs[node].child.observe([node.value])
        if not ctx.can_expand(node) or node.depth == self.depth:
            spend(node, beliefs)


@dataclass
class Arm:
    """The scores seen below one choice; `count` holds those in flight too, as zeros."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def observe(self, scores: Sequence[float]) -> None:
        self.count += len(scores)
        self.total += sum(scores)
        self.squares += sum(score * score for score in scores)


@dataclass
class Belief:
    """What is known of a node."""

    gen: Arm = field(default_factory=Arm)  # scores of its children when they were new
    cont: Arm = field(default_factory=Arm)  # scores of its later descendants
    child: Arm = field(default_factory=Arm)  # its own score and those of all its descendants
    fruitless: int = 0  # last expansions without a new child
    is_spent: bool = False  # not to be widened
    is_closed: bool = False  # nor any of its descendants


def select(root: Node, beliefs: dict[Node, Belief], draw: Callable[[Arm], float]) -> Node:
    """The node to widen: where GEN's draw is not below CONT's, or no child is open.

    Otherwise on to the open child of highest draw. The root must not be closed.
    """
    node = root
    while True:
        belief = beliefs[node]
        children = [child for child in node.children if not beliefs[child].is_closed]
        if not belief.is_spent and (not children or draw(belief.gen) >= draw(belief.cont)):
            return node
        node = max(children, key=lambda child: draw(beliefs[child].child))


def arms(node: Node, beliefs: dict[Node, Belief]) -> list[Arm]:
    """The arms that the score of a new child of `node` is told to: GEN there, and CONT and the
    child taken at every step of the way."""
    told = [beliefs[node].gen]
    for parent, child in pairwise(node.path):
        told += [beliefs[parent].cont, beliefs[child].child]
    return told


def spend(node: Node, beliefs: dict[Node, Belief]) -> None:
    """Widen `node` no more; close it, and those above, if that leaves nothing to widen."""
    beliefs[node].is_spent = True
    above: Node | None = node
    while above is not None and beliefs[above].is_spent:
        if not all(child in beliefs and beliefs[child].is_closed for child in above.children):
            return
        beliefs[above].is_closed = True
        above = above.parent


def gaussian_posterior(
    arm: Arm, m: float = 0.0, kappa: float = 1.0, nu: float = 1.0, tau2: float = 0.1
) -> tuple[float, float, float, float]:
    """m, κ, ν and τ² of the normal-inverse-χ² posterior; the prior's are the authors'.

    With n scores of mean r̄: κ' = κ + n, ν' = ν + n, m' = (κ·m + n·r̄) / κ',
    τ²' = (ν·τ² + Σ(r - r̄)² + (n·κ / κ')·(m - r̄)²) / ν'.
    """
    n = arm.count
    mean = arm.total / n if n else 0.0
    deviation = max(0.0, arm.squares - n * mean * mean)
    between = n * kappa / (kappa + n) * (m - mean) ** 2
    return (
        (kappa * m + arm.total) / (kappa + n),
        kappa + n,
        nu + n,
        (nu * tau2 + deviation + between) / (nu + n),
    )


def draw_gaussian(draw: Random, arm: Arm) -> float:
    """μ ~ N(m, σ² / κ), where σ² ~ ν·τ² / χ²(ν)."""
    m, kappa, nu, tau2 = gaussian_posterior(arm)
    variance = nu * tau2 / (2 * draw.gammavariate(nu / 2, 1.0))
    return draw.gauss(m, math.sqrt(variance / kappa))


def beta_posterior(arm: Arm, a: float = 0.5, b: float = 0.5) -> tuple[float, float]:
    """a + Σr and b + Σ(1 - r) for scores r in [0, 1]; the prior's are Jeffreys'."""
    return a + arm.total, b + arm.count - arm.total


def draw_beta(draw: Random, arm: Arm) -> float:
    """μ ~ Beta(a, b)"""
    return draw.betavariate(*beta_posterior(arm))


def check_probabilities(value_of: Mapping[Node, float]) -> None:
    """Refuse values that a beta posterior cannot take.

    Raises:
        ValueError: one is not in [0, 1].
    """
    for node, value in value_of.items():
        if not 0 <= value <= 1:
            raise ValueError(
                f"posterior='beta' needs values in [0, 1], and {short(node)} has {value!r}: choose "
                "another evaluator"
            )


DRAWS: dict[str, Callable[[Random, Arm], float]] = {"gaussian": draw_gaussian, "beta": draw_beta}
