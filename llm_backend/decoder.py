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
from .api import Sampling
from .attention import DeftAttention, TreeBatch, Window
from .jobs import Draw
from .kv_pool import KVPool
from .model import Model
from .packing import growing_forest
from .sampling import Rules, is_filtered, sample, streams, top_k_of, uniforms

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
        settings = [draw.ticket.request.sampling for draw in draws]
        num_rows = min(1 << (len(draws) - 1).bit_length(), self._max_rows)
        key = num_rows, any(map(is_filtered, settings))
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
        is_cuda = device.type == "cuda"
        self._model, self._pool, self._table = model, pool, table
        self._backend = model.backend
        self._num_rows = num_rows
        # Positions, slots and counts (which grow), tokens, limits, streams, top_k.
        self._integers = torch.zeros(7, num_rows, dtype=torch.int64, device=device)
        self._fractions = torch.ones(2, num_rows, device=device)  # temperature, top_p
        self._rules = Rules(
            self._fractions[0],
            self._fractions[1],
            self._integers[6],
            torch.arange(num_rows, device=device) if is_filtered else None,
        )
        # Five passes over the logits become two; the first use takes some seconds.
        self._sample = torch.compile(sample, dynamic=True) if is_cuda else sample
        self._ends = torch.tensor(sorted(model.end_tokens), dtype=torch.int64, device=device)
        self._targets = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self._drawn = torch.zeros(2, num_rows, dtype=torch.float64, device=device)
        history = torch.zeros(STEPS, 2, num_rows, dtype=torch.float64, pin_memory=is_cuda)
        self._history = history  # of the window: tokens and log-probabilities
        self._events = [torch.cuda.Event() for _ in range(STEPS)] if is_cuda else []  # type: ignore[no-untyped-call]
        self._run: Callable[[], None] = self._step
        self._window: Window | None = None

    @torch.inference_mode()
    def load(self, draws: Sequence[Draw]) -> int:
        """Begin a window; returns by how many steps its plan can grow, 0 if it cannot."""
        can_grow = self._backend.can_grow
        forest = growing_forest([draw.leaf for draw in draws], is_grown=not can_grow)
        self.num_entries = int(forest.length.sum())
        self._load_rows(draws)
        self._launched = self._collected = 0
        if self._window is not None:
            try:
                self._window.load(forest)
                return self._window.growth
            except ValueError:
                pass  # it outgrew the plan: make a larger one
        self._window = self._backend.window(forest, self._table, STEPS, self._num_rows)
        self._batch = TreeBatch(self._backend, self._pool, self._targets, self._window)
        self._run = captured(self._step, self._model.device)
        self._load_rows(draws)  # again, as a step may have been run
        self._window.load(forest)
        return self._window.growth

    @torch.inference_mode()
    def launch(self) -> None:
        self._run()
        self._history[self._launched].copy_(self._drawn, non_blocking=True)
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
        """Rows beyond the last sample are done from the start: their limit is 0. They are drawn all
        the same, and so must have rules that leave something to draw."""
        is_cuda = self._model.device.type == "cuda"
        requests = [draw.ticket.request for draw in draws]
        integers = torch.zeros(7, self._num_rows, dtype=torch.int64, pin_memory=is_cuda)
        integers[6] = top_k_of(Sampling())
        fractions = torch.ones(2, self._num_rows, pin_memory=is_cuda)
        columns = [
            (
                draw.leaf.start + draw.leaf.num_computed,
                draw.leaf.slots[draw.leaf.num_computed],
                len(draw.generated),
                draw.leaf.tokens[draw.leaf.num_computed],
                len(draw.generated) + len(draw.leaf.slots) - draw.leaf.num_computed,
                0,
                top_k_of(request.sampling),
            )
            for draw, request in zip(draws, requests, strict=True)
        ]
        settings = [(r.sampling.temperature, r.sampling.top_p) for r in requests]
        integers[:, : len(draws)] = torch.from_numpy(np.array(columns, dtype=np.int64).T)
        integers[5, : len(draws)] = streams(
            [request.seed for request in requests], [draw.sample for draw in draws]
        )
        fractions[:, : len(draws)] = torch.tensor(settings).T
        self._integers.copy_(integers, non_blocking=True)
        self._fractions.copy_(fractions, non_blocking=True)

    def _step(self) -> None:
        """Device work only."""
        assert self._window is not None
        positions, slots, counts, tokens, limits, streams, _ = self._integers
        self._targets.copy_(torch.where(counts < limits, slots, -1))
        self._window.advance()
        logits = self._model.run(self._batch, tokens, positions)
        drawn, logprobs = self._sample(logits, self._rules, uniforms(streams, counts))
        self._drawn.copy_(torch.stack([drawn.double(), logprobs.double()]))
        tokens.copy_(drawn)
        limits.masked_fill_((drawn[:, None] == self._ends).any(dim=1), 0)
        self._integers[:3].add_(1)


def _room(draw: Draw) -> int:
    """Steps for which the leaf's entries follow one another, or more than it will take."""
    rest = draw.leaf.slots[draw.leaf.num_computed :]
    breaks = np.flatnonzero(np.diff(rest) != 1)
    return min(int(breaks[0]) + 1, STEPS) if len(breaks) else STEPS
