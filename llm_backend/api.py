"""Requests, replies and the engine protocol: all that a search knows of a language model.

Torch-free on purpose: `search/` imports this module and nothing else of `llm_backend/`. It knows
neither tokens' ids nor KV slots, only text in and text or log-probabilities out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, Protocol

Prompt = tuple[str, ...]
"""Segments of a prompt; the model sees their concatenation. Requests share KV by content, so the
split into segments is only for reading: it never changes a reply."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw a completion.

    Raises:
        ValueError: a field is out of its bound.
    """

    max_tokens: int = 64  # tokens, at least 1
    temperature: float = 0.7  # 0 is greedy
    top_p: float = 1.0  # nucleus mass in (0, 1]; 1 keeps all
    top_k: int | None = None  # most likely tokens kept; None keeps all
    stop: tuple[str, ...] = ()  # the completion ends before the first of these

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", tuple(self.stop))
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens} must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} must be at least 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be in (0, 1]")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1, or null to keep all tokens")
        if any(not text for text in self.stop):
            raise ValueError(f"stop={self.stop} holds an empty string")


@dataclass(frozen=True, slots=True)
class Generate:
    """Draw `n` completions of one prompt.

    Sample `k` of a request depends on (seed, k) and the prompt alone, never on what else is in
    the batch, but for the rounding of logits: a batch of another shape sums in another order. In
    fp32 this hardly ever changes a text, in 16 bits a third to a half of them
    (docs/benchmarks.md).
    """

    prefix_segments: Prompt
    n: int = 1
    sampling: Sampling = Sampling()
    seed: int = 0  # 64 bits

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n={self.n} must be at least 1")


@dataclass(frozen=True, slots=True)
class Score:
    """Teacher-forced log-probability of each continuation of one prompt."""

    prefix_segments: Prompt
    continuations: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.continuations or any(not text for text in self.continuations):
            raise ValueError(f"continuations={self.continuations!r} must be non-empty strings")


@dataclass(frozen=True, slots=True)
class Classify:
    """A reward model's score of an answer. Wants an engine with a classifier (classifier.py)."""

    question: str
    answer: str  # or as much of it as there is

    @property
    def prefix_segments(self) -> Prompt:
        return (self.question, self.answer)


Request = Generate | Score | Classify


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens one request cost; usages add up."""

    prompt_tokens: int = 0  # each prompt once, however many completions it has
    completion_tokens: int = 0  # generated or scored
    logical_kv_tokens: int = 0  # KV entries if no sequence shared any: sum of sequence lengths
    unique_kv_tokens: int = 0  # KV entries actually computed for this request

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Usage)))


@dataclass(frozen=True, slots=True)
class Completion:
    text: str  # without the stop string
    num_tokens: int  # generated, the stop string's included
    logprob: float  # sum over the generated tokens at temperature 1, nats
    finish_reason: Literal["stop", "length"]  # a stop string or end of text; or max_tokens


@dataclass(frozen=True, slots=True)
class GenerateReply:
    completions: tuple[Completion, ...]  # [n]
    usage: Usage


@dataclass(frozen=True, slots=True)
class ScoreReply:
    logprobs: tuple[float, ...]  # one a continuation: sum over its tokens, nats
    num_tokens: tuple[int, ...]  # tokens of each continuation
    usage: Usage


@dataclass(frozen=True, slots=True)
class ClassifyReply:
    score: float  # in [0, 1], higher is better
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that cannot be served: the search that sent it fails with `error`, no other."""

    error: Exception


Reply = GenerateReply | ScoreReply | ClassifyReply | Failure


class PromptTooLong(ValueError):
    """The prompt and its completion do not fit the model's context."""


class OutOfKVMemory(RuntimeError):
    """One sequence alone is larger than the KV pool."""


@dataclass(slots=True)
class EngineStats:
    """Counters since the engine was made."""

    steps: int = 0  # model forwards
    sequences: int = 0  # live sequences summed over steps
    tokens: int = 0  # tokens computed (prefill, decode and scoring)
    unique_kv_reads: int = 0  # KV entries under the live sequences, each once, summed over steps
    logical_kv_reads: int = 0  # the same, once for every sequence above it
    peak_kv_tokens: int = 0  # most KV slots in use at once
    evicted_kv_tokens: int = 0
    paused: int = 0  # times a sequence had to wait for KV memory
    drafts: int = 0  # times a sequence had drafted tokens to verify, summed over steps
    drafted_tokens: int = 0  # these tokens, among `tokens`
    accepted_tokens: int = 0  # of these
    captures: int = 0  # times a step was captured as a CUDA graph
    plan_enlargements: int = 0  # of these, since a forest needed more room than the plan had
    capture_seconds: float = 0.0  # wall time of the captures, compilation included
    seconds: float = 0.0  # wall time inside execute

    @property
    def mean_batch(self) -> float:
        """Live sequences a forward."""
        return self.sequences / self.steps if self.steps else 0.0


class Engine(Protocol):
    """Serves requests. Batching, caching and order of work are the engine's own business."""

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """Take in new requests (ticket to request) and work until some are answered.

        Returns:
            At least one reply as long as any request is outstanding, from this call or an earlier
            one; nothing otherwise. A ticket is answered exactly once.
        """
        ...

    def stats(self) -> EngineStats: ...

    def close(self) -> None: ...
