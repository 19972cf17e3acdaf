"""A scripted engine without a model, exact and instant, for tests and for writing policies.

A reply depends on the request alone, so a search on it is repeatable.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from treeshare.llm_backend.api import (
    Completion,
    EngineCapabilities,
    EngineStats,
    Generate,
    GenerateReply,
    Reply,
    Request,
    Reward,
    RewardReply,
    Score,
    ScoreReply,
    Usage,
)


class MockEngine:
    """Answers requests from a script.

    Args:
        replies: completions to pick from by a hash of (prompt, seed, sample index), or a function
            of these three that returns the completion.
        score: log-probability (at most 0) of a continuation given (prompt, continuation). The
            default is a hash of the two. A reward model's score is its exponential.

    Tokens are counted as words; no KV is shared.

    Raises:
        ValueError: `replies` is empty.
    """

    capabilities = EngineCapabilities(scores=True, seeds=True, logprobs=True, rewards=True)

    def __init__(
        self,
        replies: Sequence[str] | Callable[[str, int, int], str] = ("sure", "likely", "impossible"),
        score: Callable[[str, str], float] | None = None,
    ) -> None:
        if not callable(replies) and not replies:
            raise ValueError("replies must not be empty")
        self._replies = replies
        self._score = score or _hashed_score
        self._stats = EngineStats()

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """Answer all requests at once."""
        replies = {number: self._answer(request) for number, request in requests.items()}
        if requests:
            self._stats.steps += 1
            self._stats.sequences += len(requests)
        return replies

    def cancel(self, request_ids: Iterable[int]) -> None:
        """Do nothing, since no request is ever outstanding."""

    def stats(self) -> EngineStats:
        """Return the counters since the engine was made."""
        return self._stats

    def close(self) -> None:
        """Do nothing, since the engine holds nothing."""

    def _answer(self, request: Request) -> Reply:
        prompt = "".join(request.prefix_segments)
        if isinstance(request, Score):
            logprobs = tuple(self._score(prompt, text) for text in request.continuations)
            lengths = tuple(len(text.split()) for text in request.continuations)
            return ScoreReply(logprobs, lengths, self._usage(prompt, lengths))
        if isinstance(request, Reward):
            score = math.exp(self._score(request.question, request.answer))
            return RewardReply(score, Usage(prompt_tokens=len(prompt.split())))
        texts = [self._draw(prompt, request, k) for k in range(request.n)]
        lengths = tuple(len(text.split()) for text in texts)
        completions = tuple(
            Completion(text, length, -float(length), "stop")
            for text, length in zip(texts, lengths, strict=True)
        )
        return GenerateReply(completions, self._usage(prompt, lengths))

    def _draw(self, prompt: str, request: Generate, k: int) -> str:
        if callable(self._replies):
            return self._replies(prompt, request.seed, k)
        return self._replies[int(_uniform(prompt, request.seed, k) * len(self._replies))]

    def _usage(self, prompt: str, lengths: Sequence[int]) -> Usage:
        num_prompt = len(prompt.split())
        usage = Usage(
            prompt_tokens=num_prompt,
            completion_tokens=sum(lengths),
            logical_kv_tokens=num_prompt * len(lengths) + sum(lengths),
            unique_kv_tokens=num_prompt * len(lengths) + sum(lengths),
        )
        self._stats.tokens += usage.unique_kv_tokens
        self._stats.unique_kv_reads += usage.unique_kv_tokens
        self._stats.logical_kv_reads += usage.logical_kv_tokens
        return usage


def _hashed_score(prompt: str, continuation: str) -> float:
    return -10 * _uniform(prompt, continuation)


def _uniform(*key: object) -> float:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
