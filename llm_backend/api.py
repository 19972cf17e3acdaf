"""Requests, replies and the engine protocol: the interface between a search and a language model.

`search/` imports this module and nothing else of `llm_backend/`, so it must stay free of torch.
Requests hold text; replies hold text, log-probabilities and counts of tokens.
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
MOST_NUMBER = (1 << 63) - 1  # of anything that is counted
MOST_SAMPLES = 1 << 16  # of one request: each is a job in the engine's memory


def whole_number(
    name: str, value: Any, low: int = 1, high: int = MOST_NUMBER, otherwise: str = ""
) -> int:
    """Check that a value is a whole number from `low` to `high`, and return it as an int.

    Args:
        name: what the message calls it, such as `engine.kv_tokens`.
        value: a whole number of any kind.
        low: the least value.
        high: the largest value.
        otherwise: what else is allowed, for the message.

    Raises:
        ValueError: it is not; True and 2.0 are refused as well.
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
    """Check that a value is a finite number, and return it as a float.

    Raises:
        ValueError: it is not.
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
    """Check that a value is one string or several, and return them as a tuple.

    Raises:
        ValueError: it is not.
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


def _check_chat(value: Any) -> None:
    if value is not None and not isinstance(value, Chat):
        raise ValueError(f"chat={_shown(value)} must be a Chat")


def _shown(value: Any) -> str:
    """Write a value for an error message: one line of bounded length."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no int of more than 4,300 digits
        text = f"an integer of {value.bit_length()} bits"
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of a completion. NumPy's numbers become Python's.

    Args:
        max_tokens: tokens of the completion at most, from 1 to `MOST_TOKENS`.
        temperature: 0 is greedy; else from `COOLEST` to `HOTTEST`.
        top_p: nucleus mass in (0, 1]; 1 keeps all tokens.
        top_k: number of most likely tokens kept, from 1 to `MOST_TOKENS`; None keeps all.
        stop: the completion ends before the first of these strings; one string is a tuple of one.
        ignore_eos: an end token of the model does not end the completion, so that it has
            `max_tokens` tokens unless a stop string ends it. For benchmarks.

    Raises:
        ValueError: a field is of another type, not finite, or out of its bound.
    """

    max_tokens: int = 64
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        temperature, top_p = _number("temperature", self.temperature), _number("top_p", self.top_p)
        if temperature != 0 and not COOLEST <= temperature <= HOTTEST:
            shown = _shown(self.temperature)
            raise ValueError(f"temperature={shown} must be 0, or from {COOLEST:g} to {HOTTEST:g}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p={_shown(self.top_p)} must be in (0, 1]")
        whole = whole_number("max_tokens", self.max_tokens, 1, MOST_TOKENS)
        object.__setattr__(self, "max_tokens", whole)
        object.__setattr__(self, "temperature", temperature)
        object.__setattr__(self, "top_p", top_p)
        object.__setattr__(self, "stop", _strings("stop", self.stop))
        if self.top_k is not None:
            top_k = whole_number(
                "top_k", self.top_k, 1, MOST_TOKENS, ", or null to keep all tokens"
            )
            object.__setattr__(self, "top_k", top_k)
        if "" in self.stop:
            raise ValueError(f"stop={self.stop} holds an empty string")
        if not isinstance(self.ignore_eos, bool):
            raise ValueError(f"ignore_eos={_shown(self.ignore_eos)} must be true or false")


