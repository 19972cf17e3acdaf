"""LATS, Language Agent Tree Search (Zhou et al., arXiv 2310.04406).

It is Monte-Carlo tree search that shows the model's reflections on failed attempts in the prompts
that follow. The evaluator decides whether an attempt failed, never the verifier. The authors'
programs ask the environment, which would reveal the right answers here. The paper's observations
are part of the task's states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from treeshare.search import checks
from treeshare.search.bounds import check_numbers
from treeshare.search.context import Context
from treeshare.search.graph import Node
from treeshare.tasks.task import HasReflections, State

from .formulas import uct_with_guess
from .tree_operations import batches, evaluate_and_backup, highest, prior_or_uniform, roll_out


@dataclass(frozen=True)
class LATS:
    """Follow the children of highest UCT to the end of a path and back up the value of the end.

    Nodes on the way are expanded and all their children evaluated. A step that was not visited has
    `first_guess` as its mean.

    A path that ends in a terminal node of a value above `threshold` is a success and ends the
    search. Any other terminal node is a failure: the model reflects on it once (role `reflect`).
    Nodes that are expanded later, and all below them, show the reflections in their prompts. A dead
    end has the value 0. The model reflects neither on a dead end nor on a path cut at `depth`.

    Returns the terminal nodes by value; without any, the deepest.

    Args:
        num_simulations: how many paths to follow.
        batch_size: paths that grow together.
        num_samples: n, the samples of each expansion.
        c: w, the weight of the exploration term.
        value_weight: λ, the weight of the value in a first guess, against self-consistency.
        threshold: the value above which a terminal node is a success, on the evaluator's scale.
        reflections: the most reflections of a search; 0 is plain tree search.
        depth: steps below the root; None takes the task's (`ctx.depth`).

    Raises:
        ValueError: a number is out of its bounds.
    """

    num_simulations: int = 30
    batch_size: int = 1
    num_samples: int = 5
    c: float = 1.0
    value_weight: float = 0.5
    threshold: float = 0.5
    reflections: int = 3
    depth: int | None = None

    needs: ClassVar[type] = HasReflections
    paper: ClassVar[str] = "Zhou et al., 2310.04406"
    asks: ClassVar[str] = "expand, reflect"
    evaluates: ClassVar[str] = "all children"
    together: ClassVar[str] = "`batch_size` simulations"
    max_requests: ClassVar[str | None] = "num_simulations * depth + reflections"

    def __post_init__(self) -> None:
        check_numbers(
            self,
            num_simulations=1,
            batch_size=1,
            num_samples=1,
            depth=1,
            c=0,
            value_weight=0,
            reflections=0,
        )
        if self.value_weight > 1:
            raise ValueError(f"value_weight={self.value_weight!r} must be at most 1")

    async def search(self, ctx: Context) -> Sequence[Node]:
        """Follow paths until one succeeds, and rank the terminal nodes."""
        dead_ends: set[Node] = set()
        reflected: dict[State, str | None] = {}  # failed states; None where the reply was empty

        def score(child: Node) -> float:
            guess = (
                child.value_sum / child.visits
                if child.visits
                else first_guess(child, self.value_weight)
            )
            return uct_with_guess(guess, child.visits, child.parents[0].visits, self.c)

        for batch in batches(self.num_simulations, self.batch_size):
            paths = await roll_out(
                ctx,
                len(batch),
                lambda parent: highest(parent.children, score),
                lambda leaf: self._expand(ctx, leaf, list(filter(None, reflected.values()))),
                self.depth or ctx.depth,
                dead_ends,
            )
            values = await evaluate_and_backup(ctx, paths, dead_ends)
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
        return await ctx.expand(leaf, self.num_samples)

    async def _reflect(self, ctx: Context, end: Node) -> str | None:
        (reply,) = await ctx.generate(end, "reflect")
        return " ".join(reply.text.split()) or None


def first_guess(step: Node, value_weight: float) -> float:
    """Return V = λ·LM + (1-λ)·SC.

    LM is the step's value. SC is its self-consistency: the share of the samples that gave it, which
    is its prior.

    Args:
        step: an evaluated node.
        value_weight: λ.
    """
    assert step.value is not None
    return value_weight * step.value + (1 - value_weight) * prior_or_uniform(step)
