"""Where the time of a decode step goes: kernels by kind, and the clock of a run of steps.

The clock runs over all steps. A few of them are also recorded by the profiler; the clock is stopped
for these, so that the profiler's own time is not counted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

ATTENTION = re.compile("partial_attention|reduce_partials|write_kv|expand_kernel")
ONCE_A_LAYER = re.compile("partial_attention")
MATMUL = re.compile("gemm|gemv|nvjet|cutlass|splitk|skinny_linear", re.IGNORECASE)


class Kernel(NamedTuple):
    """One operation of a device: a kernel, or a copy."""

    name: str
    begin: float  # seconds
    seconds: float


class StepBudget(NamedTuple):
    """Device seconds of one step, by kind."""

    attention: float  # with the writing of keys and values, where that is a kernel of its own
    matmul: float  # of the weights
    sampling: float  # after the vocabulary's matrix: the draw, and the next step's embedding
    other: float  # norms, rotary embeddings, activations, copies


def split(kernels: Iterable[Kernel], num_layers: int) -> StepBudget | None:
    """Return the mean step of some forwards by one device; None if there is no attention.

    A kernel that is launched early, to wait for the one before, counts from that one's end on. The
    vocabulary's matrix is taken to be the largest: of the matrix products, the longest one a
    forward. What is between it and the next product is sampling.
    """
    ordered = _one_at_a_time(kernels)
    num_forwards = round(sum(bool(ONCE_A_LAYER.search(k.name)) for k in ordered) / num_layers)
    if not num_forwards:
        return None
    products = [kernel for kernel in ordered if MATMUL.search(kernel.name)]
    last = set(sorted(products, key=lambda kernel: -kernel.seconds)[:num_forwards])
    seconds = dict.fromkeys(StepBudget._fields, 0.0)
    is_after = False
    for kernel in ordered:
        if MATMUL.search(kernel.name):
            kind, is_after = "matmul", kernel in last
        elif ATTENTION.search(kernel.name):
            kind = "attention"
        else:
            kind = "sampling" if is_after else "other"
        seconds[kind] += kernel.seconds / num_forwards
    return StepBudget(**seconds)


def _one_at_a_time(kernels: Iterable[Kernel]) -> list[Kernel]:
    """Order kernels, and cut from each the time in which an earlier one was still running."""
    clipped: list[Kernel] = []
    latest = 0.0
    for name, begin, seconds in sorted(kernels, key=lambda kernel: kernel.begin):
        end = max(latest, begin + seconds)
        clipped.append(Kernel(name, max(begin, latest), end - max(begin, latest)))
        latest = end
    return clipped


class Watch:
    """Receives every forward of a run, and keeps the clock of its decode steps.

    Args:
        profiled: numbers of decode steps, from 1, after which the profiler records.
        span: steps that it records each time.
        lead: steps that the device may be ahead of those received.
        trace: where to write the first recording as a Chrome trace.

    Attributes:
        kernels: what the profiler recorded.
        steps: decode steps.
        kv_entries: KV entries under each step's sequences, each once, summed over steps.
    """

    def __init__(
        self,
        profiled: Sequence[int] = (),
        *,
        span: int = 4,
        lead: int = 0,
        trace: Path | None = None,
    ) -> None:
        self.kernels: list[Kernel] = []
        self.steps = 0
        self.kv_entries = 0
        self._profiled, self._span, self._lead = set(profiled), span, lead
        self._trace = trace
        self._profiler: Any = None
        self._seen = 0  # steps under the profiler since it began
        self._held_steps, self._held_seconds = 0, 0.0
        self._timed_steps, self._timed_seconds = 0, 0.0
        self._last: float | None = None  # end of the step before, if this one follows it directly
        self._begun = self._ended = time.perf_counter()

    def start(self) -> None:
        """Start the clock."""
        _synchronize()
        self._begun = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock."""
        self._drop_profiler()
        _synchronize()
        self._ended = time.perf_counter()

    def forward(self, *, is_decode: bool, num_entries: int) -> None:
        """Receive a forward that has ended, or whose tokens have been read.

        Args:
            is_decode: whether it is a decode step.
            num_entries: KV entries under its sequences, each once.
        """
        if not is_decode:  # what it left on the device is waited for in the next step
            self._drop_profiler()
            self._last = None
            return
        now = time.perf_counter()
        self.steps += 1
        self.kv_entries += num_entries
        if self._profiler is not None:
            self._seen, self._seen_at = self._seen + 1, now
            if self._seen == self._span:
                self._keep_profile()
            return
        if self._last is not None:
            self._timed_steps += 1
            self._timed_seconds += now - self._last
        self._last = now
        if self.steps in self._profiled:
            self._begin_profile()

    @property
    def step_seconds(self) -> float:
        """Wall time of a decode step, the mean over those that directly follow another."""
        return self._timed_seconds / self._timed_steps if self._timed_steps else 0.0

    @property
    def seconds(self) -> float:
        """Wall time from `start` to `stop`; steps under the profiler count as the mean step."""
        held = self._held_steps * self.step_seconds - self._held_seconds
        return self._ended - self._begun + held

    def _begin_profile(self) -> None:
        self._hold = time.perf_counter()
        _synchronize()
        self._seen, self._seen_at = 0, time.perf_counter()
        self._profiler = profile(activities=[ProfilerActivity.CUDA])
        self._profiler.start()

    def _keep_profile(self) -> None:
        _synchronize()
        profiler = self._end_profiler()
        if self._trace is not None:
            profiler.export_chrome_trace(str(self._trace))
            self._trace = None
        # Each recording has its own time origin; append it after the end of the last one.
        end = max((kernel.begin + kernel.seconds for kernel in self.kernels), default=0.0)
        for event in profiler.events():
            if event.device_type == DeviceType.CUDA:
                time_range = event.time_range
                begin, seconds = 1e-6 * time_range.start, 1e-6 * time_range.elapsed_us()
                self.kernels.append(Kernel(event.name, end + begin, seconds))
        self._held_steps += self._span + self._lead  # the device is no longer ahead
        self._held_seconds += time.perf_counter() - self._hold

    def _drop_profiler(self) -> None:
        """Discard a recording that another forward, or the end, has interrupted."""
        if self._profiler is None:
            return
        now = time.perf_counter()
        self._end_profiler()
        self._held_steps += self._seen
        self._held_seconds += self._seen_at - self._hold + time.perf_counter() - now
        self._profiled.add(self.steps + 2)

    def _end_profiler(self) -> Any:
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        self._last = None  # the step under way was not timed from its beginning
        return profiler


def warm_profiler() -> None:
    """Load the profiler, before any CUDA graph is made and any clock runs."""
    with profile(activities=[ProfilerActivity.CUDA]):
        _synchronize()


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
