"""Runs many searches at once and merges what they ask into one stream of batches for the engine.

Steps every search until it is blocked, sends all requests to the engine together, and resumes each
search as soon as its own requests are answered; its next requests join the batch that is running.
Batches are a pure function of (searches, seed): there is no clock and no thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from treeshare.llm_backend.api import Engine, Reply, Request, Usage

from .context import Context, Policy
from .coroutines import Trampoline
from .graph import Node, SearchGraph

# Tickets are unique for the process: an engine may serve several schedulers, one after another, and
# must never answer one with what another asked.
_tickets = itertools.count()


@dataclass(slots=True)
class Outcome:
    """What became of one search."""

    problem_id: str
    ranked: list[Node]  # best first; the best so far if the budget or an error ended the search
    graph: SearchGraph
    usage: Usage
    calls: int  # requests
    rounds: int  # times the search waited for the model
    parse_failures: int
    seconds: float  # wall time from start to end, other searches' work included
    budget_hit: str | None = None  # the limit that ended the search, or cut its nodes
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class _Live:
    """A search under way."""

    ctx: Context
    trampoline: Trampoline
    rounds: int = 0
    tickets: list[int] = field(default_factory=list)
    replies: dict[int, Reply] = field(default_factory=dict)
    error: Exception | None = None

    @classmethod
    def start(cls, policy: Policy, ctx: Context) -> _Live:
        return cls(ctx, ctx.start(policy))

    def step(self) -> list[Request]:
        replies = [self.replies[ticket] for ticket in self.tickets]
        self.tickets, self.replies = [], {}
        try:
            requests = self.trampoline.step(replies)
        except Exception as error:  # a user's policy: any failure is this search's alone
            self.error = error
            return []
        self.rounds += bool(requests)
        return requests

    def outcome(self) -> Outcome:
        ctx = self.ctx
        if self.trampoline.is_finished and self.error is None:
            ranked = list(self.trampoline.result)
        else:
            ranked = self._best_so_far()
        spent = ctx.spent
        return Outcome(
            problem_id=ctx.problem.id,
            ranked=ranked,
            graph=ctx.graph,
            usage=spent.usage,
            calls=spent.calls,
            rounds=self.rounds,
            parse_failures=len(ctx.parse_failures),
            seconds=spent.seconds,
            budget_hit=spent.hit,
            error=self.error,
        )

    def _best_so_far(self) -> list[Node]:
        """None, and an error, if the policy left what cannot be ranked."""
        try:
            return self.ctx.best_so_far()
        except Exception as error:
            self.error = self.error or error
            return []


class Scheduler:
    """Merges the requests of running searches.

    Args:
        engine: serves the requests.
        max_live: searches under way at once; further ones start as others end.

    Raises:
        ValueError: `max_live` is below 1.
    """

    def __init__(self, engine: Engine, *, max_live: int | None = None) -> None:
        if max_live is not None and max_live < 1:
            raise ValueError(f"max_live={max_live} must be at least 1, or null for no limit")
        self.engine = engine
        self.max_live = max_live
        self.rounds = 0  # times new requests went to the engine
        self.requests = 0  # sent in all

    @property
    def mean_batch(self) -> float:
        """Requests sent together."""
        return self.requests / self.rounds if self.rounds else 0.0

    def run(self, searches: Iterable[tuple[Policy, Context]]) -> Iterator[Outcome]:
        """Yield each search's outcome as it ends. Searches are taken in as there is room.

        When the loop over the outcomes is left early, or something is raised in it, the requests
        that the engine has not answered are cancelled.
        """
        owner: dict[int, _Live] = {}  # ticket to the search that waits for it
        try:
            yield from self._run(iter(searches), owner)
        finally:
            if owner:
                self.engine.cancel(list(owner))

    def _run(
        self, waiting: Iterator[tuple[Policy, Context]], owner: dict[int, _Live]
    ) -> Iterator[Outcome]:
        new: dict[int, Request] = {}
        ready: list[_Live] = []
        num_live = 0
        while True:
            while self.max_live is None or num_live < self.max_live:
                pair = next(waiting, None)
                if pair is None:
                    break
                ready.append(_Live.start(*pair))
                num_live += 1
            stepped, ready = ready, []
            ended = []
            for live in stepped:
                requests = live.step()
                live.tickets = [next(_tickets) for _ in requests]
                self.requests += len(requests)
                new |= zip(live.tickets, requests, strict=True)
                owner |= dict.fromkeys(live.tickets, live)
                if not requests:
                    ended.append(live)
            num_live -= len(ended)
            for live in ended:
                yield live.outcome()
            if stepped:
                continue  # those that ended may have left room
            if not owner:
                return
            self.rounds += bool(new)
            replies = self.engine.execute(new)
            assert replies, "the engine answered none of the outstanding requests"
            for ticket, reply in replies.items():
                live = owner.pop(ticket)
                live.replies[ticket] = reply
                if len(live.replies) == len(live.tickets):
                    ready.append(live)
            new = {}
            ready.sort(key=lambda live: live.tickets[0])
