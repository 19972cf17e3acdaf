"""Evaluators that ask reward models, which were trained to judge solutions.

An outcome reward model scores a solution as a whole (Cobbe et al., arXiv 2110.14168); a process
reward model scores each of its steps (Lightman et al., arXiv 2305.20050). Neither sees the right
answer. The engine's configuration chooses the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from treeshare.llm_backend.api import Reward, RewardReply, Score, ScoreReply
from treeshare.search.aggregation import AGGREGATES, Aggregate
from treeshare.search.bounds import one_of
from treeshare.search.context import Context
from treeshare.search.expanders import softmax
from treeshare.search.graph import Node
from treeshare.tasks.task import HasSolution


@dataclass(frozen=True)
class OutcomeReward:
    """The reward model's score of the solution so far, in [0, 1].

    It sends one request for each solution that the search has not asked about yet. The run needs a
    reward model (`reward_model=hf`).
    """

    needs: ClassVar[type] = HasSolution
    needs_reward_model: ClassVar[bool] = True
    paper: ClassVar[str] = "Cobbe et al., 2110.14168"
    asks: ClassVar[str] = "the reward model"
    max_requests: ClassVar[str | None] = "nodes"

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Score each whole solution."""
        assert isinstance(ctx.task, HasSolution)
        solutions = [ctx.task.solution(node.state) for node in nodes]
        requests = [Reward(question, "\n".join(steps)) for question, *steps in solutions]
        return [reply.score for reply in await ctx.ask_once(requests)]


@dataclass(frozen=True)
class ProcessReward:
    """An aggregate of the scores of the solution's steps, each in [0, 1].

    A solution without steps has the value 0.5.

    With `by=tokens`, the model that runs the search is the reward model. It reads the question and
    the steps, each followed by `ask`, and the score of the i-th step is

        r_i = p(good) / (p(good) + p(bad))

    after that step's `ask`. The defaults are the format of Math-Shepherd's model (Wang et al.,
    arXiv 2312.08935) for steps that begin with `Step 1: ` and so on, as those of the Game of 24 do;
    the minimum is its authors' choice. With `by=reward_model`, r_i is the reward model's score of
    the first i steps.

    It sends one request for each step that the search has not asked about yet, all those of one
    call together. With `aggregate=last`, it asks about each solution's last step only.

    Args:
        by: `tokens` or `reward_model`.
        aggregate: how the value is made from the scores of the steps.
        ask: text after a step, before the verdict.
        good: the verdict on a good step.
        bad: the verdict on a bad step.
        seen: text between one step's `ask` and the next step.
        opening: text between the question and the first step.

    Raises:
        ValueError: `by` or `aggregate` is not a known name.
    """

    by: Literal["tokens", "reward_model"] = "tokens"
    aggregate: Aggregate = "min"
    ask: str = " ки"
    good: str = " +"
    bad: str = " -"
    seen: str = "\n"
    opening: str = " "

    needs: ClassVar[type] = HasSolution
    paper: ClassVar[str] = "Lightman et al., 2305.20050"
    asks: ClassVar[str] = "the model of the search, or the reward model"
    max_requests: ClassVar[str | None] = "nodes * depth"

    def __post_init__(self) -> None:
        one_of(("tokens", "reward_model"), by=self.by)
        one_of(tuple(AGGREGATES), aggregate=self.aggregate)

    @property
    def needs_scores(self) -> bool:
        """Whether the model of the search gives the verdicts."""
        return self.by == "tokens"

    @property
    def needs_reward_model(self) -> bool:
        """Whether a reward model gives the scores."""
        return self.by == "reward_model"

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Score each step of each solution, and aggregate."""
        assert isinstance(ctx.task, HasSolution)
        asked = [self._requests(*ctx.task.solution(node.state)) for node in nodes]
        replies = iter(await ctx.ask_once([request for group in asked for request in group]))
        rewards = [[_reward(next(replies)) for _ in group] for group in asked]
        return [AGGREGATES[self.aggregate](row) if row else 0.5 for row in rewards]

    def _requests(self, question: str, *steps: str) -> list[Score | Reward]:
        counts = range(1, len(steps) + 1)
        if self.aggregate == "last":
            counts = counts[-1:]
        if self.by == "reward_model":
            return [Reward(question, "\n".join(steps[:count])) for count in counts]
        marked = [f"{step}{self.ask}" for step in steps]
        prompts = [
            (f"{question}{self.opening}", self.seen.join(marked[:count])) for count in counts
        ]
        return [Score(prompt, (self.good, self.bad)) for prompt in prompts]


def _reward(reply: ScoreReply | RewardReply) -> float:
    return reply.score if isinstance(reply, RewardReply) else softmax(reply.logprobs)[0]
