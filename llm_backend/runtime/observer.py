"""What an engine counts of its steps, and reports to an observer."""

from __future__ import annotations

import time
from collections import abc
from dataclasses import dataclass

from treeshare.llm_backend.api import EngineStats
from treeshare.llm_backend.cache.tree_cache import TreeCache

from .sequence import Job, Sequence


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One forward of an engine.

    Args:
        num_sequences: jobs whose last token it computed.
        num_tokens: tokens it computed.
        num_kv_entries: different KV entries that it read.
        is_decode: whether each of its jobs is a sequence that computed one token.
        seconds: wall time since the forward before, or since `TreeEngine.step` was called.
    """

    num_sequences: int
    num_tokens: int
    num_kv_entries: int
    is_decode: bool
    seconds: float


class EngineObserver:
    """Receives what an engine does, for benchmarks. Subclasses override what they need."""

    def on_step(self, step: StepRecord) -> None:
        """Receive a forward, after its tokens are read by the host."""

    def on_sequence_end(
        self, request_id: int, sample_index: int, tokens: abc.Sequence[int]
    ) -> None:
        """Receive the ids that a sequence generated, when it ends."""


class StepRecorder:
    """Adds every forward to an engine's statistics, and reports it to the observer.

    Args:
        stats: the engine's counters.
        cache: its peak use is counted.
        observer: may be None.
    """

    def __init__(
        self, stats: EngineStats, cache: TreeCache, observer: EngineObserver | None
    ) -> None:
        self.stats = stats
        self._cache = cache
        self._observer = observer
        self._latest = 0.0

    def begin(self) -> None:
        """Start the clock of the next forward."""
        if self._observer is not None:
            self._latest = time.perf_counter()

    def count(self, jobs: abc.Sequence[Job], num_tokens: int, num_entries: int) -> None:
        """Count a forward.

        Args:
            jobs: those whose last token it computed.
            num_tokens: tokens it computed.
            num_entries: different KV entries that it read.
        """
        stats = self.stats
        stats.steps += 1
        stats.sequences += len(jobs)
        stats.tokens += num_tokens
        stats.unique_kv_reads += num_entries
        stats.logical_kv_reads += sum(length for job in jobs for length in job.path_lengths())
        in_use = self._cache.num_slots - self._cache.num_free
        stats.peak_kv_tokens = max(stats.peak_kv_tokens, in_use)
        if self._observer is not None:
            is_decode = num_tokens == len(jobs) and all(isinstance(job, Sequence) for job in jobs)
            now = time.perf_counter()
            seconds, self._latest = now - self._latest, now
            self._observer.on_step(
                StepRecord(len(jobs), num_tokens, num_entries, is_decode, seconds)
            )

    def count_draft(self, num_guesses: int, num_accepted: int) -> None:
        """Count a sequence's drafted tokens, and those of them that were right."""
        stats = self.stats
        stats.drafts += num_guesses > 0
        stats.drafted_tokens += num_guesses
        stats.accepted_tokens += num_accepted
        stats.logical_kv_reads += num_guesses  # each is read by no other sequence

    def end(self, jobs: abc.Sequence[Job]) -> None:
        """Report jobs that have ended."""
        if self._observer is not None:
            for job in jobs:
                if isinstance(job, Sequence):
                    self._observer.on_sequence_end(job.request_id, job.sample_index, job.generated)
