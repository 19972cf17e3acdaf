"""Which tokens the running jobs compute in the next forward, and what becomes of its output."""

from __future__ import annotations

from collections import abc
from collections.abc import Mapping

from treeshare.llm_backend.runtime.batch import ForwardBatch, ForwardOutput, Place
from treeshare.llm_backend.runtime.observer import StepRecorder
from treeshare.llm_backend.runtime.packing import KVNode
from treeshare.llm_backend.runtime.sequence import Job, ScoreRequestState, Sequence
from treeshare.llm_backend.speculative.verify import Draft, Drafter, make_drafts


class ScheduledDecode:
    """Decode steps of sequences that each have one token to compute.

    Args:
        sequences: all of them run together until the runner ends.
        recorder: counts the steps.
    """

    def __init__(self, sequences: abc.Sequence[Sequence], recorder: StepRecorder) -> None:
        self.batch = ForwardBatch.decoding(sequences)
        self._recorder = recorder

    def accept(self, output: ForwardOutput) -> None:
        """Append the tokens of a step to their sequences; those that are done idle."""
        live = []
        sequences = self.batch.sequences
        for sequence, token, logprob in zip(sequences, output.tokens, output.logprobs, strict=True):
            if not sequence.is_done:
                sequence.leaf.num_computed += 1
                sequence.charge(1)
                sequence.accept(token, logprob)
                live.append(sequence)
        self._recorder.count(live, len(live), output.num_entries)


class ScheduledForward:
    """One forward: missing parts of prompts, next tokens, drafted tokens and tokens to score.

    Args:
        running: jobs, the oldest first; those beyond the limit wait for the next forward.
        max_num_tokens: tokens of the forward at most.
        drafter: guesses next tokens, for which the others leave room; may be None.
        recorder: counts the forward.
    """

    def __init__(
        self,
        running: abc.Sequence[Job],
        max_num_tokens: int,
        drafter: Drafter | None,
        recorder: StepRecorder,
    ) -> None:
        self._recorder = recorder
        ends, self._complete = _prompts_and_next_tokens(running, max_num_tokens)
        self._drafts = _drafts(drafter, ends, self._complete, max_num_tokens)
        self._targets = _score_targets(running, ends)
        self.batch = ForwardBatch(
            ends,
            [draft.sequence for draft in self._drafts],
            [draft.depths for draft in self._drafts],
            [place for draft in self._drafts for place in draft.places],
            [(place, token) for place, token, _, _ in self._targets],
        )

    def accept(self, output: ForwardOutput) -> None:
        """Give the output to the jobs, and count it."""
        num_tokens = self.batch.num_tokens
        for node, end in self.batch.ends.items():
            node.num_computed = end
        self._recorder.count(self._complete, num_tokens, output.num_entries)
        begin = 0
        for draft in self._drafts:
            part = slice(begin, begin := begin + len(draft.depths))
            draft.accept(output.tokens[part], output.logprobs[part])
            self._recorder.count_draft(draft.num_guesses, draft.num_accepted)
        for (_, _, job, i), logprob in zip(self._targets, output.target_logprobs, strict=True):
            job.logprobs[i] += logprob


def _prompts_and_next_tokens(
    running: abc.Sequence[Job], max_num_tokens: int
) -> tuple[dict[KVNode, int], list[Job]]:
    """Choose the tokens to compute, the oldest jobs' first.

    Returns:
        For each node the end of its tokens to compute; the jobs whose last token is among them.
    """
    ends: dict[KVNode, int] = {}
    complete: list[Job] = []
    room = max_num_tokens
    for job in running:
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
            complete.append(job)
    return ends, complete


def _drafts(
    drafter: Drafter | None,
    ends: dict[KVNode, int],
    complete: abc.Sequence[Job],
    max_num_tokens: int,
) -> list[Draft]:
    """Draft for the sequences that draw a token, and add the guesses to the tokens to compute."""
    room = max_num_tokens - sum(end - node.num_computed for node, end in ends.items())
    drafts = make_drafts(drafter, [job for job in complete if isinstance(job, Sequence)], room)
    ends |= {run: len(run.tokens) for draft in drafts for run in draft.runs}
    return drafts


def _score_targets(
    running: abc.Sequence[Job], ends: Mapping[KVNode, int]
) -> list[tuple[Place, int, ScoreRequestState, int]]:
    """Return (place, next token, job, continuation) for every scored token computed now."""
    return [
        ((leaf, offset), token, job, continuation)
        for job in running
        if isinstance(job, ScoreRequestState)
        for leaf, node in zip(job.leaves, job.nodes, strict=True)
        if leaf in ends
        for offset, token, continuation in node.targets
        if leaf.num_computed <= offset < ends[leaf]
    ]
