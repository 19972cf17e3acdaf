"""The tree engine: all live sequences of all searches in one packed forward over one KV tree.

A step admits jobs as far as memory allows, runs one forward (missing parts of prompts, the next
token of each sequence, the tokens to score) or several decode steps, and collects what has ended:
continuous batching (Orca, OSDI 2022).
"""

from __future__ import annotations

import logging
import time
from collections import abc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from treeshare.llm_backend.api import (
    EngineStats,
    Reply,
    Request,
)
from treeshare.llm_backend.cache.kv_pool import SlotAllocator
from treeshare.llm_backend.cache.tree_cache import TreeCache
from treeshare.llm_backend.model.device import gib
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime.admission import Admission
from treeshare.llm_backend.runtime.observer import EngineObserver, StepRecorder
from treeshare.llm_backend.runtime.runner import Runners, choose_runners
from treeshare.llm_backend.runtime.sequence import Job, Sequence
from treeshare.llm_backend.speculative.verify import Drafter

from .collect import collect
from .memory import Asked, fit
from .requests import capabilities_of, make_jobs
from .schedule import ScheduledDecode, ScheduledForward

_log = logging.getLogger(__name__)


class TreeEngine:
    """Serves requests with a Hugging Face model over a shared tree KV cache.

    A request that cannot be served fails alone: one whose text has no tokens, that does not fit, or
    for which the model's logits are NaN. An exception in the middle of a step (memory, an
    interrupt) is raised to the caller; then the engine is as a new one, all requests and stored
    prefixes dropped. If that fails as well, all later calls are refused.

    Each of the three limits may be `auto`: what suits the device and its memory (`memory.py`).

    Args:
        model: tokenizer, network, and the name of the attention to run on.
        kv_tokens: size of the KV pool, in tokens. When it is full, prefixes that no live sequence
            uses are evicted, least recently used first; then new sequences wait for running ones to
            end.
        max_num_seqs: jobs in one forward: a sampled sequence is one, and so is a scored prompt with
            all of its continuations.
        max_num_batched_tokens: tokens in one forward; longer prompts are computed over several.
        speculative: drafts tokens that are verified several in one forward; replies stay the same.
            Drafts take what the others leave of `max_num_batched_tokens`.
        observer: receives every step, for benchmarks.
        memory: the share of a GPU's free memory that is used if `kv_tokens` is `auto`.

    Attributes:
        limits: the three limits as numbers.
        cache: the tree cache.
        pool: the KV pool.
        running: the jobs that have started, the oldest first.
        admission: the jobs that wait.
        runners: compute the batches.

    Raises:
        ValueError: a limit is not a whole number of at least 1, the network's architecture is not
            supported by tree attention, the attention does not run on the network's device, the
            KV pool does not fit its memory, or the drafter cannot draft for the model.
    """

    def __init__(
        self,
        model: Model,
        kv_tokens: int | str = 16384,
        max_num_seqs: int | str = 256,
        max_num_batched_tokens: int | str = 1024,
        speculative: Drafter | None = None,
        observer: EngineObserver | None = None,
        memory: float = 0.9,
    ) -> None:
        asked = Asked(kv_tokens, max_num_seqs, max_num_batched_tokens, memory)
        if speculative is not None:
            speculative.check(model)
        self.model = model
        self.capabilities = capabilities_of(model)
        try:
            self.attention = model.make_attention()
            self.limits = fit(model.network, self.attention, asked)
            self.pool = model.network.new_pool(self.limits.kv_tokens)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"{model.network.device} has too little free memory: lower "
                f"engine.kv_tokens={kv_tokens} or engine.memory={memory}, or take a smaller model"
            ) from error
        self._log_choices()
        self._drafter = speculative
        self._observer = observer
        self._stats = EngineStats()
        self._refusal: str | None = None  # why all calls are refused
        self._begin()

    def _begin(self) -> None:
        """Set the state of an engine that has served nothing; CUDA graphs are captured anew."""
        self.pool.slots = SlotAllocator(self.pool.slots.num_slots)
        self.cache = TreeCache(self.pool.slots)
        self.admission = Admission(self.cache, self.limits.max_num_seqs, self._stats)
        self.running: list[Job] = []
        self.runners: Runners = choose_runners(
            self.model.network,
            self.attention,
            self.pool,
            self.limits.max_num_seqs,
            self._stats,
            has_drafter=self._drafter is not None,
        )
        self._recorder = StepRecorder(self._stats, self.cache, self._observer)
        self._replies: dict[int, Reply] = {}  # ready, and not handed out
        self._outstanding: set[int] = set()  # request ids

    @property
    def resources(self) -> dict[str, Any]:
        """What the engine computes with, by the names of the configuration's keys."""
        network = self.model.network
        return network.resources | {
            "attention": self.attention.name,
            "fused": network.merged is not None,
            **self.limits._asdict(),
        }

    def _log_choices(self) -> None:
        """Log in one line what the engine computes with."""
        chosen = self.resources
        _log.info(
            "%s %s %s%s, %s KV tokens (%s), at most %s sequences and %s tokens in a forward",
            *(chosen["device"], chosen["dtype"], chosen["attention"]),
            " fused" if chosen["fused"] else "",
            f"{self.limits.kv_tokens:,}",
            gib(self.pool.num_bytes),
            *(f"{limit:,}" for limit in self.limits[1:]),
        )

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """Serve requests until some are answered; see `Engine.execute`.

        Raises:
            ValueError: an id is that of an outstanding request; then no request is taken in.
            RuntimeError: an earlier call failed and the engine could not begin anew, or it is
                closed.
        """
        self.submit(requests)
        replies = self.step()
        while not replies and self.has_unfinished:
            replies = self.step()
        return replies

    def submit(self, requests: Mapping[int, Request]) -> None:
        """Queue requests, by request id; `step` answers them.

        Raises:
            ValueError: an id is that of an outstanding request; then no request is taken in.
            RuntimeError: see `execute`.
        """
        if twice := self._outstanding & requests.keys():
            raise ValueError(f"request id {min(twice)} is that of an outstanding request")
        with self._guarded():
            self._outstanding |= requests.keys()
            jobs, failures = make_jobs(self.model, self.cache, requests)
            self.admission.waiting += jobs
            self._replies |= failures

    def step(self) -> dict[int, Reply]:
        """Admit waiting jobs, run one forward or several decode steps, and collect what has ended.

        Returns:
            The replies that are ready, by request id; there may be none. Replies that were ready
            before the call are returned without a forward.

        Raises:
            RuntimeError: see `execute`.
        """
        with self._guarded():
            if self.has_unfinished and not self._replies:
                self._run(self._admit())
                self._replies |= collect(
                    self.running, self.cache, self.pool, self.admission, self._recorder
                )
            replies, self._replies = self._replies, {}
            self._outstanding -= replies.keys()
        return replies

    @property
    def has_unfinished(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self.admission.waiting or self.running)

    def run_sequences(self, sequences: abc.Sequence[Sequence]) -> None:
        """Work until these sequences, and all other requests, are done."""
        with self._guarded():
            self.admission.waiting += sequences
        while self.has_unfinished:
            self.step()

    def cancel(self, request_ids: Iterable[int]) -> None:
        """Drop outstanding requests; see `Engine.cancel`."""
        if self._refusal is not None:
            return  # nothing is outstanding
        ids = set(request_ids)
        with self._guarded():
            self._outstanding -= ids
            self.admission.forget(ids)
            self.admission.drop(ids)
            dropped = [job for job in self.running if job.request_id in ids]
            self.running = [job for job in self.running if job.request_id not in ids]
            self.cache.release([leaf for job in dropped for leaf in job.leaves], keep=False)
            for request_id in ids & self._replies.keys():
                del self._replies[request_id]

    def stats(self) -> EngineStats:
        """Return the counters since the engine was made."""
        self._stats.evicted_kv_tokens = self.cache.num_evicted
        return self._stats

    def reset_cache(self) -> None:
        """Drop all stored prefixes, and what the drafter has read, between requests.

        The engine is then as a new one, but keeps what it has compiled.
        """
        self.cache.evict(self.cache.num_slots)
        if self._drafter is not None:
            self._drafter.reset()

    def close(self) -> None:
        """Drop all work under way, and free the pool and the graphs; later calls are refused."""
        self._refusal = "this engine is closed; make a new one"
        self.admission.waiting.clear()
        self.running.clear()
        self.pool.keys.clear()
        self.pool.values.clear()
        vars(self).pop("runners", None)  # their graphs hold memory
        if self._drafter is not None:
            self._drafter.close()

    def check_integrity(self) -> None:
        """Check that the tree cache is sound, and that its leaves are those of the running jobs.

        Raises:
            AssertionError: they are not.
        """
        self.cache.check_integrity([leaf for job in self.running for leaf in job.leaves])

    def _admit(self) -> list[Sequence]:
        """Start waiting jobs; return the running sequences if decode steps can serve them all."""
        decoding = self._decoding()
        if decoding and not self.admission.should_admit(len(decoding)):
            return decoding
        self.admission.admit(self.running)
        return self._decoding()

    def _decoding(self) -> list[Sequence]:
        """Return the running jobs if `runners.decode` can serve all of them; otherwise none."""
        if self.runners.decode is None:
            return []
        jobs = [job for job in self.running if isinstance(job, Sequence) and job.is_decoding]
        return jobs if len(jobs) == len(self.running) else []

    def _run(self, decoding: abc.Sequence[Sequence]) -> None:
        """Run decode steps of these sequences; if there are none, a forward of the running jobs."""
        self._recorder.begin()
        scheduled: ScheduledDecode | ScheduledForward
        if decoding and self.runners.decode is not None:
            runner = self.runners.decode
            scheduled = ScheduledDecode(decoding, self._recorder)
        else:
            runner = self.runners.forward
            scheduled = ScheduledForward(
                self.running,
                self.limits.max_num_batched_tokens,
                self._drafter,
                self._recorder,
            )
        for output in runner.run(scheduled.batch):
            scheduled.accept(output)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Count the time; on an exception, begin anew or refuse all later calls."""
        if self._refusal is not None:
            raise RuntimeError(self._refusal)
        began = time.perf_counter()
        try:
            yield
        except BaseException as error:
            is_memory = isinstance(error, torch.OutOfMemoryError)
            raised = MemoryError(self._what_to_lower()) if is_memory else error
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            self._refusal = f"this engine failed in an earlier call ({reason}); make a new one"
            self._begin()
            if self._drafter is not None:
                self._drafter.reset()
            self._refusal = None
            if raised is error:
                raise
            raise raised from error
        self._stats.seconds += time.perf_counter() - began

    def _what_to_lower(self) -> str:
        limits = self.limits._asdict()
        return (
            f"out of memory on {self.model.network.device} with {len(self.running)} sequences "
            f"running: lower {', '.join(f'engine.{key}={limits[key]}' for key in limits)}"
        )