@dataclass(frozen=True, slots=True)
class Chat:
    """A prompt as a conversation, for a model that has a chat format.

    Args:
        turns: pairs of a role and a text: `system` first or not at all, then `user` and `assistant`
            in turns, the last the user's.
        reply: how the assistant's reply begins, in pieces. Each piece is turned into tokens by
            itself, so the tokens of a prompt begin those of every prompt with the same turns and
            the same first pieces.

    Raises:
        ValueError: a field is of another type, or the roles do not alternate.
    """

    turns: tuple[tuple[str, str], ...]
    reply: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            turns = tuple(map(tuple, self.turns))
            roles, texts = zip(*turns, strict=True)
            "".join(texts)  # it raises a TypeError unless all are strings
        except (TypeError, ValueError):
            shown = _shown(self.turns)
            raise ValueError(f"turns={shown} must be pairs of a role and a text") from None
        asked = roles[roles[0] == "system" :]
        if asked != ("user", "assistant") * (len(asked) // 2) + ("user",):
            raise ValueError(
                f"the roles of the turns are {_shown(roles)}: they must be system or nothing, then "
                "user and assistant in turns, the last user"
            )
        object.__setattr__(self, "turns", turns)
        object.__setattr__(self, "reply", _strings("reply", self.reply))


@dataclass(frozen=True, slots=True)
class Generate:
    """A request for `n` completions of one prompt.

    Sample `k` of a request depends on (seed, k) and the prompt alone, and not on the other
    sequences of its batch, except through the rounding of logits: a batch of another shape sums in
    another order. In fp32 this hardly ever changes a text, in 16 bits a third to a half of them
    (docs/benchmarks.md).

    Args:
        prefix_segments: the prompt; one string is one segment.
        n: number of completions, from 1 to `MOST_SAMPLES`.
        sampling: how each completion is drawn.
        seed: from 0 to 2^64 - 1.
        chat: the prompt as a conversation, which an engine whose model has a chat format takes in
            place of the segments; None asks in plain text.

    Raises:
        ValueError: a field is of another type or out of its bound.
    """

    prefix_segments: Prompt
    n: int = 1
    sampling: Sampling = Sampling()
    seed: int = 0
    chat: Chat | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix_segments", _strings("prompt", self.prefix_segments))
        object.__setattr__(self, "n", whole_number("n", self.n, 1, MOST_SAMPLES))
        object.__setattr__(self, "seed", whole_number("seed", self.seed, 0, (1 << 64) - 1))
        if not isinstance(self.sampling, Sampling):
            raise ValueError(f"sampling={_shown(self.sampling)} must be a Sampling")
        _check_chat(self.chat)


@dataclass(frozen=True, slots=True)
class Score:
    """A request for the teacher-forced log-probability of each continuation of one prompt.

    A token may span the border of prompt and continuation: of `a: ` and `4`, if ` 4` is one token.
    So the tokens of the prompt and of prompt + continuation, for each continuation, are compared,
    and the score of a continuation is log p(its tokens beyond the start that all of these share |
    that start). It includes the tokens of the prompt's end that some continuation changes. All
    continuations of a request are scored after the same start, so their scores can be compared.

    Args:
        prefix_segments: the prompt; one string is one segment.
        continuations: one string is one continuation.
        chat: the prompt as a conversation, as of `Generate`. Its tokens end where the reply ends,
            and each continuation is turned into tokens by itself.

    Raises:
        ValueError: a field is of another type, or there is no continuation, or an empty one.
    """

    prefix_segments: Prompt
    continuations: tuple[str, ...]
    chat: Chat | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix_segments", _strings("prompt", self.prefix_segments))
        texts = _strings("continuations", self.continuations)
        object.__setattr__(self, "continuations", texts)
        if not texts or "" in texts:
            raise ValueError(f"continuations={texts!r} must be non-empty strings")
        _check_chat(self.chat)


@dataclass(frozen=True, slots=True)
class Reward:
    """A request for a reward model's score of an answer.

    It needs an engine with a reward model (`reward.engine.RewardEngine`).

    Args:
        question: the problem's text.
        answer: the answer, or its beginning.

    Raises:
        ValueError: a field is not a string.
    """

    question: str
    answer: str

    def __post_init__(self) -> None:
        for name in ("question", "answer"):
            text = getattr(self, name)
            if not isinstance(text, str):
                raise ValueError(f"{name}={_shown(text)} must be a string")

    @property
    def prefix_segments(self) -> Prompt:
        """The question and the answer, as the prompt of other requests."""
        return (self.question, self.answer)


Request = Generate | Score | Reward
"""What an engine is asked for."""


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
    """One generated text."""

    text: str  # without the stop string
    num_tokens: int  # generated, the stop string's included
    logprob: float  # sum over the generated tokens at temperature 1, nats
    finish_reason: Literal["stop", "length"]  # a stop string or end of text; or max_tokens


@dataclass(frozen=True, slots=True)
class GenerateReply:
    """The reply to a `Generate`."""

    completions: tuple[Completion, ...]  # [n]
    usage: Usage


@dataclass(frozen=True, slots=True)
class ScoreReply:
    """The reply to a `Score`."""

    logprobs: tuple[float, ...]  # one a continuation: sum over its tokens, nats
    num_tokens: tuple[int, ...]  # scored tokens of each continuation, as `Score` defines them
    usage: Usage


@dataclass(frozen=True, slots=True)
class RewardReply:
    """The reply to a `Reward`."""

    score: float  # in [0, 1], higher is better
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failure:
    """The reply to a request that cannot be served; only the search that sent it fails."""

    error: Exception


Reply = GenerateReply | ScoreReply | RewardReply | Failure
"""What an engine answers."""


class PromptTooLong(ValueError):
    """The prompt and its completion do not fit the model's context."""


class OutOfKVMemory(RuntimeError):
    """One sequence alone is larger than the KV pool."""


@dataclass(slots=True)
class EngineStats:
    """Counters of an engine since it was made."""

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
    seconds: float = 0.0  # wall time inside the engine


@dataclass(frozen=True, slots=True)
class EngineCapabilities:
    """What an engine can do, so that a search it cannot serve is refused before it starts.

    Args:
        scores: it serves `Score`.
        seeds: the sample of a `Generate` depends on its seed, and not on other requests.
        logprobs: completions have log-probabilities; otherwise these are NaN.
        rewards: it serves `Reward`.
        chat: the form in which it asks `chat`, such as `template 3f2a91c0`; None reads the segments
            of every prompt as plain text.
    """

    scores: bool
    seeds: bool
    logprobs: bool
    rewards: bool = False
    chat: str | None = None


class Engine(Protocol):
    """A server of requests. How it batches, caches and orders its work is its own matter.

    A request that cannot be served is answered by a `Failure`; nothing that a request holds makes
    `execute` raise.
    """

    @property
    def capabilities(self) -> EngineCapabilities:
        """What the engine can do; it does not change."""
        ...

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """Take in new requests, by request id, and work until some are answered.

        When this raises (memory, an interrupt), an engine may have dropped all that is outstanding,
        of earlier calls too. It never answers a request with the reply to another one.

        Args:
            requests: their ids are unique among those outstanding. Several users of one engine take
                ids from one counter, as `search.scheduler` does.

        Returns:
            At least one reply as long as any request is outstanding, from this call or an earlier
            one; nothing otherwise. Each request is answered exactly once, unless it is cancelled.
        """
        ...

    def cancel(self, request_ids: Iterable[int]) -> None:
        """Drop outstanding requests and free what they hold; they are never answered.

        Ids of requests that are not outstanding are ignored.
        """
        ...

    def stats(self) -> EngineStats:
        """Return the counters since the engine was made."""
        ...

    def close(self) -> None:
        """Free what the engine holds; it serves no requests afterwards."""
        ...
