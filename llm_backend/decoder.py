"""Decodes running samples for many steps on one plan, with the sampling on the device.

A window is a set of samples that each have one token to compute, then another, and so on. Tokens,
positions, slots, random streams and limits live on the device and a step feeds the next: on CUDA
it is one graph, replayed, and the host reads a step's tokens while the next one runs (DESIGN
section 5.8). A row that is done idles and writes nothing. Knows no stop strings: who reads the
tokens ends the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..kernels.cuda_graph import captured
from .attention import DeftAttention, TreeBatch
from .jobs import Draw
from .kv_pool import KVPool
from .model import Model
from .packing import growing_forest
from .row_sampler import RowSampler, any_filtered

STEPS = 64  # of a window at most


class Decoder:
    """Runs windows, one at a time: `begin`, then `launch` and `collect` step by step.

    Args:
        model: its attention is a variant that `attention.DeftAttention.can_update`.
        pool: where keys and values go.
        max_rows: samples in a window at most.
    """

    def __init__(self, model: Model, pool: KVPool, max_rows: int) -> None:
        self._model = model
        self._pool = pool
        self._max_rows = max_rows
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
            self._programs[key] = _Program(self._model, self._pool, self._table, *key)
        self._program = self._programs[key]
        growth = self._program.load(draws)
        self.num_entries = self._program.num_entries
        longest = max(len(draw.leaf.slots) - draw.leaf.num_computed for draw in draws)
        return min(longest, *(_room(draw) for draw in draws)) if growth else 1

    def launch(self) -> None:
        """Begin the next step. Does not wait for the device."""
        self._program.launch()

    def collect(self) -> tuple[list[int], list[float]]:
        """Wait for the oldest step not collected yet; its tokens, and their log-probabilities."""
        return self._program.collect()


def can_decode(model: Model) -> bool:
    return isinstance(model.backend, DeftAttention) and model.backend.can_update


class _Program:
    """A step for `num_rows` samples or fewer, and the memory it works on."""

    def __init__(
        self, model: Model, pool: KVPool, table: torch.Tensor, num_rows: int, is_filtered: bool
    ) -> None:
        assert isinstance(model.backend, DeftAttention)
        device = model.device
        self._is_cuda = is_cuda = device.type == "cuda"
        self._model = model
        self._is_grown = not model.backend.can_grow
        self._sampler = RowSampler(num_rows, is_filtered, device)
        # Positions and slots (which grow, as the sampler's counts do), tokens, limits.
        self._integers = torch.zeros(4, num_rows, dtype=torch.int64, device=device)
        self._ends = torch.tensor(sorted(model.end_tokens), dtype=torch.int64, device=device)
        self._targets = torch.zeros(num_rows, dtype=torch.int64, device=device)
        history = torch.zeros(STEPS, 2, num_rows, dtype=torch.float64, pin_memory=is_cuda)
        self._history = history  # of the window: tokens and log-probabilities
        self._events = [torch.cuda.Event() for _ in range(STEPS)] if is_cuda else []  # type: ignore[no-untyped-call]
        self._window = model.backend.window(table, num_rows, STEPS)
        self._batch = TreeBatch(model.backend, pool, self._targets, self._window)
        self._run: Callable[[], None] = self._step

    @torch.inference_mode()
    def load(self, draws: Sequence[Draw]) -> int:
        """Begin a window; returns by how many steps its plan can grow, 0 if it cannot."""
        forest = growing_forest([draw.leaf for draw in draws], is_grown=self._is_grown)
        self.num_entries = int(forest.length.sum())
        self._load_rows(draws)
        self._launched = self._collected = 0
        if not self._window.fit(forest):
            self._run = captured(self._step, self._model.device)
            self._load_rows(draws)  # again, as a step may have been run
            self._window.load(forest)
        return self._window.growth

    @torch.inference_mode()
    def launch(self) -> None:
        self._run()
        self._history[self._launched].copy_(self._sampler.drawn, non_blocking=True)
        if self._events:
            self._events[self._launched].record()
        self._launched += 1

    def collect(self) -> tuple[list[int], list[float]]:
        if self._events:
            self._events[self._collected].synchronize()
        tokens, logprobs = self._history[self._collected].tolist()
        self._collected += 1
        return [int(token) for token in tokens], logprobs

    def _load_rows(self, draws: Sequence[Draw]) -> None:
        """Rows beyond the last sample are done from the start: their limit is 0."""
        integers = torch.zeros(self._integers.shape, dtype=torch.int64, pin_memory=self._is_cuda)
        columns = [
            (
                draw.leaf.start + draw.leaf.num_computed,
                draw.leaf.slots[draw.leaf.num_computed],
                draw.leaf.tokens[draw.leaf.num_computed],
                len(draw.generated) + len(draw.leaf.slots) - draw.leaf.num_computed,
            )
            for draw in draws
        ]
        integers[:, : len(draws)] = torch.from_numpy(np.array(columns, dtype=np.int64).T)
        self._integers.copy_(integers, non_blocking=True)
        self._sampler.load(draws)

    def _step(self) -> None:
        """Device work only."""
        positions, slots, tokens, limits = self._integers
        counts = self._sampler.counts
        self._targets.copy_(torch.where(counts < limits, slots, -1))
        self._window.advance()
        drawn = self._sampler.draw(self._model.run(self._batch, tokens, positions))
        tokens.copy_(drawn)
        limits.masked_fill_((drawn[:, None] == self._ends).any(dim=1), 0)
        self._integers[:2].add_(1)
        counts.add_(1)


def _room(draw: Draw) -> int:
    """Steps for which the leaf's entries follow one another, or more than it will take."""
    rest = draw.leaf.slots[draw.leaf.num_computed :]
    breaks = np.flatnonzero(np.diff(rest) != 1)
    return min(int(breaks[0]) + 1, STEPS) if len(breaks) else STEPS
