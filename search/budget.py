"""What a search may spend and what it has spent. Enforced by its driver, never by a policy."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from treeshare.llm_backend.api import Failure, Generate, Reply, Request, Score, Usage


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one search; None is no limit.

    `calls`, `nodes` and `depth` are exact. `tokens`, `seconds` and `money` are known only once a
    reply is in: no request is sent after they are spent, those already sent may run over. Requests
    that must cost more tokens than are left (one for each sample or scored text) are not sent. Once
    `seconds` are over, a search that goes on without a request is ended too (search/watchdog.py).

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


class OutOfBudget(BaseException):
    """Ends the search in whose code it is raised, unfinished; its best so far is the result.

    Not an `Exception`, so that a policy's `except Exception` does not catch it.
    """

    def __init__(self, limit: str) -> None:
        super().__init__(f"budget.{limit} is spent")
        self.limit = limit


def least_tokens(request: Request) -> int:
    """Tokens that a request costs at least: one for each completion or continuation."""
    if isinstance(request, Generate):
        return request.n
    return len(request.continuations) if isinstance(request, Score) else 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What a search had spent at one moment."""

    usage: Usage
    calls: int  # requests
    seconds: float  # wall time since the search began
    hit: str | None  # the limit that ended the search, or cut its nodes


@dataclass(slots=True)
class Meter:
    """Spending of one search against its budget. Its driver adds calls and usage."""

    budget: Budget
    usage: Usage = field(default_factory=Usage)
    calls: int = 0
    began: float = field(default_factory=time.monotonic)
    hit: str | None = None  # the limit that ended the search, or cut its nodes

    @property
    def tokens(self) -> int:
        return self.usage.prompt_tokens + self.usage.completion_tokens

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def seconds_left(self) -> float:
        """Infinite without a limit, negative beyond it."""
        limit = self.budget.seconds
        return math.inf if limit is None else limit - self.seconds

    @property
    def money(self) -> float:
        budget = self.budget
        return (
            self.usage.prompt_tokens * budget.price_prompt
            + self.usage.completion_tokens * budget.price_completion
        ) / 1e6

    @property
    def spent(self) -> Spent:
        return Spent(self.usage, self.calls, self.seconds, self.hit)

    def add(self, replies: Sequence[Reply]) -> None:
        """Count what the replies cost."""
        for reply in replies:
            if not isinstance(reply, Failure):
                self.usage += reply.usage

    def admit(self, num_requests: int, min_tokens: int = 0) -> bool:
        """Whether requests may be sent together; notes the limit if not.

        Args:
            num_requests: how many.
            min_tokens: what they cost at least, all together.
        """
        budget = self.budget
        spent = {
            "calls": budget.calls is not None and self.calls + num_requests > budget.calls,
            "tokens": budget.tokens is not None
            and self.tokens + max(1, min_tokens) > budget.tokens,
            "seconds": self.seconds_left <= 0,
            "money": budget.money is not None and self.money >= budget.money,
        }
        limit = next((name for name, is_spent in spent.items() if is_spent), None)
        self.hit = limit or self.hit
        return limit is None
