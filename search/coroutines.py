"""Runs the `async` code of one search step by step, without asyncio, threads or timers.

A search is made of ordinary coroutines that await `ask` (requests to the model) and `gather`
(several coroutines at once). `CoroutineRunner` runs them until each one is blocked and returns the
requests that they wait for. Once all of these are answered, it goes on. So a search is a pure
function of its replies: the time of a reply, and what else shares the batch, cannot change it.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Coroutine, Generator, Sequence
from typing import Any, NoReturn

from treeshare.llm_backend.api import Failure, Reply, Request

from .budget import Budget, Meter, OutOfBudget, least_tokens
from .watchdog import watchdog

MAX_IDLE = 200_000  # resumptions in a row without a request, in half a second
MAX_DEPTH = 10_000  # gathers inside gathers
CLOCK_EVERY = 64  # idle resumptions between two looks at the clock


class _Ask:
    """The operation that waits for replies."""

    def __init__(self, requests: Sequence[Request]) -> None:
        if isinstance(requests, Request):
            raise TypeError("a search asks a list of requests, not one: write [request]")
        self.requests = list(requests)
        for request in self.requests:
            if not isinstance(request, Request):
                raise TypeError(f"a search asked {request!r:.80}, which is no request")

    def __await__(self) -> Generator[_Ask, Any, list[Any]]:
        replies: list[Any] = yield self
        return replies


class _End:
    """The operation that ends the search."""

    def __init__(self, limit: str) -> None:
        self.limit = limit

    def __await__(self) -> Generator[_End, Any, NoReturn]:
        yield self
        raise AssertionError("an ended search is never resumed")


class _Gather:
    """The operation that waits for several coroutines."""

    def __init__(self, awaitables: Sequence[Awaitable[Any]]) -> None:
        self.awaitables = list(awaitables)
        self.tasks: list[_Task] = []
        self.num_open = len(self.awaitables)

    def __await__(self) -> Generator[_Gather, Any, list[Any]]:
        results: list[Any] = yield self
        return results


class _Task:
    """One coroutine: the search itself, or a child of a gather."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waiter: _Task | None = None) -> None:
        self.coroutine = coroutine
        self.waiter = waiter  # the task whose gather holds this one
        self.waits_for: _Gather | None = None
        self.depth: int = 0 if waiter is None else waiter.depth + 1  # gathers around it
        self.result: Any = None


def ask(requests: Sequence[Request]) -> Awaitable[list[Any]]:
    """Send requests to the model.

    Returns:
        An awaitable of the replies, in order.

    Raises:
        TypeError: one of them is not a request.
    """
    return _Ask(requests)


def end(limit: str) -> Awaitable[NoReturn]:
    """End the search at this await, unfinished.

    Args:
        limit: the name of the budget's limit that ends it.
    """
    return _End(limit)


def gather(*awaitables: Awaitable[Any]) -> Awaitable[list[Any]]:
    """Run coroutines, or further asks and gathers, concurrently.

    If one raises, the others are closed and its exception is raised where the gather is awaited. At
    most `MAX_DEPTH` gathers can be nested.

    Returns:
        An awaitable of their results, in order.
    """
    return _Gather(awaitables)


