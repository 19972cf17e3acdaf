"""One workload of decoding on one engine: warmed up, timed, and some of its steps profiled.

An end-to-end time is the wall time of all requests in an engine that has seen requests like them
but caches none. Knows no configuration and no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from treeshare.llm_backend.api import Generate, GenerateReply
from treeshare.llm_backend.engines.serve import serve
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.attention import DeftAttention
from treeshare.llm_backend.model.model import Model

from .step_profile import Watch, split
from .tables import Measurement
from .workloads import Filler, Pressure, Workload

SLACK = 64  # KV slots beyond what a workload needs
MEMORY_SHARE = 0.8  # of the free memory that a pool may take


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the engine, and of what the profiler sees."""

    max_num_seqs: int
    max_num_batched_tokens: int
    spans: int  # stretches of steps under the profiler
    bandwidth: float | None  # bytes a second
    weight_bytes: int  # that a step reads


class WatchedEngine(TreeEngine):
    """Tells a watch of every forward."""

    watch: Watch | None = None

    def _count(self, jobs: Sequence[Any], num_tokens: int, num_entries: int) -> None:
        super()._count(jobs, num_tokens, num_entries)
        if self.watch is not None:
            self.watch.forward(is_decode=num_tokens == len(jobs), num_entries=num_entries)


def measure(
    model: Model, workload: Workload, limits: Limits, row: Measurement, trace: Path | None = None
) -> Measurement:
    """`row` with the columns of a workload filled in.

    Raises:
        Exception: what a request failed with.
    """
    filler = Filler(model)
    spans = limits.spans if model.device.type == "cuda" else 0
    profiled = spread(workload.expected_steps, spans)
    is_ahead = isinstance(model.backend, DeftAttention) and model.backend.can_grow
    watch = Watch(profiled, lead=int(is_ahead), trace=trace)
    size = pool_size(model, workload.kv_tokens + SLACK)
    engine = WatchedEngine(model, size, limits.max_num_seqs, limits.max_num_batched_tokens)
    with closing(engine):
        workload.warm_up().run(engine, filler)
        engine.forget()
        first_token_seconds = _first_token_seconds(engine, workload.first(filler))
        engine.forget()
        row, _ = _run(engine, workload, filler, watch, row, limits)
    return replace(row, first_token_seconds=first_token_seconds)


def _run(
    engine: WatchedEngine,
    workload: Workload | Pressure,
    filler: Filler,
    watch: Watch,
    row: Measurement,
    limits: Limits,
) -> tuple[Measurement, list[GenerateReply]]:
    """Under a watch; `row` with what it and the engine counted."""
    before = replace(engine.stats())
    engine.watch = watch
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
    """`row` with the times that a watch kept."""
    step = split(watch.kernels, len(model.layers))
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
    model: Model, pressure: Pressure, limits: Limits, row: Measurement
) -> list[Measurement]:
    """One row with all the memory that the requests can use, one with a tenth of it.

    Raises:
        Exception: what a request failed with; `OutOfKVMemory` if one alone does not fit.
    """
    filler = Filler(model)
    whole = pressure.kv_tokens + SLACK
    rows: list[Measurement] = []
    expected: list[str] = []  # texts of the whole pool
    for size in (whole, whole // 10):
        engine = WatchedEngine(model, size, limits.max_num_seqs, limits.max_num_batched_tokens)
        with closing(engine):
            pressure.run(engine, Filler(model, seed=1))
            engine.forget()
            done, replies = _run(engine, pressure, filler, Watch(), row, limits)
        texts = [completion.text for reply in replies for completion in reply.completions]
        expected = expected or texts
        equal = sum(text == other for text, other in zip(texts, expected, strict=True))
        rows.append(replace(done, equal=equal, completions=len(texts)))
    return rows


def pool_size(model: Model, wanted: int) -> int:
    """So many slots, or as many as fit in the memory of a GPU."""
    if model.device.type != "cuda":
        return wanted
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(model.device)
    return min(wanted, int(MEMORY_SHARE * free / entry_bytes(model)))


def entry_bytes(model: Model) -> int:
    """Of one token's keys and values in all layers."""
    size: int = model.dtype.itemsize
    return size * sum(heads * (d + dv) for heads, d, dv in model.layers)


def spread(count: int, spans: int) -> list[int]:
    """The middles of as many equal parts of 1 to `count`."""
    return [max(1, (2 * part + 1) * count // (2 * spans)) for part in range(spans)]


def _first_token_seconds(engine: TreeEngine, request: Generate | None) -> float | None:
    if request is None:
        return None
    watch = Watch()
    watch.start()
    serve(engine, [request], GenerateReply)
    watch.stop()
    return watch.seconds
