"""Several decode steps of one batch without the host between them, sampling included.

Tokens, positions, slots, random streams and limits live on the device, and a step feeds the next.
On CUDA a step is one graph, replayed, and the host reads a step's tokens while the next one runs.
A plan of the attention serves some steps; the next plan is made while the device still works on the
last of them. A row whose sequence is done idles and writes nothing. Stop strings are found by the
caller, who reads the tokens.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from treeshare.llm_backend.api import EngineStats
from treeshare.llm_backend.cache.kv_pool import KVPool
from treeshare.llm_backend.model.attention import AttentionBackend, TreeBatch
from treeshare.llm_backend.model.network import Network
from treeshare.llm_backend.sampling.batch_sampler import BatchSampler, any_filtered

from .batch import ForwardBatch, ForwardOutput, SamplingColumns
from .packing import growing_forest
from .planned_step import PlannedStep
from .sequence import Sequence

STEPS = 64  # decode steps of a plan


class MultiStepRunner:
    """Runs several decode steps of a batch (`runner.Runner`).

    Args:
        network: computes the logits.
        attention: plans and computes the attention; its `capabilities.captures` is true.
        pool: holds keys and values.
        max_num_seqs: sequences in a batch at most.
        stats: where captures are counted.
    """

    def __init__(
        self,
        network: Network,
        attention: AttentionBackend,
        pool: KVPool,
        max_num_seqs: int,
        stats: EngineStats,
    ) -> None:
        self._network = network
        self._attention = attention
        self._pool = pool
        self._max_num_seqs = max_num_seqs
        self._stats = stats
        num_slots = pool.slots.num_slots
        # Entry i of the pool is slot i; a row that is done may look beyond the last one.
        slots = torch.arange(num_slots + STEPS, dtype=torch.int32, device=network.device)
        self._table = slots.clamp_(max=num_slots - 1)
        self._graphs: dict[tuple[int, bool], _DecodeGraph] = {}

    def run(self, batch: ForwardBatch) -> Iterator[ForwardOutput]:
        """Decode until a quarter of the sequences is done; at a new plan, until any is done.

        Until then it costs less to let the rows idle than to plan anew. The device is a step ahead
        of the output that is yielded; see `Runner.run`.

        Args:
            batch: a batch of `ForwardBatch.decoding`.
        """
        sequences = batch.sequences
        graph = self._graph(sequences)
        graph.load(batch)
        num_steps = _room(sequences) if self._attention.capabilities.grows else 1
        num_entries = graph.num_entries
        num_live = len(sequences)
        graph.launch()
        for step in range(1, num_steps + 1):
            is_quarter_done = 4 * num_live <= 3 * len(sequences)
            is_due = num_live < len(sequences) and graph.is_plan_used_up
            is_last = step == num_steps or is_quarter_done or is_due
            if not is_last:
                graph.launch()
            tokens, logprobs = graph.collect(len(sequences))
            num_entries += num_live
            yield ForwardOutput(tokens, logprobs, [], num_entries)
            if is_last:
                return
            num_live = sum(not sequence.is_done for sequence in sequences)

    def _graph(self, sequences: abc.Sequence[Sequence]) -> _DecodeGraph:
        """Return the graph for these sequences; the first call for a size makes it."""
        num_rows = min(1 << (len(sequences) - 1).bit_length(), self._max_num_seqs)
        key = num_rows, any_filtered(sequence.sampling for sequence in sequences)
        if key not in self._graphs:
            self._graphs[key] = _DecodeGraph(
                self._network, self._attention, self._pool, self._table, self._stats, *key
            )
        return self._graphs[key]


class _DecodeGraph:
    """A decode step of `num_rows` sequences or fewer, and the memory it works on."""

    def __init__(
        self,
        network: Network,
        attention: AttentionBackend,
        pool: KVPool,
        table: torch.Tensor,
        stats: EngineStats,
        num_rows: int,
        is_filtered: bool,
    ) -> None:
        device = network.device
        self._is_cuda = is_cuda = device.type == "cuda"
        self._network = network
        self._grows = attention.capabilities.grows
        self._sampler = BatchSampler(num_rows, is_filtered, device)
        # Of each row's token: its id, its position, the slot it goes to, or -1 if the row is done;
        # then the row's limit of tokens, and whether it goes on after an end token.
        self._rows = torch.zeros(5, num_rows, dtype=torch.int64, device=device)
        self._ends = torch.tensor(sorted(network.end_tokens), dtype=torch.int64, device=device)
        self._advance = _advance
        if is_cuda:
            # Imported here: Triton decides at import whether it compiles or interprets.
            from treeshare.kernels.sampling.advance import advance

            self._advance = advance
        history = torch.zeros(STEPS, 2, num_rows, dtype=torch.float64, pin_memory=is_cuda)
        self._history = history  # of the last steps: tokens and log-probabilities
        self._events = [torch.cuda.Event() for _ in range(STEPS)] if is_cuda else []  # type: ignore[no-untyped-call]
        self._plans = attention.captured_plans(table, num_rows, STEPS)
        self._batch = TreeBatch(attention, pool, self._rows[2], self._plans)
        name = f"a decode step of {num_rows} sequences"
        state = [self._rows, self._sampler.counts]
        self._planned = PlannedStep(self._step, state, self._plans, device, name, stats)

    @torch.inference_mode()
    def load(self, batch: ForwardBatch) -> None:
        """Begin with a batch."""
        leaves = [sequence.leaf for sequence in batch.sequences]
        self._forest = growing_forest(leaves, is_grown=not self._grows)
        self.num_entries = int(self._forest.length.sum())
        self._load_rows(batch.sequences)
        self._launched = self._collected = 0

    @property
    def is_plan_used_up(self) -> bool:
        """Whether the next `launch` begins with a new plan."""
        return self._launched % STEPS == 0

    @torch.inference_mode()
    def launch(self) -> None:
        """Begin the next step. Waits for the device only to make a new plan."""
        if self.is_plan_used_up:
            grown = self._forest.length + self._launched * self._forest.num_queries
            self._planned.fit(replace(self._forest, length=grown))
        self._planned.launch()
        number = self._launched % STEPS
        self._history[number].copy_(self._sampler.drawn, non_blocking=True)
        if self._events:
            self._events[number].record()
        self._launched += 1

    def collect(self, count: int) -> tuple[list[int], list[float]]:
        """Wait for the oldest step not collected yet.

        Returns:
            The tokens of the first `count` rows, and their log-probabilities.
        """
        number = self._collected % STEPS
        if self._events:
            self._events[number].synchronize()
        tokens, logprobs = self._history[number].tolist()
        self._collected += 1
        return [int(token) for token in tokens[:count]], logprobs[:count]

    def _load_rows(self, sequences: abc.Sequence[Sequence]) -> None:
        """Copy the sequences to the rows; rows beyond the last are done from the start."""
        rows = torch.zeros(self._rows.shape, dtype=torch.int64, pin_memory=self._is_cuda)
        rows[2] = -1
        columns = []
        for sequence in sequences:
            leaf = sequence.leaf
            at = leaf.num_computed
            limit = len(sequence.generated) + len(leaf.slots) - at
            ignores = sequence.sampling.ignore_eos
            columns.append((leaf.tokens[at], leaf.start + at, leaf.slots[at], limit, ignores))
        rows[:, : len(sequences)] = torch.from_numpy(np.array(columns, dtype=np.int64).T)
        self._rows.copy_(rows, non_blocking=True)
        self._sampler.load(*SamplingColumns.of(sequences))

    def _step(self) -> None:
        """Compute a token of every row and go on to it. Device work only."""
        tokens, positions = self._rows[0], self._rows[1]
        self._plans.advance()
        drawn = self._sampler.draw(self._network.run(self._batch, tokens, positions))
        self._advance(self._rows, self._sampler.counts, drawn, self._ends)


def _advance(
    rows: torch.Tensor, counts: torch.Tensor, drawn: torch.Tensor, ends: torch.Tensor
) -> None:
    """Go on to the tokens that were drawn, in place."""
    _, positions, slots, limits, ignores = rows
    number = counts + 1
    has_ended = (drawn[:, None] == ends).any(dim=1) & (ignores == 0)
    slots = torch.where((slots < 0) | (number >= limits) | has_ended, -1, slots + 1)
    rows.copy_(torch.stack([drawn, positions + 1, slots, limits, ignores]))
    counts.copy_(number)


def _room(sequences: abc.Sequence[Sequence]) -> int:
    """Return the steps that the sequences may take together: as many as the longest one has left.

    They are fewer where a leaf's entries do not follow one another in the pool, since a step takes
    the next slot.
    """
    rests = [each.leaf.slots[each.leaf.num_computed :] for each in sequences]
    lengths = np.array([len(rest) for rest in rests])
    ends = np.cumsum(lengths)
    is_break = np.diff(np.concatenate(rests)) != 1
    is_break[ends[:-1] - 1] = False  # from one leaf to the next
    breaks = np.flatnonzero(is_break)
    begin = (ends - lengths)[np.searchsorted(ends, breaks, side="right")]
    return int((breaks - begin + 1).min(initial=lengths.max()))
