"""Serve uneven requests for a long time, and check the replies and the memory.

The command is `python -m treeshare.experiments.soak`, configured by conf/soak.yaml. The first
attention serves the requests, which arrive and end at random, in an ample KV pool; the others serve
the same requests there and in smaller pools. In fp32 their tokens must be the first's, except where
two tokens are equally good within rounding (`ties.gap`); no slot may be lost and no memory kept. In
16 bits the number of replies that differ is only reported.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from treeshare.experiments.bench.attention.tables import markdown_table
from treeshare.experiments.bench.decode.options import ModelOptions
from treeshare.experiments.bench.decode.workloads import Filler
from treeshare.experiments.results.directory import JsonLines, write_atomically
from treeshare.experiments.runs.command import print_error, run_command
from treeshare.experiments.runs.config import explained, options_of
from treeshare.experiments.runs.gc_tuning import rare_collections
from treeshare.llm_backend.api import Failure, Generate, Reply, ScoreReply
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.attention import BACKENDS
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.model.random_models import load_network
from treeshare.llm_backend.runtime.observer import EngineObserver

from .ties import gap
from .uneven_requests import Sizes, arrivals, uneven_requests

Tokens = Mapping[tuple[int, int], tuple[int, ...]]
"""Generated ids by request and sample."""
_TIE = 1e-3  # difference of logits, or of probabilities, that rounding explains in fp32
_CHECKED_EVERY = 100  # calls of the engine from one check of its cache to the next


@dataclass(slots=True)
class Options:
    """The keys of soak.yaml.

    Raises:
        ValueError: an unknown attention, or a number out of its bound.
    """

    model: ModelOptions
    attention: list[str]
    shares: list[float]
    requests: Sizes
    kv_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    seed: int
    output_dir: str

    def __post_init__(self) -> None:
        for name in self.attention:
            if name not in BACKENDS:
                raise ValueError(f"attention={name!r} must be one of {', '.join(BACKENDS)}")
        for share in self.shares:
            if not 0 < share <= 1:
                raise ValueError(f"shares={share} must be above 0 and at most 1")
        if not (self.attention and self.shares):
            raise ValueError("attention and shares must name at least one each")


@dataclass(frozen=True, slots=True)
class Soaked:
    """The result of one attention in one pool: a line of results.jsonl."""

    attention: str
    kv_tokens: int  # size of the pool
    requests: int
    sequences: int  # generated and scored
    tokens: int  # generated
    prompt_tokens: int
    seconds: float
    captures: int
    plan_enlargements: int
    capture_seconds: float
    evicted: int  # KV tokens evicted
    paused: int  # times a sequence waited for memory
    failed: int  # requests that failed
    lost_slots: int  # slots not free after all requests have ended and the cache is emptied
    device_mb: list[float]  # allocated on the GPU, after each quarter of the requests
    device_captures: list[int]  # captures so far, at the same times: graphs and plans keep memory
    host_mb: float  # peak of the process
    compared: int  # sequences compared with the first attention's in its first pool
    different: int  # sequences that differ
    largest_gap: float  # largest gap of those that differ (`ties.gap`)
    score_gap: float  # largest difference of two scores, nats a token
    is_exact: bool  # whether gaps mean something, which they do in fp32

    @property
    def is_sound(self) -> bool:
        """Whether nothing was lost, nothing grew, and nothing differs by more than rounding."""
        quarters = list(zip(self.device_captures, self.device_mb, strict=True))[1:]
        has_grown = any(
            captures == before and mb > 1.1 * mb_before
            for (before, mb_before), (captures, mb) in pairwise(quarters)
        )
        is_wrong = self.is_exact and max(self.largest_gap, self.score_gap) > _TIE
        return not (self.failed or self.lost_slots or has_grown or is_wrong)


class Recorder(EngineObserver):
    """Keeps the ids of all tokens that an engine generates.

    Attributes:
        generated: ids by (request id, sample index).
    """

    def __init__(self) -> None:
        self.generated: dict[tuple[int, int], tuple[int, ...]] = {}

    def on_sequence_end(self, request_id: int, sample_index: int, tokens: Sequence[int]) -> None:
        """Keep a sequence's ids."""
        self.generated[request_id, sample_index] = tuple(tokens)


