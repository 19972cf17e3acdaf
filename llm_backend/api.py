"""Requests, replies and the engine protocol: all that a search knows of a language model.

Torch-free on purpose: `search/` imports this module and nothing else of `llm_backend/`. It knows
neither tokens' ids nor KV slots, only text in and text or log-probabilities out.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal, Protocol

Prompt = tuple[str, ...]
"""Segments of a prompt; the model sees their concatenation. Requests share KV by content, so the
split into segments is only for reading: it never changes a reply."""

COOLEST, HOTTEST = 1e-6, 1e6
"""Bounds of a temperature that is not 0: logits divided by it stay finite in fp32."""
MOST_TOKENS = 1 << 31  # of a completion, and bound of `top_k`: more than any vocabulary has
MOST_SAMPLES = 1 << 16  # of one request: each is a job in the engine's memory


def _whole(name: str, value: Any, low: int, high: int, otherwise: str = "") -> int:
    """A whole number from `low` to `high`, as an int.

    Raises:
        ValueError: it is not one. True and 2.0 are none either.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ValueError(f"{name}={_shown(value)} must be a whole number{otherwise}")
    if number < low:
        raise ValueError(f"{name}={_shown(number)} must be at least {low}{otherwise}")
    if number > high:
        raise ValueError(f"{name}={_shown(number)} must be at most {high}{otherwise}")
    return number


def _number(name: str, value: Any) -> float:
    """A finite number as a float.

    Raises:
        ValueError: it is not one.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name}={_shown(value)} must be a number")
    try:
        number = float(value)
    except OverflowError:  # an int of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}={_shown(value)} must be a finite number")
    return number


def _strings(name: str, value: Any) -> tuple[str, ...]:
    """Strings as a tuple; one string alone is a tuple of one.

    Raises:
        ValueError: it is neither a string nor several.
    """
    if isinstance(value, str):
        return (str(value),)
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes | bytearray):
        raise ValueError(f"{name}={_shown(value)} must be strings")
    texts = tuple(value)
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{name} holds {_shown(text)}, which is no string")
    return texts


def _shown(value: Any) -> str:
    """A value as a message names it: one line of bounded length."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no int of more than 4,300 digits
        text = f"an integer of {value.bit_length()} bits"
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw a completion. NumPy's numbers become Python's.

    Raises:
        ValueError: a field is of another type, not finite, or out of its bound.
    """

    max_tokens: int = 64  # from 1 to MOST_TOKENS
    temperature: float = 0.7  # 0 is greedy; else from COOLEST to HOTTEST
    top_p: float = 1.0  # nucleus mass in (0, 1]; 1 keeps all
    top_k: int | None = None  # most likely tokens kept, 1 to MOST_TOKENS; None keeps all
    stop: tuple[str, ...] = ()  # the completion ends before the first; one string is one of them

    def __post_init__(self) -> None:
        temperature, top_p = _number("temperature", self.temperature), _number("top_p", self.top_p)
        if temperature != 0 and not COOLEST <= temperature <= HOTTEST:
            shown = _shown(self.temperature)
            raise ValueError(f"temperature={shown} must be 0, or from {COOLEST:g} to {HOTTEST:g}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p={_shown(self.top_p)} must be in (0, 1]")
        whole = _whole("max_tokens", self.max_tokens, 1, MOST_TOKENS)
        object.__setattr__(self, "max_tokens", whole)
        object.__setattr__(self, "temperature", temperature)
        object.__setattr__(self, "top_p", top_p)
        object.__setattr__(self, "stop", _strings("stop", self.stop))
        if self.top_k is not None:
            top_k = _whole("top_k", self.top_k, 1, MOST_TOKENS, ", or null to keep all tokens")
            object.__setattr__(self, "top_k", top_k)
        if "" in self.stop:
            raise ValueError(f"stop={self.stop} holds an empty string")


@dataclass(frozen=True, slots=True)
class Generate:
    """Draw `n` completions of one prompt.

    Sample `k` of a request depends on (seed, k) and the prompt alone, never on what else is in
    the batch, but for the rounding of logits: a batch of another shape sums in another order. In
    fp32 this hardly ever changes a text, in 16 bits a third to a half of them
    (docs/benchmarks.md).

    Raises:
        ValueError: a field is of another type or out of its bound.
    """

    prefix_segments: Prompt  # one string is one segment
    n: int = 1  # from 1 to MOST_SAMPLES
    sampling: Sampling = Sampling()
    seed: int = 0  # from 0 to 2^64 - 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix_segments", _strings("prompt", self.prefix_segments))
        object.__setattr__(self, "n", _whole("n", self.n, 1, MOST_SAMPLES))
        object.__setattr__(self, "seed", _whole("seed", self.seed, 0, (1 << 64) - 1))
        if not isinstance(self.sampling, Sampling):
            raise ValueError(f"sampling={_shown(self.sampling)} must be a Sampling")


@dataclass(frozen=True, slots=True)
class Score:
    """Teacher-forced log-probability of each continuation of one prompt.

    A token may span the border of prompt and continuation: of `a: ` and `4`, if ` 4` is one token.
    So the tokens of the prompt and of prompt + continuation, for each continuation, are compared,
    and the score of a continuation is log p(its tokens beyond the start that all of these share |
    that start). It includes the tokens of the prompt's end that some continuation changes. All
    continuations of a request are scored after the same start, so their scores can be compared.

    Raises:
        ValueError: a field is of another type, or there is no continuation, or an empty one.
    """

    prefix_segments: Prompt  # one string is one segment
    continuations: tuple[str, ...]  # one string is one continuation

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix_segments", _strings("prompt", self.prefix_segments))
        texts = _strings("continuations", self.continuations)
        object.__setattr__(self, "continuations", texts)
        if not texts or "" in texts:
            raise ValueError(f"continuations={texts!r} must be non-empty strings")


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward model's score of an answer. Wants an engine with a reward_model (reward_model.py).

    Raises:
        ValueError: a field is no string.
    """

    question: str
    answer: str  # or as much of it as there is

    def __post_init__(self) -> None:
        for name in ("question", "answer"):
            text = getattr(self, name)
            if not isinstance(text, str):
                raise ValueError(f"{name}={_shown(text)} must be a string")

    @property
    def prefix_segments(self) -> Prompt:
        return (self.question, self.answer)


