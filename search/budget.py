"""What a search may spend and what it has spent. Enforced by its driver, never by a policy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields

from ..llm_backend.api import Usage


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one search; None is no limit.

    `calls`, `nodes` and `depth` are exact. `tokens`, `seconds` and `money` are known only once a
    reply is in: no request is sent after they are spent, those already sent may run over.

    Raises:
        ValueError: a limit below its bound, or money without prices.
    """

    tokens: int | None = None  # prompt + completion tokens
    calls: int | None = None  # requests
    nodes: int | None = None  # nodes of the graph, the root included
    depth: int | None = None  # steps below the root
    seconds: float | None = None  # wall time since the search began
    money: float | None = None  # in the currency of the prices
    price_prompt: float = 0.0  # for a million prompt tokens
    price_completion: float = 0.0  # for a million completion tokens

    def __post_init__(self) -> None:
        for f in fields(self):
            limit = getattr(self, f.name)
            if limit is not None and not (isinstance(limit, int | float) and limit >= 0):
                raise ValueError(
                    f"budget.{f.name}={limit!r} must be at least 0, or null for no limit"
                )
        if self.nodes == 0:
            raise ValueError("budget.nodes=0 must be at least 1: the root is a node")
        if self.money is not None and not (self.price_prompt or self.price_completion):
            raise ValueError(
                f"budget.money={self.money} needs budget.price_prompt or budget.price_completion"
            )


@dataclass(slots=True)
class Meter:
    """Spending of one search against its budget. Its driver adds calls and usage."""

    budget: Budget
    usage: Usage = field(default_factory=Usage)
    calls: int = 0
    nodes: int = 1
    began: float = field(default_factory=time.monotonic)
    hit: str | None = None  # the limit that ended the search, or cut its nodes

    @property
    def tokens(self) -> int:
        return self.usage.prompt_tokens + self.usage.completion_tokens

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def money(self) -> float:
        budget = self.budget
        return (
            self.usage.prompt_tokens * budget.price_prompt
            + self.usage.completion_tokens * budget.price_completion
        ) / 1e6

    @property
    def is_full(self) -> bool:
        """Whether the graph may have no further node."""
        return self.budget.nodes is not None and self.nodes >= self.budget.nodes

    def admit(self, num_requests: int) -> bool:
        """Whether `num_requests` may be sent together; notes the limit if not."""
        budget = self.budget
        spent = {
            "calls": budget.calls is not None and self.calls + num_requests > budget.calls,
            "tokens": budget.tokens is not None and self.tokens >= budget.tokens,
            "seconds": budget.seconds is not None and self.seconds >= budget.seconds,
            "money": budget.money is not None and self.money >= budget.money,
        }
        limit = next((name for name, is_spent in spent.items() if is_spent), None)
        self.hit = limit or self.hit
        return limit is None