class RecordedEngine(TreeEngine):
    """A tree engine, and the ids of all tokens that it generates.

    Args:
        model: see `TreeEngine`.
        kv_tokens: see `TreeEngine`.
        max_num_seqs: see `TreeEngine`.
        max_num_batched_tokens: see `TreeEngine`.

    Attributes:
        generated: ids by (request id, sample index).
    """

    def __init__(
        self, model: Model, kv_tokens: int, max_num_seqs: int, max_num_batched_tokens: int
    ) -> None:
        recorder = Recorder()
        self.generated = recorder.generated
        limits = kv_tokens, max_num_seqs, max_num_batched_tokens
        super().__init__(model, *limits, observer=recorder)


class Soak:
    """The requests, and the first engine's replies.

    Args:
        options: what to serve, and on what.
        model: serves them on several attentions.
    """

    def __init__(self, options: Options, model: Model) -> None:
        self._options = options
        self._model = model
        filler = Filler(model)
        self._requests = uneven_requests(filler, options.requests, options.seed)
        self._tokens: Tokens = {}
        self._scores: dict[int, ScoreReply] = {}

    def run(self) -> Iterator[Soaked]:
        """Yield a row for the first attention, and one for each other attention in each pool.

        A single attention is compared with itself.

        Raises:
            AssertionError: the cache of an engine is inconsistent.
        """
        (first, *others), shares = self._options.attention, self._options.shares
        for name, share in [(first, shares[0]), *product(others or [first], shares)]:
            model = replace(self._model, attention=name)
            size = int(self._options.kv_tokens * share)
            limits = self._options.max_num_seqs, self._options.max_num_batched_tokens
            with closing(RecordedEngine(model, size, *limits)) as engine:
                yield self._served(name, engine)

    @rare_collections()
    def _served(self, name: str, engine: RecordedEngine) -> Soaked:
        began = time.perf_counter()
        replies: dict[int, Reply] = {}
        quarters: list[tuple[int, float]] = []  # captures and MB after each
        waiting = list(enumerate(self._requests))[::-1]
        for call, allowed in enumerate(arrivals(self._options.requests, self._options.seed)):
            outstanding = len(self._requests) - len(waiting) - len(replies)
            new = [waiting.pop() for _ in range(min(len(waiting), max(allowed - outstanding, 0)))]
            replies |= engine.execute(dict(new))
            if call % _CHECKED_EVERY == 0:
                engine.cache.check_integrity()
            if len(replies) * 4 >= len(self._requests) * (len(quarters) + 1):
                quarters.append((engine.stats().captures, _device_mb(engine.model.network.device)))
            if len(replies) == len(self._requests):
                break
        seconds = time.perf_counter() - began
        engine.cache.check_integrity()
        stats, slots = replace(engine.stats()), engine.pool.slots
        engine.reset_cache()
        done = [reply for reply in replies.values() if not isinstance(reply, Failure)]
        scores = _scores(replies)
        if not self._tokens:
            self._tokens, self._scores = engine.generated, scores
        gaps = self._gaps(engine)
        return Soaked(
            attention=name,
            kv_tokens=slots.num_slots,
            requests=len(replies),
            sequences=len(engine.generated)
            + sum(len(r.logprobs) for r in _scores(replies).values()),
            tokens=sum(map(len, engine.generated.values())),
            prompt_tokens=sum(reply.usage.prompt_tokens for reply in done),
            seconds=seconds,
            captures=stats.captures,
            plan_enlargements=stats.plan_enlargements,
            capture_seconds=stats.capture_seconds,
            evicted=stats.evicted_kv_tokens,
            paused=stats.paused,
            failed=len(replies) - len(done),
            lost_slots=slots.num_slots - slots.num_free,
            device_mb=[mb for _, mb in quarters],
            device_captures=[captures for captures, _ in quarters],
            host_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            compared=len(self._tokens),
            different=len(gaps),
            largest_gap=max(gaps, default=0.0),
            score_gap=max(map(_score_gap, self._scores.values(), scores.values()), default=0.0),
            is_exact=engine.model.network.dtype == torch.float32,
        )

    def _gaps(self, engine: RecordedEngine) -> list[float]:
        """Return the gap of each sequence that is not the first engine's; NaN in 16 bits."""
        gaps = []
        for (number, sample), expected in self._tokens.items():
            tokens = engine.generated.get((number, sample), ())
            if tokens != expected:
                request = self._requests[number]
                assert isinstance(request, Generate)
                is_exact = engine.model.network.dtype == torch.float32
                asked = engine.model, request, sample, expected, tokens
                gaps.append(gap(*asked) if is_exact else math.nan)
        return gaps


