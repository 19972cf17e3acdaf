"""A reward model beside an engine: serves `Reward` and leaves all else to the engine.

The answers of all searches of a round are scored together, in the call that hands the round's
other requests on. This module is free of torch; Hugging Face's sequence classifiers are in
hf.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from treeshare.llm_backend.api import (
    Engine,
    EngineStats,
    Failure,
    Reply,
    Request,
    Reward,
    RewardReply,
)


class RewardModel(Protocol):
    def reward(self, requests: Sequence[Reward]) -> Sequence[Reply]:
        """A RewardReply for each request, or a Failure where it cannot be served."""
        ...


class RewardEngine:
    """`engine`, and `reward_model` for what only that can answer.

    The statistics are the engine's alone; what the reward_model read is in the replies' usage.
    """

    def __init__(self, engine: Engine, reward_model: RewardModel) -> None:
        self._engine = engine
        self._reward_model = reward_model

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        asked = {ticket: r for ticket, r in requests.items() if isinstance(r, Reward)}
        others = {ticket: r for ticket, r in requests.items() if ticket not in asked}
        replies: dict[int, Reply] = {}
        if asked:
            replies |= zip(asked, self._rewarded(list(asked.values())), strict=True)
        if others or not replies:
            replies |= self._engine.execute(others)
        return replies

    def cancel(self, tickets: Iterable[int]) -> None:
        self._engine.cancel(tickets)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def close(self) -> None:
        self._engine.close()

    def _rewarded(self, requests: Sequence[Reward]) -> list[Reply]:
        try:
            scored = self._reward_model.reward(requests)
        except Exception as error:  # of foreign code: which of the texts it was is found out below
            if len(requests) == 1:
                return [Failure(error)]
            return [reply for request in requests for reply in self._rewarded([request])]
        return [_without_nan(reply) for reply in scored]


def _without_nan(reply: Reply) -> Reply:
    if isinstance(reply, RewardReply) and math.isnan(reply.score):
        return Failure(ArithmeticError("the reward model's score is NaN"))
    return reply
