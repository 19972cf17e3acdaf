"""Decodes running samples step by step on the device, sampling included.

A window is a set of samples that each have one token to compute, then another, and so on. Tokens,
positions, slots, random streams and limits live on the device and a step feeds the next: on CUDA
it is one graph, replayed, and the host reads a step's tokens while the next one runs (DESIGN
section 5.8). A plan serves some steps, and the next is made while the device still works on the
last of them. A row that is done idles and writes nothing. Knows no stop strings: who reads the
tokens ends the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from treeshare.llm_backend.api import EngineStats
from treeshare.llm_backend.cache.kv_pool import KVPool
from treeshare.llm_backend.model.attention import DeftAttention, TreeBatch
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.sampling.batch_sampler import RowSampler, any_filtered

from .packing import growing_forest
from .planned_step import PlannedStep
from .sequence import Draw

STEPS = 64  # of a plan


class Decoder:
    """Runs windows, one at a time: `begin`, then `launch` and `collect` step by step.

    Args:
        model: its attention is a variant that `attention.DeftAttention.can_update`.
        pool: where keys and values go.
        max_rows: samples in a window at most.
        stats: counts what is captured.
    """

    def __init__(self, model: Model, pool: KVPool, max_rows: int, stats: EngineStats) -> None:
        self._model = model
        self._pool = pool
        self._max_rows = max_rows
        self._stats = stats
        num_slots = pool.slots.num_slots
        # Entry i of the pool is slot i; a row that is done may look beyond the last one.
        slots = torch.arange(num_slots + STEPS, dtype=torch.int32, device=model.device)
        self._table = slots.clamp_(max=num_slots - 1)
        self._programs: dict[tuple[int, bool], _Program] = {}

    def begin(self, draws: Sequence[Draw]) -> int:
        """Load samples whose leaves have one token to compute; returns the steps they may take."""
        num_rows = min(1 << (len(draws) - 1).bit_length(), self._max_rows)
        key = num_rows, any_filtered(draws)
        if key not in self._programs:
            self._programs[key] = _Program(self._model, self._pool, self._table, self._stats, *key)
        self._program = self._programs[key]
        self._program.load(draws)
        self.num_entries = self._program.num_entries
        return _room(draws) if self._program.can_grow else 1

    @property
    def is_plan_used_up(self) -> bool:
        """Whether the next `launch` begins with a new plan."""
        return self._program.is_plan_used_up

    def launch(self) -> None:
        """Begin the next step. Waits for the device only to make a new plan."""
        self._program.launch()

    def collect(self) -> tuple[list[int], list[float]]:
        """Wait for the oldest step not collected yet; its tokens, and their log-probabilities."""
        return self._program.collect()


def can_decode(model: Model) -> bool:
    return isinstance(model.backend, DeftAttention) and model.backend.can_update


class _Program:
    """A step for `num_rows` samples or fewer, and the memory it works on."""

    def __init__(
        self,
        model: Model,
        pool: KVPool,
        table: torch.Tensor,
        stats: EngineStats,
        num_rows: int,
        is_filtered: bool,
    ) -> None:
        assert isinstance(model.backend, DeftAttention)
        device = model.device
        self._is_cuda = is_cuda = device.type == "cuda"
        self._model = model
        self.can_grow = model.backend.can_grow  # or each step needs a window of its own
        self._sampler = RowSampler(num_rows, is_filtered, device)
        # Of each row's token: its id, its position, the slot it goes to, or -1 if the row is done;
        # and the row's limit of tokens.
        self._rows = torch.zeros(4, num_rows, dtype=torch.int64, device=device)
        self._ends = torch.tensor(sorted(model.end_tokens), dtype=torch.int64, device=device)
        self._advance = torch.compile(_advance, dynamic=True) if is_cuda else _advance
        history = torch.zeros(STEPS, 2, num_rows, dtype=torch.float64, pin_memory=is_cuda)
        self._history = history  # of the last steps: tokens and log-probabilities
        self._events = [torch.cuda.Event() for _ in range(STEPS)] if is_cuda else []  # type: ignore[no-untyped-call]
        self._window = model.backend.window(table, num_rows, STEPS)
        self._batch = TreeBatch(model.backend, pool, self._rows[2], self._window)
        name = f"a decode step of {num_rows} sequences"
        state = [self._rows, self._sampler.counts]
        self._planned = PlannedStep(self._step, state, self._window, device, name, stats)

    @torch.inference_mode()
    def load(self, draws: Sequence[Draw]) -> None:
        """Begin a window."""
        self._forest = growing_forest([draw.leaf for draw in draws], is_grown=not self.can_grow)
        self.num_entries = int(self._forest.length.sum())
        self._load_rows(draws)
        self._launched = self._collected = 0

    @property
    def is_plan_used_up(self) -> bool:
        return self._launched % STEPS == 0

    @torch.inference_mode()
    def launch(self) -> None:
        if self.is_plan_used_up:
            grown = self._forest.length + self._launched * self._forest.num_queries
            self._planned.fit(replace(self._forest, length=grown))
        self._planned.launch()
        number = self._launched % STEPS
        self._history[number].copy_(self._sampler.drawn, non_blocking=True)
        if self._events:
            self._events[number].record()
        self._launched += 1

    def collect(self) -> tuple[list[int], list[float]]:
        number = self._collected % STEPS
        if self._events:
            self._events[number].synchronize()
        tokens, logprobs = self._history[number].tolist()
        self._collected += 1
        return [int(token) for token in tokens], logprobs

    def _load_rows(self, draws: Sequence[Draw]) -> None:
        """Rows beyond the last sample are done from the start."""
        rows = torch.zeros(self._rows.shape, dtype=torch.int64, pin_memory=self._is_cuda)
        rows[2] = -1
        columns = [
            (
                draw.leaf.tokens[draw.leaf.num_computed],
                draw.leaf.start + draw.leaf.num_computed,
                draw.leaf.slots[draw.leaf.num_computed],
                len(draw.generated) + len(draw.leaf.slots) - draw.leaf.num_computed,
            )
            for draw in draws
        ]
        rows[:, : len(draws)] = torch.from_numpy(np.array(columns, dtype=np.int64).T)
        self._rows.copy_(rows, non_blocking=True)
        self._sampler.load(draws)

    def _step(self) -> None:
        """Device work only."""
        tokens, positions, _, _ = self._rows
        self._window.advance()
        drawn = self._sampler.draw(self._model.run(self._batch, tokens, positions))
        self._advance(self._rows, self._sampler.counts, drawn, self._ends)


def _advance(
    rows: torch.Tensor, counts: torch.Tensor, drawn: torch.Tensor, ends: torch.Tensor
) -> None:
    """On to the tokens that were drawn, in place."""
    _, positions, slots, limits = rows
    number = counts + 1
    is_done = (slots < 0) | (number >= limits) | (drawn[:, None] == ends).any(dim=1)
    slots = torch.where(is_done, -1, slots + 1)
    rows.copy_(torch.stack([drawn, positions + 1, slots, limits]))
    counts.copy_(number)


def _room(draws: Sequence[Draw]) -> int:
    """Steps that all take together at most; or fewer, where a leaf's entries follow one another
    only so far."""
    rests = [draw.leaf.slots[draw.leaf.num_computed :] for draw in draws]
    lengths = np.array([len(rest) for rest in rests])
    ends = np.cumsum(lengths)
    is_break = np.diff(np.concatenate(rests)) != 1
    is_break[ends[:-1] - 1] = False  # from one leaf to the next
    breaks = np.flatnonzero(is_break)
    begin = (ends - lengths)[np.searchsorted(ends, breaks, side="right")]
    return int((breaks - begin + 1).min(initial=lengths.max()))