Request = Generate | Score | Reward


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
    num_tokens: tuple[int, ...]  # scored tokens of each continuation, as `Score` defines them
    usage: Usage


@dataclass(frozen=True, slots=True)
class RewardReply:
    score: float  # in [0, 1], higher is better
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that cannot be served: the search that sent it fails with `error`, no other."""

    error: Exception


Reply = GenerateReply | ScoreReply | RewardReply | Failure


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
    """Serves requests. How it batches, caches and orders its work is not part of the protocol.

    A request that cannot be served is answered by a `Failure`; nothing that a request holds makes
    `execute` raise.
    """

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """Take in new requests (ticket to request) and work until some are answered.

        When this raises (memory, an interrupt), an engine may have dropped all that is outstanding,
        of earlier calls too. It never answers then with what another request asked.

        Args:
            requests: tickets are unique among those outstanding. Several users of one engine take
                them from one counter, as `search.scheduler` does.

        Returns:
            At least one reply as long as any request is outstanding, from this call or an earlier
            one; nothing otherwise. A ticket is answered exactly once, unless it is cancelled.
        """
        ...

    def cancel(self, tickets: Iterable[int]) -> None:
        """Drop outstanding requests and free what they hold; they are never answered. Tickets that
        are not outstanding are ignored."""
        ...

    def stats(self) -> EngineStats: ...

    def close(self) -> None: ...
