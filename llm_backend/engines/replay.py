"""Answers requests from a log of earlier replies; with an engine behind it, extends the log.

Alone, it replays a recorded run without a model. In front of an engine it makes a run resumable
inside a search: a search is a pure function of its replies, so replaying those it had already got
brings it back to where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from treeshare.llm_backend.api import (
    Completion,
    Engine,
    EngineStats,
    Failure,
    Generate,
    GenerateReply,
    Reply,
    Request,
    RewardReply,
    ScoreReply,
    Usage,
)


class ReplayEngine:
    """Serves known requests from `log` and passes the others on.

    Args:
        log: JSONL, one reply a line, keyed by the whole request (prompt, n, sampling, seed). A
            half-written last line, left by a run that was killed, is cut off.
        engine: serves what the log does not know; each of its replies is appended and flushed as
            it comes. Without one, an unknown request fails its search with a LookupError.

    Raises:
        FileNotFoundError: no log, and no engine to make one.
        ValueError: a line of the log cannot be read; names the file and line.
    """

    def __init__(self, log: str | Path, engine: Engine | None = None) -> None:
        self._path = Path(log)
        self._engine = engine
        self._known: dict[str, Reply] = {}
        self._pending: dict[int, Request] = {}
        self._stats = EngineStats()
        if engine is None or self._path.exists():
            self._read()
        self._file = None if engine is None else self._path.open("a", encoding="utf-8")

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        replies: dict[int, Reply] = {}
        unknown: dict[int, Request] = {}
        for number, request in requests.items():
            reply = self._known.get(request_key(request))
            if reply is not None:
                replies[number] = reply
            elif self._engine is not None:
                unknown[number] = request
            else:
                prompt = "".join(request.prefix_segments)
                replies[number] = Failure(
                    LookupError(f"{self._path} has no reply to the prompt ending {prompt[-60:]!r}")
                )
        if self._engine is None:
            self._stats.steps += bool(requests)
            self._stats.sequences += len(requests)
            return replies
        self._pending |= unknown
        if unknown or not replies:
            try:
                for number, reply in self._engine.execute(unknown).items():
                    self._append(self._pending.pop(number), reply)
                    replies[number] = reply
            except BaseException:
                self.cancel(list(self._pending))
                raise
        return replies

    def cancel(self, tickets: Iterable[int]) -> None:
        numbers = list(tickets)
        for number in numbers:
            self._pending.pop(number, None)
        if self._engine is not None:
            self._engine.cancel(numbers)

    def stats(self) -> EngineStats:
        return self._stats if self._engine is None else self._engine.stats()

    def close(self) -> None:
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if self._engine is not None:
                self._engine.close()

    def _read(self) -> None:
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data) and self._engine is not None:
            os.truncate(self._path, len(whole))
        for number, line in enumerate(whole.decode().splitlines(), start=1):
            try:
                row = json.loads(line)
                self._known[row["key"]] = _reply_from_json(row)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{self._path}:{number}: not a recorded reply: {error}") from error

    def _append(self, request: Request, reply: Reply) -> None:
        if isinstance(reply, Failure):
            return
        key = request_key(request)
        self._known[key] = reply
        row = {"key": key, "prompt": "".join(request.prefix_segments), **asdict(reply)}
        assert self._file is not None
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:  # a full disk, which does not say what it was full for
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def request_key(request: Request) -> str:
    """A digest of all that determines a reply."""
    fields = asdict(request) | {"prefix_segments": "".join(request.prefix_segments)}
    if isinstance(request, Generate):
        fields["sampling"] = asdict(request.sampling)
    text = json.dumps([type(request).__name__, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _reply_from_json(row: dict[str, Any]) -> Reply:
    usage = Usage(**row["usage"])
    if "completions" in row:
        return GenerateReply(tuple(Completion(**c) for c in row["completions"]), usage)
    if "logprobs" in row:
        return ScoreReply(tuple(row["logprobs"]), tuple(row["num_tokens"]), usage)
    return RewardReply(row["score"], usage)
