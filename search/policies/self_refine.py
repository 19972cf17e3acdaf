"""Self-Refine (Madaan et al., arXiv 2303.17651, section 2, algorithm 1): one model answers,
criticises its answer and mends it, in turns. A chain, not a tree; neither the expander nor the
evaluator is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from treeshare.search.bounds import at_least
from treeshare.search.context import Context
from treeshare.search.graph import Node
from treeshare.tasks.task import HasRefinement, State


@dataclass(frozen=True)
class SelfRefine:
    """A solution (role `role`), then up to `iterations` times feedback on it (`feedback`) and,
    unless that finds nothing to mend, a new one (`refine`), whose prompt shows all the attempts so
    far, each with its feedback.

    A new solution is a child of the root, as every whole solution is, and of the one it mends. A
    reply that cannot be read leaves the solution as it was.

    Returns the solutions, newest first; those that are not finished after the others.

    Raises:
        ValueError: `iterations` is below 0.
    """

    iterations: int = 4
    role: str = "cot"

    needs: ClassVar[type] = HasRefinement

    def __post_init__(self) -> None:
        at_least(0, iterations=self.iterations)

    async def search(self, ctx: Context) -> list[Node]:
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
                drawn = [(step, reply.logprob) for step in steps]
                mended = ctx.add([ctx.root, last], drawn, dedupe=False)
                if steps and not mended:
                    break  # the graph is full
                solutions += mended
        finally:
            best = sorted(solutions, key=lambda node: (node.is_terminal, node.id), reverse=True)
            ctx.best = best or None
        return best
