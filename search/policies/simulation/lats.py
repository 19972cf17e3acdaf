"""LATS, Language Agent Tree Search (Zhou et al., arXiv 2310.04406, section 4): Monte-Carlo tree
search that puts what the model says of its failed attempts into the prompts that follow.

Whether an attempt failed is the evaluator's verdict, never the verifier's: the authors' programs
ask the environment, which here would leak the answers. The paper's observations are the task's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from treeshare.search import checks
from treeshare.search.bounds import at_least
from treeshare.search.context import Context
from treeshare.search.graph import Node
from treeshare.tasks.task import HasReflections, State

from .mcts import backup, highest, prior_or_uniform, roll_out, uct_with_guess


@dataclass(frozen=True)
class LATS:
    """Follow the children of highest UCT to the end of a path, expanding on the way and valuing
    all the children; back up the end's value. A step not visited stands at `first_guess`.

    A path that ends in a terminal node valued above `threshold` is a success and ends the search.
    Any other is a failure: the model reflects on it once (role `reflect`), and nodes expanded
    from then on, with all below them, show the reflections in their prompts. A dead end has the
    value 0; neither it nor a path cut at `depth` is reflected on.

    Raises:
        ValueError: a number is out of its bounds.
    """

    simulations: int = 30
    parallel: int = 1  # simulations in flight together
    samples: int = 5  # n, for each expansion
    c: float = 1.0  # w, weight of the exploration term
    lam: float = 0.5  # λ, weight of the value in a first guess, against self-consistency
    threshold: float = 0.5  # of success, on the evaluator's scale
    reflections: int = 3  # made in all; 0 is plain tree search
    depth: int = 7  # steps below the root

    needs: ClassVar[type] = HasReflections

    def __post_init__(self) -> None:
        at_least(
            1,
            simulations=self.simulations,
            parallel=self.parallel,
            samples=self.samples,
            depth=self.depth,
        )
        at_least(0, c=self.c, lam=self.lam, reflections=self.reflections)
        if self.lam > 1:
            raise ValueError(f"lam={self.lam!r} must be at most 1")

    async def search(self, ctx: Context) -> Sequence[Node]:
        dead_ends: set[Node] = set()
        reflected: dict[State, str | None] = {}  # failed states; None where the reply was empty

        def score(child: Node) -> float:
            parent_visits = child.parents[0].visits
            mean = child.value_sum / child.visits if child.visits else first_guess(child, self.lam)
            return uct_with_guess(mean, child.visits, parent_visits, self.c)

        for begun in range(0, self.simulations, self.parallel):
            paths = await roll_out(
                ctx,
                min(self.parallel, self.simulations - begun),
                lambda parent: highest(parent.children, score),
                lambda leaf: self._expand(ctx, leaf, list(filter(None, reflected.values()))),
                self.depth,
                dead_ends,
            )
            alive = [path[-1] for path in paths if path[-1] not in dead_ends]
            values = dict(zip(alive, await ctx.evaluate(alive), strict=True))
            for path in paths:
                backup(path, values.get(path[-1], 0.0))
            finished = [end for end in values if end.is_terminal]
            if any(values[end] > self.threshold for end in finished):
                break
            new = {end.state: end for end in finished if end.state not in reflected}
            failures = list(new.values())[: self.reflections - len(reflected)]
            texts = await ctx.gather(*(self._reflect(ctx, end) for end in failures))
            reflected.update(zip((end.state for end in failures), texts, strict=True))
        return ctx.ranked()

    async def _expand(self, ctx: Context, leaf: Node, reflections: Sequence[str]) -> list[Node]:
        if reflections:
            assert isinstance(ctx.task, HasReflections)
            state = ctx.task.with_reflections(leaf.state, reflections)
            checks.hashable(state, f"what {type(ctx.task).__name__}.with_reflections returned")
            leaf.state = state
        return await ctx.expand(leaf, self.samples)

    async def _reflect(self, ctx: Context, end: Node) -> str | None:
        (reply,) = await ctx.generate(end, "reflect")
        return " ".join(reply.text.split()) or None


def first_guess(step: Node, lam: float) -> float:
    """V = λ·LM + (1-λ)·SC, where LM is the step's value and SC its self-consistency: the share of
    the samples that gave it, which is its prior (section 4.1, evaluation)."""
    assert step.value is not None
    return lam * step.value + (1 - lam) * prior_or_uniform(step)