def run(cfg: DictConfig) -> list[Soaked]:
    """Serve what a composed configuration asks for.

    Raises:
        SetupError: it cannot be run.
    """
    with explained():
        options = options_of(Options, cfg)
        asked = options.model
        model = load_network(asked.name, asked.dtype, asked.device, asked.fused)
        directory = Path(options.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "results.jsonl"
        path.unlink(missing_ok=True)
        file: JsonLines[Any] = JsonLines(path, Soaked)
    with closing(file):
        for row in Soak(options, model).run():
            file.append(row)
            print(table([row]), flush=True)
        write_atomically(directory / "results.md", table(file.rows))
        return file.rows


def table(rows: Sequence[Soaked]) -> str:
    """Write the rows as a Markdown table."""
    head = (
        "attention", "KV pool", "requests", "sequences", "tokens", "prompt tokens", "seconds",
        "captures", "enlargements", "their seconds", "evicted", "paused", "failed", "lost slots",
        "GPU MB by quarter", "host MB", "different", "largest gap", "of scores",
    )  # fmt: skip
    body = [
        (
            row.attention, f"{row.kv_tokens:,}", f"{row.requests:,}", f"{row.sequences:,}",
            f"{row.tokens:,}", f"{row.prompt_tokens:,}", f"{row.seconds:.1f}", f"{row.captures}",
            f"{row.plan_enlargements}", f"{row.capture_seconds:.1f}", f"{row.evicted:,}",
            f"{row.paused:,}", f"{row.failed}", f"{row.lost_slots}",
            ", ".join(f"{mb:,.0f}" for mb in row.device_mb), f"{row.host_mb:,.0f}",
            f"{row.different} of {row.compared:,}", f"{row.largest_gap:.1g}",
            f"{row.score_gap:.1g}",
        )
        for row in rows
    ]  # fmt: skip
    return markdown_table(head, body, {0})


def main() -> int:
    """The command: 0; 1 if anything is wrong; 2 for a configuration that cannot be run."""
    return run_command("soak", "soak", _launch)


def _launch(cfg: DictConfig) -> int:
    wrong = [row for row in run(cfg) if not row.is_sound]
    if wrong:
        first = wrong[0]
        return print_error("soak", f"{first.attention} in {first.kv_tokens} KV tokens is wrong", 1)
    return 0


def _scores(replies: Mapping[int, Reply]) -> dict[int, ScoreReply]:
    """Return the replies to `Score`, in the order of the requests."""
    ordered = sorted(replies.items())
    return {number: reply for number, reply in ordered if isinstance(reply, ScoreReply)}


def _score_gap(one: ScoreReply, other: ScoreReply) -> float:
    columns = zip(one.logprobs, other.logprobs, one.num_tokens, strict=True)
    return max(abs(a - b) / count for a, b, count in columns)


def _device_mb(device: torch.device) -> float:
    return torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
