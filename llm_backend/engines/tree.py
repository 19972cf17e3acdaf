"""The tree engine: every live sequence of every search in one packed forward over one KV tree.

A step takes in what memory allows, computes in a single forward the missing prompt parts, the next
token of each sampled sequence and the tokens to score, and hands back whatever has ended
(continuous batching, Orca, OSDI 2022). This module does not know of searches or tasks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager

import numpy as np

from treeshare.llm_backend.api import EngineStats, Reply, Request
from treeshare.llm_backend.cache.kv_pool import SlotAllocator
from treeshare.llm_backend.cache.tree_cache import CacheNode, TreeCache
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.model.tokenizer import Ids
from treeshare.llm_backend.runtime.cuda_graphs import GraphForward
from treeshare.llm_backend.runtime.eager import EagerForward, Place, Work
from treeshare.llm_backend.runtime.multi_step import Decoder, can_decode
from treeshare.llm_backend.runtime.packing import KVNode
from treeshare.llm_backend.runtime.sequence import Draw, NotANumber, Scoring
from treeshare.llm_backend.speculative.verify import Draft, Drafter, make_drafts

from .requests import take_in


class TreeEngine:
    """Serves requests with a Hugging Face model over a shared tree KV cache.

    A request that cannot be served fails alone: one whose text has no tokens, that does not fit, or
    for which the model's logits are NaN. An exception in the middle of a step (memory, an
    interrupt) is raised to the caller; then the engine is as a new one, all requests and stored
    prefixes dropped. If that fails as well, all later calls are refused.

    Args:
        model: weights, tokenizer and attention.
        kv_tokens: size of the KV pool. When it is full, prefixes no live sequence uses are evicted,
            least recently used first; then new sequences wait for running ones to end.
        max_num_seqs: sequences in one forward.
        max_num_batched_tokens: tokens in one forward; longer prompts are computed over several.
        speculative: drafts tokens that are verified several in one forward; replies stay the same.
            Drafts take what the others leave of `max_num_batched_tokens`.

    Raises:
        ValueError: a limit below 1, or a drafter that cannot draft for the model.
    """

    def __init__(
        self,
        model: Model,
        kv_tokens: int = 16384,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 1024,
        speculative: Drafter | None = None,
    ) -> None:
        limits = {
            "kv_tokens": kv_tokens,
            "max_num_seqs": max_num_seqs,
            "max_num_batched_tokens": max_num_batched_tokens,
        }
        for name, value in limits.items():
            if value < 1:
                raise ValueError(f"engine.{name}={value} must be at least 1")
        if speculative is not None:
            speculative.check(model)
        self.model = model
        self._drafter = speculative
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.pool = model.new_pool(kv_tokens)
        self._stats = EngineStats()
        self._refusal: str | None = None  # of all calls
        self._begin()

    def _begin(self) -> None:
        """The state of an engine that has served nothing; on CUDA, all graphs are captured anew."""
        model, pool = self.model, self.pool
        pool.slots = SlotAllocator(pool.slots.num_slots)
        self.cache = TreeCache(pool.slots)
        self._forwards: GraphForward | EagerForward = EagerForward(model, pool)
        self._decoder: Decoder | None = None
        if can_decode(model):
            self._forwards = GraphForward(model, pool, self._stats)
            if self._drafter is None:
                self._decoder = Decoder(model, pool, self.max_num_seqs, self._stats)
        self._waiting: deque[Draw | Scoring] = deque()
        self._running: list[Draw | Scoring] = []
        self._replies: dict[int, Reply] = {}
        self._outstanding: set[int] = set()  # tickets
        self._suspects: set[int] = set()  # of them those whose logits were NaN once
        self._head_paused: Draw | Scoring | None = None
        self._full_at: int | None = None  # jobs that ran when memory last ran out

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """See `Engine.execute`.

        Raises:
            ValueError: a ticket is that of an outstanding request. None is taken in then.
            RuntimeError: an earlier call failed and the engine could not begin anew, or it is
                closed.
        """
        began = time.perf_counter()
        if twice := self._outstanding & requests.keys():
            raise ValueError(f"ticket {min(twice)} is that of a request that is outstanding")
        with self._guarded():
            self._outstanding |= requests.keys()
            self._submit(requests)
            while not self._replies and (self._waiting or self._running):
                self._step()
            replies, self._replies = self._replies, {}
            self._outstanding -= replies.keys()
        self._stats.seconds += time.perf_counter() - began
        return replies

    def cancel(self, tickets: Iterable[int]) -> None:
        if self._refusal is not None:
            return  # nothing is outstanding
        numbers = set(tickets)
        with self._guarded():
            self._outstanding -= numbers
            self._suspects -= numbers
            self._waiting = deque(job for job in self._waiting if job.number not in numbers)
            dropped = [job for job in self._running if job.number in numbers]
            self._running = [job for job in self._running if job.number not in numbers]
            self.cache.release([leaf for job in dropped for leaf in job.leaves], keep=False)
            for number in numbers & self._replies.keys():
                del self._replies[number]

    def run_jobs(self, jobs: Sequence[Draw]) -> None:
        """Work until these jobs, and all others, are done."""
        with self._guarded():
            self._waiting += jobs
            while self._waiting or self._running:
                self._step()

    def check_integrity(self) -> None:
        """The tree cache is sound, and its leaves are those of the running jobs.

        Raises:
            AssertionError: they are not.
        """
        self.cache.check_integrity([leaf for job in self._running for leaf in job.leaves])

    def stats(self) -> EngineStats:
        self._stats.evicted_kv_tokens = self.cache.num_evicted
        return self._stats

    def forget(self) -> None:
        """Drop all stored prefixes, and what the drafter has read, between requests: as a new
        engine, with what this one has compiled."""
        self.cache.evict(self.pool.slots.num_slots)
        if self._drafter is not None:
            self._drafter.forget()

    def close(self) -> None:
        """Drop all work under way and give the pool's memory back; later calls are refused."""
        self._refusal = "this engine is closed; make a new one"
        self._waiting.clear()
        self._running.clear()
        self.pool.keys.clear()
        self.pool.values.clear()
        if self._drafter is not None:
            self._drafter.close()

    # Taking in.

    def _submit(self, requests: Mapping[int, Request]) -> None:
        jobs, failures = take_in(self.model, self.pool.slots.num_slots, requests)
        self._waiting += jobs
        self._replies |= failures

    def _admit(self) -> None:
        """Start waiting jobs, the oldest first, as far as batch and memory allow."""
        self._full_at = None
        prefix: Ids | None = None
        while self._waiting and len(self._running) < self.max_num_seqs:
            job = self._waiting[0]
            if not self._may_join(job):
                return
            if job.prefix is not prefix:  # samples of one prompt follow each other
                node = self.cache.match(job.prefix)
            if not self._make_room(job, node):
                self._stats.paused += job is not self._head_paused
                self._head_paused = job
                self._full_at = len(self._running)
                return
            prefix, node = job.prefix, self.cache.insert(job.prefix, node)
            job.start(self.cache, node)
            self._running.append(self._waiting.popleft())

    def _may_join(self, job: Draw | Scoring) -> bool:
        """Whether a job may run beside those that do; a suspect only beside its own request's."""
        if not self._running or not self._suspects:
            return True
        numbers = {job.number, self._running[0].number}
        return len(numbers) == 1 or self._suspects.isdisjoint(numbers)

    def _make_room(self, job: Draw | Scoring, node: CacheNode) -> bool:
        """Evict until what the job's prefix has below `node`, and its own tokens, fit.

        Returns:
            Whether they do; else there cannot be room yet.
        """
        needed = len(job.prefix) - node.stop + job.capacity
        free = self.pool.slots.num_free
        if needed > free:
            self.cache.lock(node)
            free += self.cache.evict(needed - free)
            self.cache.unlock(node)
        return needed <= free

    # One forward, or a window of them.

    def _step(self) -> None:
        draws = self._decoding()
        if not draws or self._has_room_for_a_quarter():
            self._admit()
            draws = self._decoding()
        if self._decoder is not None and draws:
            self._decode(self._decoder, draws)
        else:
            self._forward()
        self._end_done()

    def _decoding(self) -> list[Draw]:
        """The running jobs, if a window can decode them all; else none."""
        if self._decoder is None:
            return []
        jobs = [job for job in self._running if isinstance(job, Draw) and job.is_decoding]
        return jobs if len(jobs) == len(self._running) else []

    def _has_room_for_a_quarter(self) -> bool:
        """Whether as many jobs as a quarter of those that run could join them. To begin fewer at a
        time costs more than their idle rows: what begins needs a forward of its own."""
        num_running = len(self._running)
        if self._full_at is not None and 4 * num_running > 3 * self._full_at:
            return False
        return 4 * min(len(self._waiting), self.max_num_seqs - num_running) >= num_running

    def _decode(self, decoder: Decoder, draws: list[Draw]) -> None:
        """Decode the running samples until a quarter of them is done, or some when a new plan is
        due: till then, to idle costs less than a new plan. The device is a step ahead of what is
        read here."""
        steps = decoder.begin(draws)
        num_entries = decoder.num_entries
        decoder.launch()
        for step in range(1, steps + 1):
            live = [draw for draw in draws if not draw.is_done]
            is_quarter_done = 4 * len(live) <= 3 * len(draws)
            is_due = len(live) < len(draws) and decoder.is_plan_used_up
            is_last = step == steps or is_quarter_done or is_due
            if not is_last:
                decoder.launch()
            for draw, token, logprob in zip(draws, *decoder.collect(), strict=False):
                if not draw.is_done:
                    draw.leaf.num_computed += 1
                    draw.charge(1)
                    draw.accept(token, logprob, self.cache, self.model)
            num_entries += len(live)
            self._count(live, len(live), num_entries)
            if is_last:
                break

    def _forward(self) -> None:
        ends, ran = self._schedule()
        drafts = self._draft(ends, ran)
        targets = self._score_targets(ends)
        work = Work(
            ends,
            [draft.job for draft in drafts],
            [draft.depths for draft in drafts],
            [place for draft in drafts for place in draft.places],
            [(place, token) for place, token, _, _ in targets],
        )
        num_tokens = work.num_tokens
        outcome = self._forwards.run(work)
        for node, end in ends.items():
            node.num_computed = end
        self._count(ran, num_tokens, outcome.num_entries)
        begin = 0
        for draft in drafts:
            part = slice(begin, begin := begin + len(draft.depths))
            draft.accept(outcome.tokens[part], outcome.logprobs[part], self.cache, self.model)
            self._count_draft(draft)
        for (_, _, job, i), logprob in zip(targets, outcome.target_logprobs, strict=True):
            job.logprobs[i] += logprob

    def _schedule(self) -> tuple[dict[KVNode, int], list[Draw | Scoring]]:
        """Which tokens to compute now, oldest jobs first.

        Returns:
            For each node the end of its tokens to compute; the jobs whose last token is among them.
        """
        ends: dict[KVNode, int] = {}
        ran: list[Draw | Scoring] = []
        room = self.max_num_batched_tokens
        for job in self._running:
            if room == 0:
                break
            is_complete = True
            for node in job.to_compute():
                begin = ends.get(node, node.num_computed)
                end = min(len(node.tokens), begin + room)
                if end > begin:
                    ends[node] = end
                    room -= end - begin
                    job.charge(end - begin)
                if end < len(node.tokens):
                    is_complete = False
                    break
            if is_complete:
                ran.append(job)
        return ends, ran

    def _draft(self, ends: dict[KVNode, int], ran: list[Draw | Scoring]) -> list[Draft]:
        """The draws that ran with what is guessed of each, for which there is room left; the
        guesses are added to the tokens to compute."""
        room = self.max_num_batched_tokens - sum(
            end - node.num_computed for node, end in ends.items()
        )
        drafts = make_drafts(self._drafter, [job for job in ran if isinstance(job, Draw)], room)
        ends |= {run: len(run.tokens) for draft in drafts for run in draft.runs}
        return drafts

    def _score_targets(self, ends: Mapping[KVNode, int]) -> list[tuple[Place, int, Scoring, int]]:
        """(place, next token, job, continuation) for every scored token computed now."""
        return [
            ((leaf, offset), token, job, continuation)
            for job in self._running
            if isinstance(job, Scoring)
            for leaf, run in zip(job.leaves, job.runs, strict=True)
            if leaf in ends
            for offset, token, continuation in run.targets
            if leaf.num_computed <= offset < ends[leaf]
        ]

    def _end_done(self) -> None:
        """Take what is done out of the tree, and hand its replies out."""
        done = [job for job in self._running if job.is_done]
        self._running = [job for job in self._running if not job.is_done]
        failed = [job for job in done if job.error is not None]
        self.cache.release([leaf for job in done if job.error is None for leaf in job.leaves])
        repeated = self._drop_failed(failed) if failed else set()
        for job in done:
            reply = None if job.number in repeated else job.end()
            if reply is not None:
                self._replies[job.number] = reply
                self._suspects.discard(job.number)

    def _drop_failed(self, failed: Sequence[Draw | Scoring]) -> Set[int]:
        """Free what failed jobs hold, and end those that wait for the same requests.

        NaN spreads to earlier tokens of the same forward, which attention weights with zero, and so
        to requests that share these. So what it may have reached is cleared, and each request is
        tried once more, with no other beside it.

        Returns:
            Tickets of the requests that are tried again.
        """
        by_number = {job.number: job for job in failed}
        self._waiting = deque(job for job in self._waiting if job.number not in by_number)
        again = []
        for job in failed:
            anchor, slots = job.leaves[0].anchor, [leaf.slots for leaf in job.leaves]
            self.cache.release(job.leaves, keep=False)
            if isinstance(job.error, NotANumber):
                self.pool.clear(np.concatenate([*slots, self.cache.drop(anchor)]))
        for number, job in by_number.items():
            if isinstance(job.error, NotANumber) and number not in self._suspects:
                self._waiting.extendleft(reversed(job.again()))
                again.append(number)
        self._suspects.update(again)
        return set(again)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever is raised in here leaves an engine that has served nothing, or refuses to."""
        if self._refusal is not None:
            raise RuntimeError(self._refusal)
        try:
            yield
        except BaseException as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            self._refusal = f"this engine failed in an earlier call ({reason}); make a new one"
            self._begin()
            if self._drafter is not None:
                self._drafter.forget()
            self._refusal = None
            raise

    def _count(self, jobs: Sequence[Draw | Scoring], num_tokens: int, num_entries: int) -> None:
        """A forward of so many tokens over so many different KV entries."""
        stats = self._stats
        stats.steps += 1
        stats.sequences += len(jobs)
        stats.tokens += num_tokens
        stats.unique_kv_reads += num_entries
        stats.logical_kv_reads += sum(length for job in jobs for length in job.path_lengths())
        in_use = self.pool.slots.num_slots - self.pool.slots.num_free
        stats.peak_kv_tokens = max(stats.peak_kv_tokens, in_use)

    def _count_draft(self, draft: Draft) -> None:
        stats = self._stats
        stats.drafts += draft.num_guesses > 0
        stats.drafted_tokens += draft.num_guesses
        stats.accepted_tokens += draft.num_accepted
        stats.logical_kv_reads += draft.num_guesses  # each is read by no other sequence