async def _result_of(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class CoroutineRunner:
    """Runs one coroutine, and all that it gathers, to its end.

    Args:
        coroutine: the search.
        meter: counts what the search spends and decides which requests a step may send. A search
            that asks for more ends at once, unfinished. None is no limit.

    Attributes:
        is_done: whether the search has ended, for whatever reason.
        is_finished: whether it has ended by returning.
        result: what it returned.

    Raises:
        TypeError: `coroutine` is not a coroutine.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], meter: Meter | None = None) -> None:
        if not inspect.iscoroutine(coroutine):
            raise TypeError(f"a search must be a coroutine (`async def`), not {coroutine!r}")
        self._main = _Task(coroutine)
        self._meter = meter or Meter(Budget())
        self._ready: deque[tuple[_Task, Any]] = deque([(self._main, None)])
        self._blocked: list[tuple[_Task, int]] = []  # (task, number of requests)
        self._requests: list[Request] = []
        self._min_tokens = 0  # what these cost at least
        self._idle = 0  # resumptions since the last request or reply
        self.is_done = False
        self.is_finished = False  # done, and by returning
        self.result: Any = None

    def step(self, replies: Sequence[Reply] = ()) -> list[Request]:
        """Deliver the replies to the last step's requests, and run until all is blocked again.

        Args:
            replies: one for each request of the last step, in order.

        Returns:
            The requests that the search now waits for; an empty list when it is done.

        Raises:
            Exception: whatever the search raised; the search is done then. An error that is not an
                `Exception`, such as `SystemExit`, becomes the cause of a RuntimeError.
            KeyboardInterrupt: the user interrupted the search.
            ValueError: there are more or fewer replies than requests.
        """
        if len(replies) != len(self._requests):
            raise ValueError(f"{len(replies)} replies to {len(self._requests)} requests")
        self._meter.add(replies)
        try:
            self._run_until_blocked(replies)
        except OutOfBudget as spent:  # the watchdog's, raised while it was being disarmed
            self._end(spent.limit)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            failure = RuntimeError(f"the search raised {error!r}")
            raise failure.with_traceback(error.__traceback__) from error  # ends at the user's line
        assert self.is_done or self._requests
        self._meter.requests += len(self._requests)
        return self._requests

    def close(self) -> None:
        """End the search at its present await and close all its coroutines.

        Raises:
            Exception: a coroutine raised while it was being closed. All are closed by then.
        """
        self._ready.clear()
        self._blocked, self._requests = [], []
        self.is_done = True
        _close(_subtree([self._main]))

    def _run_until_blocked(self, replies: Sequence[Reply]) -> None:
        with watchdog(self._meter.seconds_left):
            try:
                self._deliver(replies)
                while self._ready and not self.is_done:
                    self._resume(*self._ready.popleft())
            except OutOfBudget as spent:
                self._end(spent.limit)

    def _deliver(self, replies: Sequence[Reply]) -> None:
        begin = 0
        for task, count in self._blocked:
            self._ready.append((task, _replies_or_error(replies[begin : begin + count])))
            begin += count
        self._blocked, self._requests, self._min_tokens = [], [], 0
        self._idle = -len(self._ready)

    def _resume(self, task: _Task, sent: Any) -> None:
        self._count_idle()
        task.waits_for = None
        try:
            if isinstance(sent, _Raise):
                operation = task.coroutine.throw(sent.error)
            else:
                operation = task.coroutine.send(sent)
        except StopIteration as stop:
            self._return(task, stop.value)
        except (KeyboardInterrupt, OutOfBudget):
            raise
        except BaseException as error:  # a user's policy may raise anything, such as SystemExit
            self._raise(task, error)
        else:
            self._block(task, operation)

    def _count_idle(self) -> None:
        self._idle += 1
        if self._idle > MAX_IDLE:
            self.close()
            raise RuntimeError(
                f"the search went on {MAX_IDLE:,} times without a request: is there an endless "
                "loop around ctx.gather() or ctx.ask([])?"
            )
        if self._idle > 0 and self._idle % CLOCK_EVERY == 0 and self._meter.seconds_left <= 0:
            raise OutOfBudget("seconds")

    def _end(self, limit: str) -> None:
        self._meter.hit = limit
        self.close()

    def _block(self, task: _Task, operation: Any) -> None:
        if isinstance(operation, _Ask):
            if not operation.requests:
                self._ready.append((task, []))
                return
            min_tokens = self._min_tokens + sum(map(least_tokens, operation.requests))
            if self._meter.admit(len(self._requests) + len(operation.requests), min_tokens):
                self._blocked.append((task, len(operation.requests)))
                self._requests += operation.requests
                self._min_tokens = min_tokens
                self._idle = min(self._idle, 0)
            else:
                self.close()
        elif isinstance(operation, _Gather):
            if not operation.awaitables:
                self._ready.append((task, []))
            elif operation.tasks:
                self._throw(task, RuntimeError("a gather can be awaited only once"))
            elif task.depth == MAX_DEPTH:
                for child in filter(inspect.iscoroutine, operation.awaitables):
                    child.close()
                self._throw(task, RuntimeError(f"gathers are nested more than {MAX_DEPTH:,} deep"))
            else:
                operation.tasks = [
                    _Task(child if inspect.iscoroutine(child) else _result_of(child), task)
                    for child in operation.awaitables
                ]
                task.waits_for = operation
                self._ready.extend((child, None) for child in operation.tasks)
        elif isinstance(operation, _End):
            self._end(operation.limit)
        else:
            self._throw(task, TypeError(f"cannot await {operation!r} in a search"))

    def _throw(self, task: _Task, error: BaseException) -> None:
        self._ready.append((task, _Raise(error)))

    def _return(self, task: _Task, result: Any) -> None:
        if task.waiter is None:
            self.is_done = self.is_finished = True
            self.result = result
            return
        gathered = task.waiter.waits_for
        assert gathered is not None
        task.result = result
        gathered.num_open -= 1
        if gathered.num_open == 0:
            self._ready.append((task.waiter, [child.result for child in gathered.tasks]))

    def _raise(self, task: _Task, error: BaseException) -> None:
        waiter = task.waiter
        if waiter is None:
            self.close()
            raise error
        gathered = waiter.waits_for
        assert gathered is not None
        closed = _subtree(gathered.tasks)
        leaving = set(closed)
        self._ready = deque((t, sent) for t, sent in self._ready if t not in leaving)
        self._drop_requests(leaving)
        try:
            _close(closed)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:
            error = raised
        self._throw(waiter, error)

    def _drop_requests(self, closed: set[_Task]) -> None:
        kept_blocked, kept_requests, begin = [], [], 0
        for task, count in self._blocked:
            if task not in closed:
                kept_blocked.append((task, count))
                kept_requests += self._requests[begin : begin + count]
            begin += count
        self._blocked, self._requests = kept_blocked, kept_requests
        self._min_tokens = sum(map(least_tokens, kept_requests))


class _Raise:
    """An error to raise in a coroutine, in place of a value to send to it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _replies_or_error(replies: Sequence[Reply]) -> list[Reply] | _Raise:
    failure = next((reply for reply in replies if isinstance(reply, Failure)), None)
    return list(replies) if failure is None else _Raise(failure.error)


def _subtree(tasks: Sequence[_Task]) -> list[_Task]:
    """Return `tasks` and all that they wait for, children before parents."""
    found: list[_Task] = []
    stack = list(tasks)
    while stack:
        found.append(task := stack.pop())
        if task.waits_for is not None:
            stack += task.waits_for.tasks
    return found[::-1]


def _close(tasks: Sequence[_Task]) -> None:
    """Close the tasks in order, and raise the first error once all of them are closed."""
    raised = None
    for task in tasks:
        task.waits_for = None
        try:
            task.coroutine.close()
        except KeyboardInterrupt:
            raise
        except OutOfBudget:
            pass  # the task has ended, which is what closing is for
        except BaseException as error:
            raised = raised or error
    if raised is not None:
        raise raised
