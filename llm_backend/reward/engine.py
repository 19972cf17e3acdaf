"""An engine with a reward model, which serves `Reward`; the engine serves all other requests.

The answers of all searches of a round are scored together, in the call that hands the round's
other requests on. This module must stay free of torch; Hugging Face's sequence classifiers are in
hf.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from treeshare.llm_backend.api import (
    Engine,
    EngineCapabilities,
    EngineStats,
    Failure,
    Reply,
    Request,
    Reward,
    RewardReply,
)


class RewardModel(Protocol):
    """Scores answers."""

    def reward(self, requests: Sequence[Reward]) -> Sequence[Reply]:
        """Return a `RewardReply` for each request, or a `Failure` where it cannot be served."""
        ...


class RewardEngine:
    """An engine and a reward model, as one engine.

    The statistics are the engine's alone; tokens that the reward model read are in its replies'
    usage.

    Args:
        engine: serves all requests but `Reward`.
        reward_model: serves `Reward`.
    """

    def __init__(self, engine: Engine, reward_model: RewardModel) -> None:
        self._engine = engine
        self._reward_model = reward_model

    @property
    def capabilities(self) -> EngineCapabilities:
        """Those of the engine, and rewards."""
        return replace(self._engine.capabilities, rewards=True)

    @property
    def resources(self) -> Mapping[str, Any]:
        """What the engine computes with, as far as it says."""
        resources: Mapping[str, Any] = getattr(self._engine, "resources", {})
        return resources

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """Score answers at once, and leave other requests to the engine."""
        asked = {number: r for number, r in requests.items() if isinstance(r, Reward)}
        others = {number: r for number, r in requests.items() if number not in asked}
        replies: dict[int, Reply] = {}
        if asked:
            replies |= zip(asked, self._rewarded(list(asked.values())), strict=True)
        if others or not replies:
            replies |= self._engine.execute(others)
        return replies

    def cancel(self, request_ids: Iterable[int]) -> None:
        """Drop outstanding requests; see `Engine.cancel`."""
        self._engine.cancel(request_ids)

    def stats(self) -> EngineStats:
        """Return the engine's counters."""
        return self._engine.stats()

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _rewarded(self, requests: Sequence[Reward]) -> list[Reply]:
        try:
            scored = self._reward_model.reward(requests)
        except Exception as error:  # foreign code; which text it was is found one by one
            if len(requests) == 1:
                return [Failure(error)]
            return [reply for request in requests for reply in self._rewarded([request])]
        return [_without_nan(reply) for reply in scored]


def _without_nan(reply: Reply) -> Reply:
    if isinstance(reply, RewardReply) and math.isnan(reply.score):
        return Failure(ArithmeticError("the reward model's score is NaN"))
    return reply
