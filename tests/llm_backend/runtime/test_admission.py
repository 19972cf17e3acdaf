"""Admission: the order of waiting jobs, the limits of batch and memory, and the quarter rule."""

import pytest

from treeshare.llm_backend.api import EngineStats, Generate, Sampling
from treeshare.llm_backend.cache.kv_pool import SlotAllocator
from treeshare.llm_backend.cache.tree_cache import TreeCache
from treeshare.llm_backend.runtime.admission import Admission
from treeshare.llm_backend.runtime.sequence import SequenceGroup


class Queue:
    """An admission over a pool of some slots, and its jobs."""

    def __init__(self, num_slots=100, max_num_seqs=8):
        self.stats = EngineStats()
        self.cache = TreeCache(SlotAllocator(num_slots))
        self.admission = Admission(self.cache, max_num_seqs, self.stats)
        self.running = []

    def wait(self, request_id, prompt, n=1, max_tokens=4):
        request = Generate(("",), n, Sampling(max_tokens=max_tokens))
        group = SequenceGroup(request_id, request, prompt, self.cache, None, frozenset())
        self.admission.waiting += group.sequences()

    def admit(self):
        """The ids that start."""
        before = len(self.running)
        self.admission.admit(self.running)
        self.cache.check_integrity([leaf for job in self.running for leaf in job.leaves])
        return [job.request_id for job in self.running[before:]]

    def end(self, count):
        """End the oldest jobs, whose prompts stay in the cache."""
        ended, self.running[:] = self.running[:count], self.running[count:]
        for job in ended:
            job.leaf.anchor.num_computed = len(job.leaf.anchor.tokens)
        self.cache.release([job.leaf for job in ended])


def test_jobs_start_in_order_as_far_as_the_batch_allows():
    queue = Queue(max_num_seqs=3)
    for request_id, n in ((5, 2), (1, 2), (3, 1)):
        queue.wait(request_id, (request_id, 7, 8), n)
    assert queue.admit() == [5, 5, 1]
    assert queue.admit() == []
    queue.end(2)
    assert queue.admit() == [1, 3]
    assert queue.stats.paused == 0


def test_jobs_wait_for_memory_and_old_prefixes_are_evicted():
    queue = Queue(num_slots=17)
    for request_id in range(3):
        queue.wait(request_id, (request_id, *range(5, 9)), max_tokens=4)  # 4 + 4 slots
    assert queue.admit() == [0, 1]
    assert queue.admit() == []
    assert queue.stats.paused == 1  # once for the same job
    queue.end(1)
    assert queue.admit() == [2]
    assert queue.cache.num_evicted > 0


def test_a_later_job_does_not_overtake_one_that_waits_for_memory():
    queue = Queue(num_slots=20)
    queue.wait(0, tuple(range(10)))
    queue.wait(1, tuple(range(50, 65)))
    queue.wait(2, (1,))
    assert queue.admit() == [0]


@pytest.mark.parametrize(
    ("num_running", "num_waiting", "answer"), [(4, 1, True), (5, 1, False), (8, 9, False)]
)
def test_a_batch_that_decodes_is_joined_by_a_quarter_of_it(num_running, num_waiting, answer):
    queue = Queue(max_num_seqs=9)
    for request_id in range(num_waiting):
        queue.wait(request_id, (1, 2))
    assert queue.admission.should_admit(num_running) is answer


def test_after_memory_ran_out_a_quarter_must_end_first():
    queue = Queue(num_slots=20)
    for request_id in range(9):
        queue.wait(request_id, (1, 2), max_tokens=4)
    assert len(queue.admit()) == 4
    assert not queue.admission.should_admit(4)
    queue.end(1)
    assert queue.admission.should_admit(3)


def test_a_request_that_is_tried_again_runs_alone_and_only_once_more():
    queue = Queue()
    queue.wait(0, (1, 2))
    queue.wait(1, (1, 3))
    assert queue.admit() == [0, 1]
    failed, other = queue.running
    queue.cache.release([failed.leaf, other.leaf], keep=False)
    queue.running.clear()
    queue.wait(2, (1, 4))
    assert queue.admission.retry_alone(failed)
    assert not queue.admission.retry_alone(failed)
    assert queue.admit() == [0]
    queue.end(1)
    queue.admission.forget([0])
    queue.wait(3, (1, 5))
    assert queue.admit() == [2, 3]


def test_dropped_requests_do_not_start():
    queue = Queue()
    for request_id in range(4):
        queue.wait(request_id, (1, 2), n=2)
    queue.admission.drop({1, 3})
    assert queue.admit() == [0, 0, 2, 2]
