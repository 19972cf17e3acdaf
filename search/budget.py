"""The limits of a search and what it has spent. Its runner enforces them, never the policy."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from treeshare.llm_backend.api import Failure, Generate, Reply, Request, Score, Usage


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one search; None is no limit.

    `requests`, `nodes` and `depth` are exact. `tokens`, `seconds` and `money` are known only when a
    reply has come: no request is sent after they are spent, but those already sent may exceed them.
    Requests that are sure to cost more tokens than are left (one for each sample or scored text)
    are not sent. After `seconds`, a search that runs on without a request is ended too
    (search/watchdog.py).

    Raises:
        ValueError: a limit is of a wrong type or below its bound, or there is a limit on money
            without prices.
    """

    tokens: int | None = None  # prompt + completion tokens
    requests: int | None = None  # sent to the engine
    nodes: int | None = None  # nodes of the graph, the root included
    depth: int | None = None  # steps below the root
    seconds: float | None = None  # wall time since the search began
    money: float | None = None  # in the currency of the prices
    price_prompt: float = 0.0  # for a million prompt tokens
    price_completion: float = 0.0  # for a million completion tokens

    def __post_init__(self) -> None:
        for f in fields(self):
            limit, is_limit = getattr(self, f.name), "None" in str(f.type)
            if limit is None and is_limit:
                continue
            otherwise = ", or null for no limit" if is_limit else ""
            is_whole = "int" in str(f.type)
            if isinstance(limit, bool) or not isinstance(limit, int if is_whole else int | float):
                kind = "a whole number" if is_whole else "a number"
                raise ValueError(f"budget.{f.name}={limit!r} must be {kind}{otherwise}")
            if not 0 <= limit < math.inf:  # NaN is not, either
                bound = "finite" if limit == math.inf else "at least 0"
                raise ValueError(f"budget.{f.name}={limit!r} must be {bound}{otherwise}")
        if self.nodes == 0:
            raise ValueError("budget.nodes=0 must be at least 1: the root is a node")
        if self.money is not None and not (self.price_prompt or self.price_completion):
            raise ValueError(
                f"budget.money={self.money} needs budget.price_prompt or budget.price_completion"
            )


class OutOfBudget(BaseException):
    """Raised in the code of a search to end it; the search's best so far is its result.

    It is not an `Exception`, so that a policy's `except Exception` does not catch it.
    """

    def __init__(self, limit: str) -> None:
        super().__init__(f"budget.{limit} is spent")
        self.limit = limit


def least_tokens(request: Request) -> int:
    """Return the least tokens that a request costs: one for each completion or continuation."""
    if isinstance(request, Generate):
        return request.n
    return len(request.continuations) if isinstance(request, Score) else 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What a search had spent at one moment."""

    usage: Usage
    requests: int  # sent to the engine
    seconds: float  # wall time since the search began
    hit: str | None  # the limit that ended the search, or cut its nodes


@dataclass(slots=True)
class Meter:
    """Counts what one search spends against its budget. Its runner adds requests and usage."""

    budget: Budget
    usage: Usage = field(default_factory=Usage)
    requests: int = 0
    began: float = field(default_factory=time.monotonic)
    hit: str | None = None  # the limit that ended the search, or cut its nodes

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.usage.prompt_tokens + self.usage.completion_tokens

    @property
    def seconds(self) -> float:
        """Wall time since the search began."""
        return time.monotonic() - self.began

    @property
    def seconds_left(self) -> float:
        """Wall time left: infinity without a limit, negative beyond it."""
        limit = self.budget.seconds
        return math.inf if limit is None else limit - self.seconds

    @property
    def money(self) -> float:
        """What the tokens cost, in the currency of the budget's prices."""
        budget = self.budget
        return (
            self.usage.prompt_tokens * budget.price_prompt
            + self.usage.completion_tokens * budget.price_completion
        ) / 1e6

    @property
    def spent(self) -> Spent:
        """A copy of the counts."""
        return Spent(self.usage, self.requests, self.seconds, self.hit)

    def add(self, replies: Sequence[Reply]) -> None:
        """Add what replies cost."""
        for reply in replies:
            if not isinstance(reply, Failure):
                self.usage += reply.usage

    def admit(self, num_requests: int, min_tokens: int = 0) -> bool:
        """Return whether requests may be sent together; if not, set `hit` to the limit.

        Args:
            num_requests: how many requests.
            min_tokens: the least tokens that all of them cost.
        """
        budget = self.budget
        spent = {
            "requests": budget.requests is not None
            and self.requests + num_requests > budget.requests,
            "tokens": budget.tokens is not None
            and self.tokens + max(1, min_tokens) > budget.tokens,
            "seconds": self.seconds_left <= 0,
            "money": budget.money is not None and self.money >= budget.money,
        }
        limit = next((name for name, is_spent in spent.items() if is_spent), None)
        self.hit = limit or self.hit
        return limit is None
