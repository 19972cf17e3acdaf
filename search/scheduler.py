"""Runs many searches at once and merges their requests into one stream of batches for the engine.

The scheduler steps every search until it is blocked, sends all their requests to the engine
together, and resumes each search as soon as its own requests are answered. Its next requests join
the batch that is running. There is no clock and no thread, so the batches are a pure function of
the searches and the seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from treeshare.llm_backend.api import Engine, Reply, Request, Usage

from .context import Context
from .coroutines import CoroutineRunner
from .graph import Node, SearchGraph
from .parts import Policy

# Request ids are unique for the process: an engine may serve several schedulers, one after another,
# and must never give one of them the reply to a request of another.
_request_ids = itertools.count()


@dataclass(slots=True)
class Outcome:
    """The result of one search, and what it cost."""

    problem_id: str
    ranked: list[Node]  # best first; the best so far if the budget or an error ended the search
    graph: SearchGraph
    usage: Usage
    requests: int  # sent to the engine
    rounds: int  # times the search waited for the model
    parse_failures: int  # replies that could not be parsed
    seconds: float  # wall time from start to end, other searches' work included
    budget_hit: str | None = None  # the limit that ended the search, or cut its nodes
    error: Exception | None = None  # what the search raised


@dataclass(slots=True, eq=False)
class RunningSearch:
    """A search that has begun and has not ended."""

    ctx: Context
    runner: CoroutineRunner
    rounds: int = 0
    request_ids: list[int] = field(default_factory=list)  # those it waits for
    replies: dict[int, Reply] = field(default_factory=dict)  # those of them that have come
    error: Exception | None = None

    @classmethod
    def start(cls, policy: Policy, ctx: Context) -> RunningSearch:
        """Begin the policy's search. Nothing of it has run yet."""
        return cls(ctx, ctx.start(policy))

    def step(self) -> list[Request]:
        """Deliver the replies and return the next requests; an empty list if the search ended."""
        replies = [self.replies[request_id] for request_id in self.request_ids]
        self.request_ids, self.replies = [], {}
        try:
            requests = self.runner.step(replies)
        except Exception as error:  # a user's policy: whatever it raises ends this search alone
            self.error = error
            return []
        self.rounds += bool(requests)
        return requests

    def outcome(self) -> Outcome:
        """Return the result of the search, which has ended."""
        ctx = self.ctx
        if self.runner.is_finished and self.error is None:
            ranked = list(self.runner.result)
        else:
            ranked = self._best_so_far()
        spent = ctx.spent
        return Outcome(
            problem_id=ctx.problem.id,
            ranked=ranked,
            graph=ctx.graph,
            usage=spent.usage,
            requests=spent.requests,
            rounds=self.rounds,
            parse_failures=len(ctx.parse_failures),
            seconds=spent.seconds,
            budget_hit=spent.hit,
            error=self.error,
        )

    def _best_so_far(self) -> list[Node]:
        """Return the ranking, or an empty list and an error if the nodes cannot be ranked."""
        try:
            return self.ctx.best_so_far()
        except Exception as error:
            self.error = self.error or error
            return []


class Scheduler:
    """Runs searches and merges their requests.

    Args:
        engine: serves the requests.
        max_live: searches that run at once; further ones start as others end. None is no limit.

    Attributes:
        rounds: times that new requests went to the engine.
        requests: requests sent in all.

    Raises:
        ValueError: `max_live` is below 1.
    """

    def __init__(self, engine: Engine, *, max_live: int | None = None) -> None:
        if max_live is not None and max_live < 1:
            raise ValueError(f"max_live={max_live} must be at least 1, or null for no limit")
        self.engine = engine
        self.max_live = max_live
        self.rounds = 0
        self.requests = 0

    def run(self, searches: Iterable[tuple[Policy, Context]]) -> Iterator[Outcome]:
        """Yield the outcome of each search as it ends.

        When the loop over the outcomes is left early, or something is raised in it, the requests
        that the engine has not answered are cancelled.

        Args:
            searches: each policy with the context of its search. The next pair is taken when there
                is room for one more search.
        """
        waiting: dict[int, RunningSearch] = {}  # request id to the search that waits for its reply
        try:
            yield from self._run(iter(searches), waiting)
        finally:
            if waiting:
                self.engine.cancel(list(waiting))

    def _run(
        self, pairs: Iterator[tuple[Policy, Context]], waiting: dict[int, RunningSearch]
    ) -> Iterator[Outcome]:
        new: dict[int, Request] = {}
        ready: list[RunningSearch] = []
        num_running = 0
        while True:
            while self.max_live is None or num_running < self.max_live:
                pair = next(pairs, None)
                if pair is None:
                    break
                ready.append(RunningSearch.start(*pair))
                num_running += 1
            stepped, ready = ready, []
            ended = []
            for search in stepped:
                requests = search.step()
                search.request_ids = [next(_request_ids) for _ in requests]
                self.requests += len(requests)
                new |= zip(search.request_ids, requests, strict=True)
                waiting |= dict.fromkeys(search.request_ids, search)
                if not requests:
                    ended.append(search)
            num_running -= len(ended)
            for search in ended:
                yield search.outcome()
            if stepped:
                continue  # the searches that ended may have left room for others
            if not waiting:
                return
            self.rounds += bool(new)
            replies = self.engine.execute(new)
            assert replies, "the engine answered none of the outstanding requests"
            for request_id, reply in replies.items():
                search = waiting.pop(request_id)
                search.replies[request_id] = reply
                if len(search.replies) == len(search.request_ids):
                    ready.append(search)
            new = {}
            ready.sort(key=lambda search: search.request_ids[0])
