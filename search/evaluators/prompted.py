"""Ways to put a value on nodes.

`ValuePrompt` and `Vote` are the two state evaluators of Tree of Thoughts (Yao et al., arXiv
2305.10601, section 3); `SelfEvaluation` reads the model's own yes or no; `LogProb`, `Heuristic` and
`Oracle` send no request. They know nothing of the policy that compares the values. All requests of
one call go out together. Evaluators made of evaluators are in search/evaluators/composite.py.

Where a value is the same whoever asks, the attribute `fixed_by` names what alone fixes it: a role
(the task's prompt for it), or `state`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from treeshare.search import checks
from treeshare.search.bounds import at_least, one_of
from treeshare.search.context import Context
from treeshare.search.expanders import softmax
from treeshare.search.graph import Node
from treeshare.tasks.task import (
    HasHeuristic,
    HasJudgement,
    HasValues,
    HasVotes,
    ParseFailure,
    Verifier,
)


@dataclass(frozen=True)
class ValuePrompt:
    """The model judges each state on its own (role `value`), on the scale of the task's `values`.

    Equal states of one call are asked once, as in the authors' program for Tree of Thoughts; but
    there only the first gets the value and its doubles 0, here all get it.

    Args:
        samples: verdicts to draw for a state; not used by mode `score`.
        mode: `sample` takes the mean of the verdicts that can be read, 0 if none can; `score`
            takes the expectation over the task's verdicts, Σ_v value(v)·p(v), with their
            probabilities renormalised to 1.

    Raises:
        ValueError: `samples` is below 1, or `mode` is none of the two.
    """

    samples: int = 3
    mode: Literal["sample", "score"] = "sample"

    needs: ClassVar[type] = HasValues

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples)
        one_of(("sample", "score"), mode=self.mode)

    @property
    def fixed_by(self) -> str | None:
        return "value" if self.mode == "score" else None

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        judge = self._mean_verdict if self.mode == "sample" else self._expected_verdict
        return await _judge_each_state(ctx, nodes, judge)

    async def _mean_verdict(self, ctx: Context, node: Node) -> float:
        task = cast(HasValues, ctx.task)  # to check it here would cost more than the rest
        parser = f"{type(task).__name__}.parse_value: a verdict"
        verdicts = []
        for reply in await ctx.generate(node, "value", self.samples):
            verdict = task.parse_value(node.state, reply.text)
            if isinstance(verdict, ParseFailure):
                ctx.parse_failures.append(verdict)
            else:
                verdicts.append(checks.number(verdict, parser))
        return sum(verdicts) / len(verdicts) if verdicts else 0.0

    async def _expected_verdict(self, ctx: Context, node: Node) -> float:
        assert isinstance(ctx.task, HasValues)
        values = ctx.task.values
        probabilities = softmax(await ctx.score(node, "value", tuple(values)))
        return sum(p * value for p, value in zip(probabilities, values.values(), strict=True))


@dataclass(frozen=True)
class SelfEvaluation:
    """How sure the model is that a state is good: p(yes) / (p(yes) + p(no)) (role `judge`).

    P(True) of Kadavath et al. (arXiv 2207.05221), asked of each step as in self-evaluation guided
    beam search (Xie et al., arXiv 2305.00633). One scored request a distinct state; nothing is
    sampled and nothing parsed.
    """

    needs: ClassVar[type] = HasJudgement
    fixed_by: ClassVar[str] = "judge"

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        return await _judge_each_state(ctx, nodes, self._probability)

    async def _probability(self, ctx: Context, node: Node) -> float:
        assert isinstance(ctx.task, HasJudgement)
        yes, _ = softmax(await ctx.score(node, "judge", ctx.task.yes_no))
        return yes


@dataclass(frozen=True)
class Vote:
    """The model names the best of all the states of one call (role `vote`).

    A node's value is its share of the votes that can be read, 0 if none can. So a value compares
    a node with those it was evaluated with, and with no others.

    Raises:
        ValueError: `samples` is below 1.
    """

    samples: int = 5  # votes

    needs: ClassVar[type] = HasVotes

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples)

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        assert isinstance(ctx.task, HasVotes)
        states = tuple(node.state for node in nodes)
        votes: Counter[int] = Counter()
        for reply in await ctx.generate(ctx.root, "vote", self.samples, state=states):
            vote = ctx.task.parse_vote(states, reply.text)
            if isinstance(vote, ParseFailure):
                ctx.parse_failures.append(vote)
            else:
                parser = f"{type(ctx.task).__name__}.parse_vote: a vote"
                votes[checks.index(vote, len(states), parser)] += 1
        return [votes[i] / max(1, votes.total()) for i in range(len(nodes))]


@dataclass(frozen=True)
class LogProb:
    """Log-probability of the path under the model: Σ log p(step) over its steps, nats, at most 0,
    and -1e100 for a path with an impossible step.

    Raises:
        ValueError: a step has no log-probability, as with the expander `Propose`.
    """

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        sums = [sum(_logprob(step) for step in node.path[1:]) for node in nodes]
        return [max(-checks.LARGEST, total) for total in sums]


@dataclass(frozen=True)
class Heuristic:
    """The task's own cheap guess."""

    needs: ClassVar[type] = HasHeuristic
    fixed_by: ClassVar[str] = "state"

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        assert isinstance(ctx.task, HasHeuristic)
        return [ctx.task.heuristic(node.state) for node in nodes]


@dataclass(frozen=True)
class Oracle:
    """1 if a right answer can still be reached, else 0. Knows the answers: results carry a flag."""

    verifier: Verifier

    is_oracle: ClassVar[bool] = True

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        return [self.verifier.promise(ctx.problem, node.state) for node in nodes]


def first_of_each_state(nodes: Sequence[Node]) -> dict[Any, Node]:
    """States, each with the first node that holds it, in order."""
    first: dict[Any, Node] = {}
    for node in nodes:
        first.setdefault(node.state, node)
    return first


async def _judge_each_state(
    ctx: Context,
    nodes: Sequence[Node],
    judge: Callable[[Context, Node], Awaitable[float]],
) -> list[float]:
    """Values of `nodes`; `judge` is called for the first node of each state, all side by side."""
    first = first_of_each_state(nodes)
    values = await ctx.gather(*(judge(ctx, node) for node in first.values()))
    value_of = dict(zip(first, values, strict=True))
    return [value_of[node.state] for node in nodes]


def _logprob(node: Node) -> float:
    if node.logprob is None:
        raise ValueError(f"step {node.text!r} has no log-probability: its expander gives none")
    return node.logprob
