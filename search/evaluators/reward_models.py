"""Values from reward models, which were trained to judge solutions.

An outcome reward model scores a solution as a whole (Cobbe et al., arXiv 2110.14168, section 4), a
process reward model each of its steps (Lightman et al., arXiv 2305.20050, section 2). Neither is
told the right answer. What the model is, the engine knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from treeshare.llm_backend.api import Reward, RewardReply, Score, ScoreReply
from treeshare.search.bounds import one_of
from treeshare.search.context import Context
from treeshare.search.expanders import softmax
from treeshare.search.graph import Node
from treeshare.search.policies.aggregation import AGGREGATES, Aggregate
from treeshare.tasks.task import HasSolution


@dataclass(frozen=True)
class OutcomeReward:
    """The reward_model's score of the solution so far, in [0, 1].

    One request for each solution that the search has not had scored yet. The engine needs a
    reward_model.
    """

    needs: ClassVar[type] = HasSolution
    needs_reward_model: ClassVar[bool] = True

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        assert isinstance(ctx.task, HasSolution)
        solutions = [ctx.task.solution(node.state) for node in nodes]
        requests = [Reward(question, "\n".join(steps)) for question, *steps in solutions]
        return [reply.score for reply in await ctx.ask_once(requests)]


@dataclass(frozen=True)
class ProcessReward:
    """aggregate(r_1, ..., r_t) over the scores of the solution's steps, each in [0, 1].

    A solution without steps has the value 0.5.

    By `tokens`, the model that runs the search is the reward model: it reads the question and the
    steps, each followed by `ask`, and

        r_i = p(good) / (p(good) + p(bad))

    after the i-th. The defaults are the format of Math-Shepherd's model (Wang et al., arXiv
    2312.08935) for steps that begin with `Step 1: ` and so on, as those of the Game of 24 do, and
    the minimum is its authors' choice (section 3.4). By `reward_model`, r_i is the reward
    model's score of the first i steps, as `OutcomeReward` would ask for it.

    One request for each step that the search has not had scored yet, all of one call together; with
    `aggregate=last` only for each solution's last.

    Raises:
        ValueError: `by` or `aggregate` is none of its names.
    """

    by: Literal["tokens", "reward_model"] = "tokens"
    aggregate: Aggregate = "min"
    ask: str = " ки"  # after a step, before the verdict
    good: str = " +"
    bad: str = " -"
    seen: str = "\n"  # between one step's `ask` and the next step
    opening: str = " "  # between the question and the first step

    needs: ClassVar[type] = HasSolution

    def __post_init__(self) -> None:
        one_of(("tokens", "reward_model"), by=self.by)
        one_of(tuple(AGGREGATES), aggregate=self.aggregate)

    @property
    def needs_reward_model(self) -> bool:
        return self.by == "reward_model"

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
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
