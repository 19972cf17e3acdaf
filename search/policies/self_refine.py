"""Self-Refine (Madaan et al., arXiv 2303.17651, algorithm 1).

One model gives an answer, then feedback on it, then a refined answer, and so on. The search is a
chain rather than a tree, and uses neither the expander nor the evaluator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from treeshare.search.bounds import check_numbers
from treeshare.search.context import Context, known_logprob
from treeshare.search.graph import Node
from treeshare.tasks.task import HasRefinement, State


@dataclass(frozen=True)
class SelfRefine:
    """Draw a solution, then alternate between feedback on it and a refined solution.

    The roles are `role`, `feedback` and `refine`. The prompt for `refine` shows all the attempts so
    far, each with its feedback. The search ends early when the feedback finds nothing to
    improve, as the task reads it. A refined solution is a child of the root, as every whole
    solution is, and of the solution that it refines. A reply that cannot be parsed leaves the
    solution unchanged.

    Returns the solutions, newest first; those that are not terminal come last.

    Args:
        iterations: the most rounds of feedback and refinement.
        role: the role of the first solution.

    Raises:
        ValueError: `iterations` is below 0.
    """

    iterations: int = 4
    role: str = "cot"

    needs: ClassVar[type] = HasRefinement
    paper: ClassVar[str] = "Madaan et al., 2303.17651"
    asks: ClassVar[str] = "io or cot, feedback, refine"
    evaluates: ClassVar[str] = "nothing"
    together: ClassVar[str] = "nothing"
    max_requests: ClassVar[str | None] = "1 + 2 * iterations"

    def __post_init__(self) -> None:
        check_numbers(self, iterations=0)

    async def search(self, ctx: Context) -> list[Node]:
        """Draw and refine solutions."""
        assert isinstance(ctx.task, HasRefinement)
        solutions = await ctx.sample(ctx.root, self.role)
        attempts: list[tuple[State, str]] = []  # each solution with the feedback on it
        try:
            for _ in range(self.iterations if solutions else 0):
                last = solutions[-1]
                (feedback,) = await ctx.generate(last, "feedback")
                if ctx.task.is_satisfied(last.state, feedback.text):
                    break
                attempts.append((last.state, feedback.text))
                (reply,) = await ctx.generate(last, "refine", state=tuple(attempts))
                steps = ctx.parse("refine", ctx.root, reply.text)[-1:]
                drawn = [(step, known_logprob(reply)) for step in steps]
                refined = ctx.add([ctx.root, last], drawn, dedupe=False)
                if steps and not refined:
                    break  # the graph is full
                solutions += refined
        finally:
            best = sorted(solutions, key=lambda node: (node.is_terminal, node.id), reverse=True)
            ctx.best = best or None
        return best
