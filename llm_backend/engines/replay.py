"""An engine that answers from a log of earlier replies, and can extend the log.

Alone, it replays a recorded run without a model. In front of another engine it makes a run
resumable inside a search: a search is a pure function of its replies, so replaying those that it
got brings it back to where it stopped.
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
    EngineCapabilities,
    EngineStats,
    Failure,
    Generate,
    GenerateReply,
    Reply,
    Request,
    Reward,
    RewardReply,
    ScoreReply,
    Usage,
)


class ReplayEngine:
    """Serves requests that are in a log, and passes others on to an engine.

    Args:
        log: JSONL, one reply a line, keyed by the whole request (prompt, n, sampling, seed; and the
            turns, if the engine asks in a chat format). A half-written last line, left by a run
            that was killed, is cut off.
        engine: serves requests that are not in the log; each of its replies is appended and flushed
            as it comes. Without one, such a request fails its search with a LookupError.

    Attributes:
        pending: requests that the engine behind has not answered, by request id.

    Raises:
        FileNotFoundError: no log, and no engine to make one.
        ValueError: a line of the log cannot be read; names the file and line.
    """

    def __init__(self, log: str | Path, engine: Engine | None = None) -> None:
        self._path = Path(log)
        self._engine = engine
        self._known: dict[str, Reply] = {}
        self.pending: dict[int, Request] = {}
        self._stats = EngineStats()
        if engine is None or self._path.exists():
            self._read()
        self._file = None if engine is None else self._path.open("a", encoding="utf-8")

    @property
    def capabilities(self) -> EngineCapabilities:
        """Those of the engine behind; a log alone can hold replies of every kind."""
        if self._engine is not None:
            return self._engine.capabilities
        return EngineCapabilities(scores=True, seeds=True, logprobs=True, rewards=True)

    @property
    def resources(self) -> Mapping[str, Any]:
        """What the engine behind computes with, as far as it says."""
        resources: Mapping[str, Any] = getattr(self._engine, "resources", {})
        return resources

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """Answer known requests at once; otherwise wait for the engine behind."""
        replies: dict[int, Reply] = {}
        unknown: dict[int, Request] = {}
        for number, request in requests.items():
            known = (self._known.get(key) for key in self._keys(request))
            reply = next((reply for reply in known if reply is not None), None)
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
        self.pending |= unknown
        if unknown or not replies:
            try:
                for number, reply in self._engine.execute(unknown).items():
                    self._append(self.pending.pop(number), reply)
                    replies[number] = reply
            except BaseException:
                self.cancel(list(self.pending))
                raise
        return replies

    def cancel(self, request_ids: Iterable[int]) -> None:
        """Drop outstanding requests; see `Engine.cancel`."""
        numbers = list(request_ids)
        for number in numbers:
            self.pending.pop(number, None)
        if self._engine is not None:
            self._engine.cancel(numbers)

    def stats(self) -> EngineStats:
        """Return the counters of the engine behind; of a log alone, its own."""
        return self._stats if self._engine is None else self._engine.stats()

    def close(self) -> None:
        """Close the log, and the engine behind."""
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if self._engine is not None:
                self._engine.close()

    def _keys(self, request: Request) -> tuple[str, ...]:
        """Return the keys under which a reply may be: with the turns of a conversation or without.

        An engine that asks in plain text does not read the turns. A log alone may be of any engine.
        """
        if self._engine is None:
            return request_key(request), request_key(request, in_turns=False)
        return (request_key(request, in_turns=self._engine.capabilities.chat is not None),)

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
        (key,) = self._keys(request)
        self._known[key] = reply
        row = {"key": key, "prompt": "".join(request.prefix_segments), **asdict(reply)}
        assert self._file is not None and self._engine is not None
        chat = None if isinstance(request, Reward) else request.chat
        if chat is not None and self._engine.capabilities.chat is not None:
            row["chat"] = asdict(chat)
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:  # a full disk, which does not say what it was full for
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def request_key(request: Request, *, in_turns: bool = True) -> str:
    """Return a digest of all that determines a reply.

    Args:
        request: the request.
        in_turns: whether the turns of its conversation, if it has one, are asked.
    """
    fields = asdict(request) | {"prefix_segments": "".join(request.prefix_segments)}
    if not in_turns or fields.get("chat") is None:  # as in logs of earlier versions
        fields.pop("chat", None)
    if isinstance(request, Generate):
        fields["sampling"] = sampling = asdict(request.sampling)
        if not sampling["ignore_eos"]:  # logs of earlier versions have no such field
            del sampling["ignore_eos"]
    text = json.dumps([type(request).__name__, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _reply_from_json(row: dict[str, Any]) -> Reply:
    usage = Usage(**row["usage"])
    if "completions" in row:
        return GenerateReply(tuple(Completion(**c) for c in row["completions"]), usage)
    if "logprobs" in row:
        return ScoreReply(tuple(row["logprobs"]), tuple(row["num_tokens"]), usage)
    return RewardReply(row["score"], usage)
