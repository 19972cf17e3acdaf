"""Admission: which waiting jobs may join those that run, and when."""

from __future__ import annotations

import logging
from collections import abc, deque
from collections.abc import Iterable

from treeshare.llm_backend.api import EngineStats
from treeshare.llm_backend.cache.tree_cache import CacheNode, TreeCache
from treeshare.llm_backend.model.tokenizer import Ids

from .sequence import Job

_log = logging.getLogger(__name__)


class Admission:
    """The queue of waiting jobs.

    Jobs start in the order in which they came, as far as the batch and the memory allow. When the
    KV pool is full, prefixes that no running job uses are evicted, least recently used first; then
    jobs wait for running ones to end.

    Args:
        cache: the tree cache, whose slots are the memory.
        max_num_seqs: jobs that may run at once.
        stats: where pauses are counted.

    Attributes:
        waiting: jobs that have not started, the oldest first.
    """

    def __init__(self, cache: TreeCache, max_num_seqs: int, stats: EngineStats) -> None:
        self.waiting: deque[Job] = deque()
        self._cache = cache
        self._max_num_seqs = max_num_seqs
        self._stats = stats
        self._suspects: set[int] = set()  # ids of requests whose logits were NaN once
        self._last_paused: Job | None = None
        self._full_at: int | None = None  # jobs that ran when memory last ran out

    def should_admit(self, num_running: int) -> bool:
        """Whether to admit jobs to a batch that only decodes: when it can grow by a quarter.

        Each admission costs a forward for the new prompts, which costs more than the rows that
        stay idle until a quarter of the batch can be filled at once.
        """
        if self._full_at is not None and 4 * num_running > 3 * self._full_at:
            return False  # too few have ended since memory ran out
        num_joining = min(len(self.waiting), self._max_num_seqs - num_running)
        return 4 * num_joining >= num_running

    def admit(self, running: list[Job]) -> None:
        """Start waiting jobs and append them to `running`, as far as batch and memory allow."""
        self._full_at = None
        prefix: Ids | None = None
        while self.waiting and len(running) < self._max_num_seqs:
            job = self.waiting[0]
            if not self._may_join(job, running):
                return
            if job.prefix is not prefix:  # the sequences of one prompt follow each other
                node = self._cache.match(job.prefix)
            if not self._make_room(job, node):
                if job is not self._last_paused:
                    self._note_pause(len(running))
                self._last_paused = job
                self._full_at = len(running)
                return
            prefix, node = job.prefix, self._cache.insert(job.prefix, node)
            job.start(node)
            running.append(self.waiting.popleft())

    def drop(self, request_ids: abc.Set[int]) -> None:
        """Drop the waiting jobs of some requests."""
        self.waiting = deque(job for job in self.waiting if job.request_id not in request_ids)

    def retry_alone(self, job: Job) -> bool:
        """Queue a failed request again, to run without other requests in its batch.

        Returns:
            False if it was retried before; then nothing is queued.
        """
        if job.request_id in self._suspects:
            return False
        self._suspects.add(job.request_id)
        self.waiting.extendleft(reversed(job.again()))
        return True

    def forget(self, request_ids: Iterable[int]) -> None:
        """Forget that requests were retried: they are answered, or cancelled."""
        self._suspects.difference_update(request_ids)

    def _may_join(self, job: Job, running: abc.Sequence[Job]) -> bool:
        """Whether a job may join the batch; a request that is tried again runs alone."""
        if not running or not self._suspects:
            return True
        ids = {job.request_id, running[0].request_id}
        return len(ids) == 1 or self._suspects.isdisjoint(ids)

    def _note_pause(self, num_running: int) -> None:
        """Count a job that waits for memory; warn of the first one."""
        self._stats.paused += 1
        if self._stats.paused == 1:
            _log.warning(
                "the KV pool of %d tokens is full with %d sequences running, and others wait for "
                "them to end; a larger engine.kv_tokens runs more of them together",
                *(self._cache.num_slots, num_running),
            )
        _log.debug("%d sequences run and %d wait for KV memory", num_running, len(self.waiting))

    def _make_room(self, job: Job, node: CacheNode) -> bool:
        """Evict until the job's own tokens, and its prefix below `node`, fit.

        Returns:
            Whether they do; otherwise there cannot be room yet.
        """
        needed = len(job.prefix) - node.stop + job.capacity
        free = self._cache.num_free
        if needed > free:
            self._cache.lock(node)
            num_evicted = self._cache.evict(needed - free)
            self._cache.unlock(node)
            free += num_evicted
            _log.debug("evicted %d KV tokens for a sequence of %d", num_evicted, needed)
        return needed <= free
