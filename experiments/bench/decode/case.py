"""One workload of decoding on one engine: warmed up, timed, and some of its steps profiled.

An end-to-end time is the wall time of all requests in an engine that has served requests like them
but caches none of their KV.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from treeshare.llm_backend.api import Generate, GenerateReply
from treeshare.llm_backend.engines.serve import serve
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.attention import make_backend
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime.observer import EngineObserver, StepRecord

from .step_profile import Watch, split
from .tables import Measurement
from .workloads import Filler, MemoryPressure, Workload

SLACK = 64
"""KV slots of a pool beyond those that a workload needs."""
MEMORY_SHARE = 0.8
"""Share of a GPU's free memory that a pool may take."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the engine, and what a measurement needs to know of the machine.

    Args:
        max_num_seqs: jobs in one forward.
        max_num_batched_tokens: tokens in one forward.
        spans: stretches of steps under the profiler.
        bandwidth: of the device's memory, bytes a second; None if it is not measured.
        weight_bytes: bytes of parameters that a decode step reads.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    spans: int
    bandwidth: float | None
    weight_bytes: int

    def engine(
        self, model: Model, kv_tokens: int, observer: EngineObserver | None = None
    ) -> TreeEngine:
        """Make an engine with these limits."""
        return TreeEngine(
            model, kv_tokens, self.max_num_seqs, self.max_num_batched_tokens, observer=observer
        )


class WatchObserver(EngineObserver):
    """Passes an engine's steps on to a watch, while there is one.

    Attributes:
        watch: it may be set between requests.
    """

    def __init__(self) -> None:
        self.watch: Watch | None = None

    def on_step(self, step: StepRecord) -> None:
        """Pass a step on."""
        if self.watch is not None:
            self.watch.forward(is_decode=step.is_decode, num_entries=step.num_kv_entries)


def on_attention(model: Model, attention: str) -> Model:
    """Return the model with another attention, and check its network there.

    Raises:
        ValueError: there is no such attention, or the network does not run on it.
    """
    changed = replace(model, attention=attention)
    model.network.check(make_backend(attention, model.network.device))
    return changed


def measure(
    model: Model, workload: Workload, limits: Limits, row: Measurement, trace: Path | None = None
) -> Measurement:
    """Measure a workload.

    Args:
        model: its network has been checked on its attention (`on_attention`).
        workload: the requests.
        limits: of the engine, and of the profiler.
        row: the columns that are known.
        trace: where to write a Chrome trace of the steps first profiled.

    Returns:
        `row` with the other columns filled in.

    Raises:
        Exception: what a request failed with.
    """
    filler = Filler(model)
    spans = limits.spans if model.network.device.type == "cuda" else 0
    profiled = spread(workload.expected_steps, spans)
    size = pool_size(model, workload.kv_tokens + SLACK)
    observer = WatchObserver()
    engine = limits.engine(model, size, observer)
    # Multi-step runs are a step ahead of what the observer receives.
    watch = Watch(profiled, lead=int(engine.attention.capabilities.grows), trace=trace)
    with closing(engine):
        workload.warm_up().run(engine, filler)
        engine.reset_cache()
        first_token_seconds = _first_token_seconds(engine, workload.first(filler))
        engine.reset_cache()
        observer.watch = watch
        row, _ = _run(engine, workload, filler, watch, row, limits)
    return replace(row, first_token_seconds=first_token_seconds)


def _run(
    engine: TreeEngine,
    workload: Workload | MemoryPressure,
    filler: Filler,
    watch: Watch,
    row: Measurement,
    limits: Limits,
) -> tuple[Measurement, list[GenerateReply]]:
    """Run a workload under a watch.

    Returns:
        `row` with what the watch and the engine counted; the replies.
    """
    before = replace(engine.stats())
    watch.start()
    replies = workload.run(engine, filler)
    watch.stop()
    after = engine.stats()
    row = replace(
        with_steps(row, engine.model, watch, limits),
        tokens=sum(reply.usage.completion_tokens for reply in replies),
        prompt_tokens=sum(reply.usage.prompt_tokens for reply in replies),
        kv_tokens=engine.pool.slots.num_slots,
        evicted=after.evicted_kv_tokens - before.evicted_kv_tokens,
        paused=after.paused - before.paused,
    )
    return row, replies


def with_steps(row: Measurement, model: Model, watch: Watch, limits: Limits) -> Measurement:
    """Return `row` with the times that a watch kept."""
    step = split(watch.kernels, len(model.network.layers))
    entries = watch.kv_entries / watch.steps if watch.steps else None
    if step is not None:
        row = replace(
            row,
            attention_seconds=step.attention * watch.steps,
            attention_ms=1e3 * step.attention,
            matmul_ms=1e3 * step.matmul,
            sampling_ms=1e3 * step.sampling,
            other_ms=1e3 * step.other,
        )
    if limits.bandwidth is not None:
        row = replace(
            row,
            weights_ms=1e3 * limits.weight_bytes / limits.bandwidth,
            kv_ms=entries and 1e3 * entries * entry_bytes(model) / limits.bandwidth,
        )
    return replace(
        row,
        seconds=watch.seconds,
        steps=watch.steps,
        step_ms=1e3 * watch.step_seconds if watch.step_seconds else None,
        kv_entries=entries,
    )


def measure_pressure(
    model: Model, pressure: MemoryPressure, limits: Limits, row: Measurement
) -> list[Measurement]:
    """Measure requests with all the memory that they can use, and with a tenth of it.

    Args:
        model: its network has been checked on its attention (`on_attention`).
        pressure: the requests.
        limits: of the engine.
        row: the columns that are known.

    Returns:
        Two rows.

    Raises:
        Exception: what a request failed with; `OutOfKVMemory` if one alone does not fit.
    """
    filler = Filler(model)
    whole = pressure.kv_tokens + SLACK
    rows: list[Measurement] = []
    expected: list[str] = []  # texts of the whole pool
    for size in (whole, whole // 10):
        observer = WatchObserver()
        engine = limits.engine(model, size, observer)
        with closing(engine):
            pressure.run(engine, Filler(model, seed=1))
            engine.reset_cache()
            observer.watch = watch = Watch()
            done, replies = _run(engine, pressure, filler, watch, row, limits)
        texts = [completion.text for reply in replies for completion in reply.completions]
        expected = expected or texts
        equal = sum(text == other for text, other in zip(texts, expected, strict=True))
        rows.append(replace(done, equal=equal, completions=len(texts)))
    return rows


def pool_size(model: Model, wanted: int) -> int:
    """Return a number of slots: `wanted`, or fewer if a GPU's memory holds fewer."""
    if model.network.device.type != "cuda":
        return wanted
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(model.network.device)
    return min(wanted, int(MEMORY_SHARE * free / entry_bytes(model)))


def entry_bytes(model: Model) -> int:
    """Return the bytes of one token's keys and values in all layers."""
    size: int = model.network.dtype.itemsize
    return size * sum(heads * (d + dv) for heads, d, dv in model.network.layers)


def spread(count: int, spans: int) -> list[int]:
    """Return the middles of `spans` equal parts of 1 to `count`."""
    return [max(1, (2 * part + 1) * count // (2 * spans)) for part in range(spans)]


def _first_token_seconds(engine: TreeEngine, request: Generate | None) -> float | None:
    if request is None:
        return None
    watch = Watch()
    watch.start()
    serve(engine, [request], GenerateReply)
    watch.stop()
    return watch.seconds
