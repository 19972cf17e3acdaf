"""AB-MCTS, adaptive-branching Monte-Carlo tree search (Inoue et al., arXiv 2503.04412).

This is AB-MCTS-A with node aggregation; the authors' program is `treequest`, class `ABMCTSA`. At
each node on the way down, Thompson sampling decides whether to go wider (GEN: draw a new child) or
deeper (CONT: go to one of the children, and to which). GEN, CONT and each child have a posterior of
their own; the run's evaluator gives the scores. There is one model here, so the authors' choice
among models is left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from random import Random
from typing import ClassVar, Literal

from treeshare.search.bounds import check_numbers, one_of
from treeshare.search.checks import short
from treeshare.search.context import Context, flatten
from treeshare.search.graph import Node

from .tree_operations import batches


@dataclass(frozen=True)
class ABMCTS:
    """Walk down to the node that Thompson sampling widens, draw a child, back its score up.

    It needs an expander that samples (`sample`, `propose`), so that the next call gives other
    children. With `choose` all children come at once, and GEN is used up after the first call. An
    expansion that gives no new child is not an observation; after `patience` of them in a row GEN
    is used up too. A node is not visited again once neither it nor any descendant can have more
    children. The search ends when that is so for the root, or after `num_simulations`.

    In a batch of several, each simulation counts as a score of 0 until its own is known, so that
    the next one goes elsewhere. (The authors' program draws them all from the same posteriors.)
    Simulations that meet at a node share one request.

    Returns the terminal nodes by value; without any, the deepest.

    Args:
        num_simulations: how many children to draw.
        batch_size: simulations that run together.
        posterior: `gaussian`, or `beta` for values in [0, 1].
        patience: expansions of a node in a row without a new child that end its widening.
        depth: steps below the root; None takes the task's (`ctx.depth`).

    Raises:
        ValueError: a number is below 1, or `posterior` is not one of the two; during a search with
            `beta`, a value is not in [0, 1].
    """

    num_simulations: int = 128
    batch_size: int = 1
    posterior: Literal["gaussian", "beta"] = "gaussian"
    patience: int = 3
    depth: int | None = None

    paper: ClassVar[str] = "Inoue et al., 2503.04412"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "all children"
    together: ClassVar[str] = "`batch_size` simulations"
    max_requests: ClassVar[str | None] = "num_simulations"

    def __post_init__(self) -> None:
        check_numbers(self, num_simulations=1, batch_size=1, patience=1, depth=1)
        one_of(DRAWS, posterior=self.posterior)

    async def search(self, ctx: Context) -> list[Node]:
        """Run the simulations and rank the terminal nodes."""
        beliefs: dict[Node, Belief] = {}
        self._add_belief(ctx, beliefs, ctx.root)
        for batch in batches(self.num_simulations, self.batch_size):
            if beliefs[ctx.root].is_closed:
                break
            await self._simulate(ctx, beliefs, batch)
        return ctx.ranked()

    async def _simulate(
        self, ctx: Context, beliefs: dict[Node, Belief], indices: Sequence[int]
    ) -> None:
        """Run the simulations of one batch; those that meet at a node share its expansion."""
        pending: Counter[Node] = Counter()
        for index in indices:
            draw = partial(DRAWS[self.posterior], ctx.random("ab_mcts", index))
            node = node_to_widen(ctx.root, beliefs, draw)
            pending[node] += 1
            for arm in arms(node, beliefs):
                arm.count += 1
        families = await ctx.gather(*(ctx.expand(node, n) for node, n in pending.items()))
        children = flatten(families)
        value_of = dict(zip(children, await ctx.evaluate(children), strict=True))
        if self.posterior == "beta":
            check_probabilities(value_of)
        for (node, n), family in zip(pending.items(), families, strict=True):
            scores = [value_of[child] for child in family]
            for arm in arms(node, beliefs):
                arm.count -= n
                arm.observe(scores)
            for above in node.path:
                above.visits += len(scores)
                above.value_sum += sum(scores)
            for child in family:
                child.visits, child.value_sum = 1, value_of[child]
                self._add_belief(ctx, beliefs, child)
            beliefs[node].failed_expansions = 0 if family else beliefs[node].failed_expansions + 1
            if ctx.expands_once or beliefs[node].failed_expansions >= self.patience:
                exhaust(node, beliefs)

    def _add_belief(self, ctx: Context, beliefs: dict[Node, Belief], node: Node) -> None:
        beliefs[node] = Belief()
        if node.value is not None:
            beliefs[node].child.observe([node.value])
        if not ctx.can_expand(node) or node.depth == (self.depth or ctx.depth):
            exhaust(node, beliefs)


@dataclass
class Arm:
    """The scores observed after one choice.

    `count` includes the simulations in flight, each of which counts as a score of 0.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def observe(self, scores: Sequence[float]) -> None:
        """Add scores."""
        self.count += len(scores)
        self.total += sum(scores)
        self.squares += sum(score * score for score in scores)


@dataclass
class Belief:
    """The observations that decide how a search goes on at one node."""

    gen: Arm = field(default_factory=Arm)  # scores of its children when they were new
    cont: Arm = field(default_factory=Arm)  # scores of its later descendants
    child: Arm = field(default_factory=Arm)  # its own score and those of all its descendants
    failed_expansions: int = 0  # the last ones, in a row, that gave no new child
    is_exhausted: bool = False  # whether it may have no more children
    is_closed: bool = False  # whether that is so for all its descendants too


def node_to_widen(root: Node, beliefs: dict[Node, Belief], draw: Callable[[Arm], float]) -> Node:
    """Return the first node on the way down where GEN's draw is not below CONT's.

    A node without an open child is widened without a draw. Otherwise the way goes on to the open
    child of highest draw.

    Args:
        root: where to begin; it must not be closed.
        beliefs: one for each node.
        draw: draws from an arm's posterior.
    """
    node = root
    while True:
        belief = beliefs[node]
        children = [child for child in node.children if not beliefs[child].is_closed]
        if not belief.is_exhausted and (not children or draw(belief.gen) >= draw(belief.cont)):
            return node
        node = max(children, key=lambda child: draw(beliefs[child].child))


def arms(node: Node, beliefs: dict[Node, Belief]) -> list[Arm]:
    """Return the arms that observe the score of a new child of `node`.

    They are GEN at `node`, and at every step of the way there CONT and the child taken.
    """
    observing = [beliefs[node].gen]
    for parent, child in pairwise(node.path):
        observing += [beliefs[parent].cont, beliefs[child].child]
    return observing


def exhaust(node: Node, beliefs: dict[Node, Belief]) -> None:
    """Stop widening `node`; close it and the nodes above it where nothing is left to widen."""
    beliefs[node].is_exhausted = True
    above: Node | None = node
    while above is not None and beliefs[above].is_exhausted:
        if not all(child in beliefs and beliefs[child].is_closed for child in above.children):
            return
        beliefs[above].is_closed = True
        above = above.parent


def gaussian_posterior(
    arm: Arm, m: float = 0.0, kappa: float = 1.0, nu: float = 1.0, tau2: float = 0.1
) -> tuple[float, float, float, float]:
    """Return m, κ, ν and τ² of the normal-inverse-χ² posterior; the prior is the authors'.

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
    """Draw μ ~ N(m, σ² / κ), where σ² ~ ν·τ² / χ²(ν)."""
    m, kappa, nu, tau2 = gaussian_posterior(arm)
    variance = nu * tau2 / (2 * draw.gammavariate(nu / 2, 1.0))
    return draw.gauss(m, math.sqrt(variance / kappa))


def beta_posterior(arm: Arm, a: float = 0.5, b: float = 0.5) -> tuple[float, float]:
    """Return a + Σr and b + Σ(1 - r) for scores r in [0, 1]; the prior is Jeffreys'."""
    return a + arm.total, b + arm.count - arm.total


def draw_beta(draw: Random, arm: Arm) -> float:
    """Draw μ ~ Beta(a, b)."""
    return draw.betavariate(*beta_posterior(arm))


def check_probabilities(value_of: Mapping[Node, float]) -> None:
    """Check that values suit a beta posterior.

    Raises:
        ValueError: a value is not in [0, 1].
    """
    for node, value in value_of.items():
        if not 0 <= value <= 1:
            raise ValueError(
                f"posterior='beta' needs values in [0, 1], and {short(node)} has {value!r}: choose "
                "another evaluator"
            )


DRAWS: dict[str, Callable[[Random, Arm], float]] = {"gaussian": draw_gaussian, "beta": draw_beta}
