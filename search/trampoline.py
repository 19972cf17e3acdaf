"""Steps the `async` code of one search: no asyncio, no threads, no timers.

A search is ordinary coroutines that await `ask` (requests to the model) and `gather` (several
coroutines at once). The trampoline runs them until every one is blocked and hands out the requests
they wait for; once all of these are answered it goes on. So a search is a pure function of its
replies: when they come, and what else shares the batch, cannot change it.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, NoReturn

from ..llm_backend.api import Failure, Reply, Request


class _Ask:
    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = list(requests)

    def __await__(self) -> Generator[_Ask, Any, list[Any]]:
        replies: list[Any] = yield self
        return replies


class _End:
    def __await__(self) -> Generator[_End, Any, NoReturn]:
        yield self
        raise AssertionError("an ended search is never resumed")


class _Gather:
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
        self.result: Any = None

    def close(self) -> None:
        for task in self.waits_for.tasks if self.waits_for else ():
            task.close()
        self.waits_for = None
        self.coroutine.close()


def ask(requests: Sequence[Request]) -> Awaitable[list[Any]]:
    """Send requests to the model. Awaits their replies, in order."""
    return _Ask(requests)


def end() -> Awaitable[NoReturn]:
    """End the search here, unfinished."""
    return _End()


def gather(*awaitables: Awaitable[Any]) -> Awaitable[list[Any]]:
    """Run coroutines (or further asks and gathers) side by side. Awaits their results, in order.

    If one raises, the others are closed and its exception comes out of the gather.
    """
    return _Gather(awaitables)


async def _result_of(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class Trampoline:
    """Drives one coroutine to its end.

    Args:
        coroutine: the search.
        admit: asked, as requests come up, whether so many may go out with this step; False ends
            the search at once, unfinished.

    Raises:
        TypeError: `coroutine` is none.
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], admit: Callable[[int], bool] = lambda _: True
    ) -> None:
        if not inspect.iscoroutine(coroutine):
            raise TypeError(f"a search must be a coroutine (`async def`), not {coroutine!r}")
        self._main = _Task(coroutine)
        self._admit = admit
        self._ready: deque[tuple[_Task, Any]] = deque([(self._main, None)])
        self._blocked: list[tuple[_Task, int]] = []  # (task, number of requests)
        self._requests: list[Request] = []
        self.is_done = False
        self.is_finished = False  # done, and by returning
        self.result: Any = None

    def step(self, replies: Sequence[Reply] = ()) -> list[Request]:
        """Deliver the replies to the last step's requests, and run until all is blocked again.

        Returns:
            The requests now waited for; none when the search is done.

        Raises:
            Exception: whatever the search raised; it is done then.
        """
        if len(replies) != len(self._requests):
            raise ValueError(f"{len(replies)} replies to {len(self._requests)} requests")
        begin = 0
        for task, count in self._blocked:
            self._ready.append((task, _delivery(replies[begin : begin + count])))
            begin += count
        self._blocked, self._requests = [], []
        while self._ready and not self.is_done:
            self._resume(*self._ready.popleft())
        assert self.is_done or self._requests
        return self._requests

    def close(self) -> None:
        """End the search where it stands."""
        self._main.close()
        self._ready.clear()
        self._blocked, self._requests = [], []
        self.is_done = True

    def _resume(self, task: _Task, sent: Any) -> None:
        task.waits_for = None
        try:
            if isinstance(sent, _Thrown):
                operation = task.coroutine.throw(sent.error)
            else:
                operation = task.coroutine.send(sent)
        except StopIteration as stop:
            self._return(task, stop.value)
        except Exception as error:
            self._raise(task, error)
        else:
            self._block(task, operation)

    def _block(self, task: _Task, operation: Any) -> None:
        if isinstance(operation, _Ask):
            if not operation.requests:
                self._ready.append((task, []))
            elif self._admit(len(self._requests) + len(operation.requests)):
                self._blocked.append((task, len(operation.requests)))
                self._requests += operation.requests
            else:
                self.close()
        elif isinstance(operation, _Gather):
            if not operation.awaitables:
                self._ready.append((task, []))
            elif operation.tasks:
                self._throw(task, RuntimeError("a gather can be awaited only once"))
            else:
                operation.tasks = [
                    _Task(child if inspect.iscoroutine(child) else _result_of(child), task)
                    for child in operation.awaitables
                ]
                task.waits_for = operation
                self._ready.extend((child, None) for child in operation.tasks)
        elif isinstance(operation, _End):
            self.close()
        else:
            self._throw(task, TypeError(f"cannot await {operation!r} in a search"))

    def _throw(self, task: _Task, error: Exception) -> None:
        self._ready.append((task, _Thrown(error)))

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

    def _raise(self, task: _Task, error: Exception) -> None:
        waiter = task.waiter
        if waiter is None:
            self.close()
            raise error
        gathered = waiter.waits_for
        assert gathered is not None
        closed = _subtree(gathered.tasks)
        for child in gathered.tasks:
            child.close()
        self._ready = deque((t, sent) for t, sent in self._ready if t not in closed)
        self._drop_requests(closed)
        self._throw(waiter, error)

    def _drop_requests(self, closed: set[_Task]) -> None:
        kept_blocked, kept_requests, begin = [], [], 0
        for task, count in self._blocked:
            if task not in closed:
                kept_blocked.append((task, count))
                kept_requests += self._requests[begin : begin + count]
            begin += count
        self._blocked, self._requests = kept_blocked, kept_requests


class _Thrown:
    """Marks a value to be thrown into a coroutine, not sent."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _delivery(replies: Sequence[Reply]) -> list[Reply] | _Thrown:
    failure = next((reply for reply in replies if isinstance(reply, Failure)), None)
    return list(replies) if failure is None else _Thrown(failure.error)


def _subtree(tasks: Sequence[_Task]) -> set[_Task]:
    found = set(tasks)
    for task in tasks:
        if task.waits_for is not None:
            found |= _subtree(task.waits_for.tasks)
    return found
