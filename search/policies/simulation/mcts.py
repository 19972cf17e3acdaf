"""Monte-Carlo tree search by PUCT or by UCT.

UCT: Kocsis & Szepesvári, "Bandit based Monte-Carlo planning", ECML 2006. PUCT: Silver et al.,
"Mastering the game of Go without human knowledge", Nature 2017, Methods. The run's evaluator takes
the place of the textbook's random playout. Values should lie in [0, 1], the scale of the
exploration term.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from treeshare.search.bounds import check_numbers, one_of
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
        num_samples: samples of each expansion; None takes the expander's.
        selection: the score that chooses a child, `puct` or `uct`.
        c: weight of the exploration term. The default suits `puct`; with `uct`, √2 is UCB1.
        first_play_urgency: Q of an unvisited child under `puct`. The default is the middle of the
            values' scale, as is the paper's 0, whose values are from -1 to 1. With 0, simulations
            go to steps of high prior again and again, even if their values are 0.
        depth: steps below the root; None takes the task's (`ctx.depth`).

    Raises:
        ValueError: a number is below its bound, or `selection` is not one of the two.
    """

    num_simulations: int = 100
    batch_size: int = 1
    num_samples: int | None = None
    selection: Literal["puct", "uct"] = "puct"
    c: float = math.sqrt(0.5)
    first_play_urgency: float = 0.5
    depth: int | None = None

    paper: ClassVar[str] = "Kocsis & Szepesvári, 2006; Silver et al., 2017"
    asks: ClassVar[str] = "expand"
    evaluates: ClassVar[str] = "one node a simulation"
    together: ClassVar[str] = "`batch_size` simulations"
    max_requests: ClassVar[str | None] = "num_simulations"

    def __post_init__(self) -> None:
        check_numbers(self, num_simulations=1, batch_size=1, num_samples=1, depth=1, c=0)
        one_of(("puct", "uct"), selection=self.selection)

    async def search(self, ctx: Context) -> list[Node]:
        """Run the simulations and rank the terminal nodes."""
        depth = self.depth or ctx.depth
        dead_ends: set[Node] = set()
        try:
            for batch in batches(self.num_simulations, self.batch_size):
                await simulate(ctx, len(batch), self.best_child, self.num_samples, depth, dead_ends)
        finally:
            ctx.best = rank_visited(ctx)
        return ctx.best

    def best_child(self, parent: Node) -> Node:
        """Return the child of highest UCT or PUCT score of a node that has children."""

        def score(child: Node) -> float:
            counts = child.value_sum, child.visits, parent.visits
            if self.selection == "uct":
                return uct_score(*counts, self.c)
            return puct_score(*counts, prior_or_uniform(child), self.c, self.first_play_urgency)

        return highest(parent.children, score)
