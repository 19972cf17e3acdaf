"""Graph of Thoughts (Besta et al., arXiv 2308.09687): split, solve, merge and improve thoughts.

The transformations are functions, so that other plans than that of `GoT` can use them. Each sends
its requests together, and several of them run concurrently under `ctx.gather`. A merged thought has
several parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from treeshare.search.bounds import check_numbers
from treeshare.search.context import Context, flatten, known_logprob, top_k
from treeshare.search.graph import Node
from treeshare.tasks.task import HasMerge, ParseFailure


@dataclass(frozen=True)
class GoT:
    """Follow the paper's plan for sorting: split, solve each part, merge pair by pair, improve.

    Neighbours are merged until one thought is left, and each merged thought is improved. Of every
    solve, merge and improve, only the thought of highest value goes on. Parts do not wait for each
    other, and neither do pairs, but a round of merging waits for the round before it. The search
    ends early if a part or a pair gives no reply that can be parsed.

    Returns the terminal nodes by value; without any, the deepest.

    Args:
        num_samples: samples for each part.
        merges: samples for each pair.
        improvements: samples for each merged thought; 0 does not improve it.

    Raises:
        ValueError: a number is below its bound.
    """

    num_samples: int = 5
    merges: int = 10
    improvements: int = 10

    needs: ClassVar[type] = HasMerge
    paper: ClassVar[str] = "Besta et al., 2308.09687"
    asks: ClassVar[str] = "split, solve, merge, improve"
    evaluates: ClassVar[str] = "all thoughts but the parts"
    together: ClassVar[str] = "all parts, then all pairs"
    max_requests: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        check_numbers(self, num_samples=1, merges=1, improvements=0)

    async def search(self, ctx: Context) -> list[Node]:
        """Carry out the plan and rank the terminal nodes."""
        parts = await split(ctx, ctx.root)
        count = len(parts)
        thoughts = flatten(await ctx.gather(*(self._solve(ctx, part) for part in parts)))
        while len(thoughts) == count > 1:
            pairs = [thoughts[i : i + 2] for i in range(0, count, 2)]
            count = len(pairs)
            thoughts = flatten(await ctx.gather(*(self._merge(ctx, pair) for pair in pairs)))
        return ctx.ranked()

    async def _solve(self, ctx: Context, part: Node) -> list[Node]:
        return await keep_best(ctx, await generate(ctx, [part], "solve", self.num_samples))

    async def _merge(self, ctx: Context, pair: Sequence[Node]) -> list[Node]:
        if len(pair) == 1:
            return list(pair)
        merged = await keep_best(ctx, await aggregate(ctx, pair, self.merges))
        if not self.improvements:
            return merged
        improved = await generate(ctx, merged, "improve", self.improvements)
        return await keep_best(ctx, merged + improved)


async def split(ctx: Context, node: Node) -> list[Node]:
    """Return all the parts that one reply (role `split`) lists, as children of `node`.

    Each part has the log-probability of the reply.
    """
    if not ctx.can_expand(node):
        return []
    (reply,) = await ctx.generate(node, "split")
    steps = ctx.parse("split", node, reply.text)
    return ctx.add(node, [(step, known_logprob(reply)) for step in steps], dedupe=False)


async def generate(ctx: Context, nodes: Sequence[Node], role: str, n: int = 1) -> list[Node]:
    """Return `n` new thoughts from each node (roles `solve` and `improve`)."""
    return flatten(await ctx.gather(*(ctx.sample(node, role, n) for node in nodes)))


async def aggregate(ctx: Context, nodes: Sequence[Node], n: int = 1) -> list[Node]:
    """Return `n` thoughts that each merge all the nodes (role `merge`); equal ones become one."""
    assert isinstance(ctx.task, HasMerge)
    if not all(ctx.can_expand(node) for node in nodes):
        return []
    states = tuple(node.state for node in nodes)
    drawn = []
    for reply in await ctx.generate(nodes[0], "merge", n, state=states):
        step = ctx.task.parse_merge(states, reply.text)
        if isinstance(step, ParseFailure):
            ctx.parse_failures.append(step)
        else:
            drawn.append((step, known_logprob(reply)))
    return ctx.add(nodes, drawn)


async def keep_best(ctx: Context, nodes: Sequence[Node], k: int = 1) -> list[Node]:
    """Return the `k` nodes of highest value (the paper's R after E); ties go to the earlier."""
    return top_k(nodes, await ctx.evaluate(nodes), k)
