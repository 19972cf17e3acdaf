"""The end of jobs: they leave the tree cache, and their replies become ready."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from treeshare.llm_backend.api import Reply
from treeshare.llm_backend.cache.kv_pool import KVPool
from treeshare.llm_backend.cache.tree_cache import TreeCache
from treeshare.llm_backend.runtime.admission import Admission
from treeshare.llm_backend.runtime.observer import StepRecorder
from treeshare.llm_backend.runtime.sequence import Job, NotANumber

_log = logging.getLogger(__name__)


def collect(
    running: list[Job],
    cache: TreeCache,
    pool: KVPool,
    admission: Admission,
    recorder: StepRecorder,
) -> dict[int, Reply]:
    """Remove the jobs that are done from `running` and from the tree cache.

    Args:
        running: the jobs that have started.
        cache: keeps the KV of jobs that ended without a failure.
        pool: slots that NaN may have reached are cleared in it.
        admission: queues requests that are tried again, and drops those that failed.
        recorder: reports the sequences that have ended.

    Returns:
        The replies that are ready now, by request id.
    """
    done = [job for job in running if job.is_done]
    if not done:
        return {}
    running[:] = [job for job in running if not job.is_done]
    failed = [job for job in done if job.error is not None]
    cache.release([leaf for job in done if job.error is None for leaf in job.leaves])
    retried = _drop_failed(failed, cache, pool, admission) if failed else set()
    recorder.end(done)
    replies: dict[int, Reply] = {}
    for job in done:
        reply = None if job.request_id in retried else job.end()
        if reply is not None:
            replies[job.request_id] = reply
    admission.forget(replies)
    return replies


def _drop_failed(
    failed: Sequence[Job], cache: TreeCache, pool: KVPool, admission: Admission
) -> set[int]:
    """Free what failed jobs hold, and drop the waiting jobs of the same requests.

    NaN spreads to earlier tokens of the same forward, which attention weights with zero, and so to
    requests that share these. So all KV that it may have reached is cleared, and each of these
    requests is tried once more, alone.

    Returns:
        Ids of the requests that are tried again.
    """
    by_id = {job.request_id: job for job in failed}
    _log.debug("%d requests failed, such as by: %s", len(by_id), failed[0].error)
    admission.drop(by_id.keys())
    for job in failed:
        anchor, slots = job.leaves[0].anchor, [leaf.slots for leaf in job.leaves]
        cache.release(job.leaves, keep=False)
        if _is_nan(job):
            pool.clear(np.concatenate([*slots, cache.drop(anchor)]))
    return {i for i, job in by_id.items() if _is_nan(job) and admission.retry_alone(job)}


def _is_nan(job: Job) -> bool:
    return isinstance(job.error, NotANumber)
