"""Evaluators that ask the model of the search, or no model at all.

`ValuePrompt` and `Vote` are the two state evaluators of Tree of Thoughts (Yao et al., arXiv
2305.10601, section 3). `SelfEvaluation` reads the probabilities of the model's yes and no.
`LogProb`, `Heuristic` and `Oracle` send no request. All requests of one call go out together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

from treeshare.search import checks
from treeshare.search.bounds import check_numbers, one_of
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

    Equal states of one call are judged once and all get the same value. (In the authors' program
    for Tree of Thoughts, the first gets the value and the others 0.)

    Args:
        num_samples: verdicts to draw for a state; the mode `score` draws none.
        mode: `sample` takes the mean of the verdicts that can be parsed, 0 if none can. `score`
            takes the expectation over the task's verdicts, Σ_v value(v)·p(v), with their
            probabilities renormalised to 1.

    Raises:
        ValueError: `num_samples` is below 1, or `mode` is not one of the two.
    """

    num_samples: int = 3
    mode: Literal["sample", "score"] = "sample"

    needs: ClassVar[type] = HasValues
    paper: ClassVar[str] = "Yao et al., 2305.10601"
    asks: ClassVar[str] = "value"
    max_requests: ClassVar[str | None] = "nodes"

    def __post_init__(self) -> None:
        check_numbers(self, num_samples=1)
        one_of(("sample", "score"), mode=self.mode)

    @property
    def needs_scores(self) -> bool:
        """Whether the mode is `score`."""
        return self.mode == "score"

    @property
    def fixed_by(self) -> str | None:
        """The role `value`, unless verdicts are sampled."""
        return "value" if self.mode == "score" else None

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Judge each distinct state."""
        judge = self._mean_verdict if self.mode == "sample" else self._expected_verdict
        return await _judge_each_state(ctx, nodes, judge)

    async def _mean_verdict(self, ctx: Context, node: Node) -> float:
        task = cast(HasValues, ctx.task)  # isinstance would cost more than the rest
        parser = f"{type(task).__name__}.parse_value: a verdict"
        verdicts = []
        for reply in await ctx.generate(node, "value", self.num_samples):
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
    """The model's probability that a state is good: p(yes) / (p(yes) + p(no)) (role `judge`).

    This is P(True) of Kadavath et al. (arXiv 2207.05221), for each step as in self-evaluation
    guided beam search (Xie et al., arXiv 2305.00633). It sends one scored request for each distinct
    state; nothing is sampled or parsed.
    """

    needs: ClassVar[type] = HasJudgement
    needs_scores: ClassVar[bool] = True
    fixed_by: ClassVar[str] = "judge"
    paper: ClassVar[str] = "Kadavath et al., 2207.05221"
    asks: ClassVar[str] = "judge"
    max_requests: ClassVar[str | None] = "nodes"

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Score yes and no for each distinct state."""
        return await _judge_each_state(ctx, nodes, self._probability)

    async def _probability(self, ctx: Context, node: Node) -> float:
        assert isinstance(ctx.task, HasJudgement)
        yes, _ = softmax(await ctx.score(node, "judge", ctx.task.yes_no))
        return yes


@dataclass(frozen=True)
class Vote:
    """The model names the best of all the states of one call (role `vote`).

    A node's value is its share of the votes that can be parsed, 0 if none can. So it compares the
    node with the others of the same call only.

    Args:
        num_samples: votes to draw.

    Raises:
        ValueError: `num_samples` is below 1.
    """

    num_samples: int = 5

    needs: ClassVar[type] = HasVotes
    paper: ClassVar[str] = "Yao et al., 2305.10601"
    asks: ClassVar[str] = "vote"
    max_requests: ClassVar[str | None] = "1"

    def __post_init__(self) -> None:
        check_numbers(self, num_samples=1)

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Draw the votes and count them."""
        assert isinstance(ctx.task, HasVotes)
        states = tuple(node.state for node in nodes)
        votes: Counter[int] = Counter()
        for reply in await ctx.generate(ctx.root, "vote", self.num_samples, state=states):
            vote = ctx.task.parse_vote(states, reply.text)
            if isinstance(vote, ParseFailure):
                ctx.parse_failures.append(vote)
            else:
                parser = f"{type(ctx.task).__name__}.parse_vote: a vote"
                votes[checks.index(vote, len(states), parser)] += 1
        return [votes[i] / max(1, votes.total()) for i in range(len(nodes))]


@dataclass(frozen=True)
class LogProb:
    """The log-probability of the path under the model: Σ log p(step) over its steps.

    Values are in nats and at most 0. A path with an impossible step has -1e100.
    """

    needs_logprobs: ClassVar[bool] = True
    paper: ClassVar[str] = "none"
    asks: ClassVar[str] = "nothing"
    max_requests: ClassVar[str | None] = "0"

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Add up the steps' log-probabilities.

        Raises:
            ValueError: a step has no log-probability, as with the expander `Propose`.
        """
        sums = [sum(_logprob(step) for step in node.path[1:]) for node in nodes]
        return [max(-checks.LARGEST, total) for total in sums]


@dataclass(frozen=True)
class Heuristic:
    """The task's own estimate, which uses no model."""

    needs: ClassVar[type] = HasHeuristic
    fixed_by: ClassVar[str] = "state"
    paper: ClassVar[str] = "none"
    asks: ClassVar[str] = "nothing"
    max_requests: ClassVar[str | None] = "0"

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Call the task's heuristic for each state."""
        assert isinstance(ctx.task, HasHeuristic)
        return [ctx.task.heuristic(node.state) for node in nodes]


@dataclass(frozen=True)
class Oracle:
    """1 if a right answer can still be reached from a state, else 0.

    It uses the right answers, so it gives upper bounds only, and the results say so.

    Args:
        verifier: the task's.
    """

    verifier: Verifier

    is_oracle: ClassVar[bool] = True
    paper: ClassVar[str] = "none"
    asks: ClassVar[str] = "nothing"
    max_requests: ClassVar[str | None] = "0"

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Ask the verifier for each state's promise."""
        return [self.verifier.promise(ctx.problem, node.state) for node in nodes]


def first_of_each_state(nodes: Sequence[Node]) -> dict[Any, Node]:
    """Return the distinct states, each with the first node that holds it, in order."""
    first: dict[Any, Node] = {}
    for node in nodes:
        first.setdefault(node.state, node)
    return first


async def _judge_each_state(
    ctx: Context,
    nodes: Sequence[Node],
    judge: Callable[[Context, Node], Awaitable[float]],
) -> list[float]:
    """Return the values of `nodes`, judging the first node of each state, all concurrently."""
    first = first_of_each_state(nodes)
    values = await ctx.gather(*(judge(ctx, node) for node in first.values()))
    value_of = dict(zip(first, values, strict=True))
    return [value_of[node.state] for node in nodes]


def _logprob(node: Node) -> float:
    if node.logprob is None:
        raise ValueError(f"step {node.text!r} has no log-probability: its expander gives none")
    return node.logprob
