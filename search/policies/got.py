"""Graph of Thoughts (Besta et al., arXiv 2308.09687, section 3): thoughts are split, solved, merged
and improved, and the best of each kept.

The transformations are functions, for other plans than the one here; each sends its requests
together. Several of them run side by side under `ctx.gather`. A merged thought has several parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from treeshare.search.bounds import at_least
from treeshare.search.context import Context, flatten, top_k
from treeshare.search.graph import Node
from treeshare.tasks.task import HasMerge, ParseFailure


@dataclass(frozen=True)
class GoT:
    """The paper's plan for sorting (section 5.1): split the problem, solve each part, then merge
    neighbours pair by pair until one is left, improving each merged thought.

    Of every solve, merge and improve the thought of highest value goes on. Parts do not wait for
    each other, nor pairs; a round of merging waits for the one before. Ends early if a part or a
    pair gives nothing that can be read.

    Returns the terminal nodes by value; without any, the deepest.

    Raises:
        ValueError: a number is out of its bound.
    """

    samples: int = 5  # for each part
    merges: int = 10  # for each pair
    improvements: int = 10  # of each merged thought; 0 leaves it as it is

    needs: ClassVar[type] = HasMerge

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples, merges=self.merges)
        at_least(0, improvements=self.improvements)

    async def search(self, ctx: Context) -> list[Node]:
        parts = await split(ctx, ctx.root)
        count = len(parts)
        thoughts = flatten(await ctx.gather(*(self._solve(ctx, part) for part in parts)))
        while len(thoughts) == count > 1:
            pairs = [thoughts[i : i + 2] for i in range(0, count, 2)]
            count = len(pairs)
            thoughts = flatten(await ctx.gather(*(self._merge(ctx, pair) for pair in pairs)))
        return ctx.ranked()

    async def _solve(self, ctx: Context, part: Node) -> list[Node]:
        return await keep_best(ctx, await generate(ctx, [part], "solve", self.samples))

    async def _merge(self, ctx: Context, pair: Sequence[Node]) -> list[Node]:
        if len(pair) == 1:
            return list(pair)
        merged = await keep_best(ctx, await aggregate(ctx, pair, self.merges))
        if not self.improvements:
            return merged
        improved = await generate(ctx, merged, "improve", self.improvements)
        return await keep_best(ctx, merged + improved)


async def split(ctx: Context, node: Node) -> list[Node]:
    """All the parts that one reply (role `split`) lists, as children; each has the reply's
    log-probability."""
    if not ctx.can_expand(node):
        return []
    (reply,) = await ctx.generate(node, "split")
    steps = ctx.parse("split", node, reply.text)
    return ctx.add(node, [(step, reply.logprob) for step in steps], dedupe=False)


async def generate(ctx: Context, nodes: Sequence[Node], role: str, n: int = 1) -> list[Node]:
    """`n` new thoughts from each node (roles `solve` and `improve`)."""
    return flatten(await ctx.gather(*(ctx.sample(node, role, n) for node in nodes)))


async def aggregate(ctx: Context, nodes: Sequence[Node], n: int = 1) -> list[Node]:
    """`n` thoughts that each combine all the nodes (role `merge`); equal ones become one."""
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
            drawn.append((step, reply.logprob))
    return ctx.add(nodes, drawn)


async def keep_best(ctx: Context, nodes: Sequence[Node], k: int = 1) -> list[Node]:
    """The paper's ranking R after its evaluation E: the `k` of highest value, ties to the
    earlier."""
    return top_k(nodes, await ctx.evaluate(nodes), k)
