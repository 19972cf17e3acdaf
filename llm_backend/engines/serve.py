"""Functions to serve requests outside of any search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from treeshare.llm_backend.api import Engine, Failure, Reply, Request

R = TypeVar("R", bound=Reply)


def serve(engine: Engine, requests: Sequence[Request], kind: type[R]) -> list[R]:
    """Serve requests and return all replies, in the order of the requests.

    Args:
        engine: has no other requests outstanding.
        requests: to serve.
        kind: class of the replies.

    Raises:
        Exception: what a request failed with.
        TypeError: a reply is of another class.
    """
    replies = checked(engine.execute(dict(enumerate(requests))), kind)
    while len(replies) < len(requests):
        replies |= checked(engine.execute({}), kind)
    return [replies[number] for number in range(len(requests))]


def checked(replies: Mapping[int, Reply], kind: type[R]) -> dict[int, R]:
    """Return the replies, by request id, after a check that none is a failure.

    Raises:
        Exception: what a request failed with.
        TypeError: a reply is not of the class `kind`.
    """
    found: dict[int, R] = {}
    for number, reply in replies.items():
        if isinstance(reply, Failure):
            raise reply.error
        if not isinstance(reply, kind):
            raise TypeError(f"{reply} is no {kind.__name__}")
        found[number] = reply
    return found
