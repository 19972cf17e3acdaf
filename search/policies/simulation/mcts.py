"""Monte-Carlo tree search by UCT or by PUCT.

UCT: Kocsis & Szepesvári, "Bandit based Monte-Carlo planning", ECML 2006. PUCT: Silver et al.,
"Mastering the game of Go without human knowledge", Nature 2017, Methods. The run's evaluator takes
the place of the textbook's random playout. Values should lie in [0, 1], the scale of the
exploration term.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from treeshare.search.bounds import at_least, one_of, whole_at_least
from treeshare.search.context import Context
from treeshare.search.graph import Node

from .formulas import puct_score, uct_score
from .tree_operations import batches, highest, prior_or_uniform, rank_visited, simulate


@dataclass(frozen=True)
class MCTS:
    """Select a leaf, expand it if it was visited before, evaluate one new child, back its value up.

    A leaf that can have no children (terminal, too deep) backs up its own value at every visit. A
    dead end, whose expansion gave no children, backs up 0. Neither is sent to the model again.

    Returns the terminal nodes visited, by value, then visits; without any, the end of the most
    visited path.

    Args:
        num_simulations: how many simulations to run.
        batch_size: simulations that run together; 1 is the sequential algorithm.
        num_samples: samples of each expansion.
        selection: the score that chooses a child, `uct` or `puct`.
        c: weight of the exploration term.
        depth: steps below the root; None is no limit.

    Raises:
        ValueError: a number is below its bound, or `selection` is not one of the two.
    """

    num_simulations: int = 50
    batch_size: int = 1
    num_samples: int = 1
    selection: Literal["uct", "puct"] = "uct"
    c: float = math.sqrt(2)
    depth: int | None = None

    paper: ClassVar[str] = "Kocsis & Szepesvári, 2006; Silver et al., 2017"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "one node a simulation"
    together: ClassVar[str] = "`batch_size` simulations"
    max_requests: ClassVar[str | None] = "num_simulations"

    def __post_init__(self) -> None:
        whole_at_least(
            1,
            num_simulations=self.num_simulations,
            batch_size=self.batch_size,
            num_samples=self.num_samples,
            depth=self.depth,
        )
        at_least(0, c=self.c)
        one_of(("uct", "puct"), selection=self.selection)

    async def search(self, ctx: Context) -> list[Node]:
        """Run the simulations and rank the terminal nodes."""

        def pick(parent: Node) -> Node:
            return best_child(parent, self.selection, self.c)

        dead_ends: set[Node] = set()
        try:
            for batch in batches(self.num_simulations, self.batch_size):
                await simulate(ctx, len(batch), pick, self.num_samples, self.depth, dead_ends)
        finally:
            ctx.best = rank_visited(ctx)
        return ctx.best


def best_child(parent: Node, selection: str, c: float) -> Node:
    """Return the child of highest UCT or PUCT score.

    Args:
        parent: a node with children.
        selection: `uct` or `puct`.
        c: weight of the exploration term.
    """

    def score(child: Node) -> float:
        if selection == "uct":
            return uct_score(child.value_sum, child.visits, parent.visits, c)
        prior = prior_or_uniform(child)
        return puct_score(child.value_sum, child.visits, parent.visits, prior, c)

    return highest(parent.children, score)
