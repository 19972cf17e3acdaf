"""Sampling in fixed memory, for graphs: what each row is drawn with is loaded in one copy.

Rows that are not used are drawn all the same, and so have rules that leave something to draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from treeshare.llm_backend.api import Sampling
from treeshare.llm_backend.runtime.sequence import Draw

from .sampler import Rules, is_filtered, sample, streams, top_k_of, uniforms


class RowSampler:
    """Draws `num_rows` tokens, or takes the log-probabilities of given ones.

    Args:
        num_rows: R.
        is_filtered: whether `top_p` or `top_k` may cut a row.
        device: where; on CUDA sampling is compiled, which takes some seconds the first time.
    """

    drawn: torch.Tensor  # [2, R] float64: tokens, and the log-probability of each in nats

    def __init__(self, num_rows: int, is_filtered: bool, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        # Streams, counts, top_k, forced tokens; in the last row, temperature and top_p as fp32.
        self._columns = torch.zeros(5, num_rows, dtype=torch.int64, device=device)
        self._streams, self.counts, top_k, forced, _ = self._columns
        temperature, top_p = _fractions(self._columns)
        rows = torch.arange(num_rows, device=device) if is_filtered else None
        self._rules = Rules(temperature, top_p, top_k, rows, forced)
        # Few passes over the logits instead of many, and few small operations.
        self._draw = torch.compile(_draw, dynamic=True) if self._is_cuda else _draw
        self.drawn = torch.zeros(2, num_rows, dtype=torch.float64, device=device)

    def load(
        self,
        draws: Sequence[Draw],
        depths: Sequence[Sequence[int]] | None = None,
        forced: Sequence[int] = (),
    ) -> None:
        """Say what the rows are. Does not wait for the device.

        Args:
            draws: sequences that the first rows are drawn for.
            depths: of each sequence its rows' distances from its next token; None: one row, 0.
            forced: of the rows after these, token ids whose log-probabilities are wanted.
        """
        # Pinned memory of its own each time: the allocator reuses it when the copy is done.
        host = torch.zeros(self._columns.shape, dtype=torch.int64, pin_memory=self._is_cuda)
        stream, count, top_k, token, _ = host.numpy()
        temperature, top_p = _fractions(host).numpy()
        top_k[:], temperature[:], top_p[:] = top_k_of(Sampling()), 1, 1
        token[:] = -1
        depths = [(0,)] * len(draws) if depths is None else depths
        flat = [depth for rows in depths for depth in rows]
        token[len(flat) : len(flat) + len(forced)] = forced
        if draws:
            of_row = np.repeat(np.arange(len(draws)), [len(rows) for rows in depths])
            requests = [draw.ticket.request for draw in draws]
            rules = Rules.of([request.sampling for request in requests])
            used = slice(len(flat))
            seeds = [request.seed for request in requests]
            stream[used] = streams(seeds, [draw.sample for draw in draws]).numpy()[of_row]
            count[used] = np.array([len(draw.generated) for draw in draws])[of_row] + flat
            top_k[used] = rules.top_k[of_row]
            temperature[used], top_p[used] = rules.temperature[of_row], rules.top_p[of_row]
        self._columns.copy_(host, non_blocking=True)

    def draw(self, logits: torch.Tensor) -> torch.Tensor:
        """Device work: fills `drawn` from logits [R, V]; returns the tokens, [R] int64."""
        with warnings.catch_warnings():
            # About how a softmax was compiled; a user cannot change that.
            warnings.filterwarnings("ignore", r"\s*Online softmax is disabled")
            tokens, drawn = self._draw(logits, self._rules, self._streams, self.counts)
        self.drawn.copy_(drawn)
        return tokens


def any_filtered(draws: Iterable[Draw]) -> bool:
    return any(is_filtered(draw.ticket.request.sampling) for draw in draws)


def _draw(
    logits: torch.Tensor, rules: Rules, streams: torch.Tensor, counts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, logprobs = sample(logits, rules, uniforms(streams, counts))
    return tokens, torch.stack([tokens.double(), logprobs.double()])


def _fractions(columns: torch.Tensor) -> torch.Tensor:
    return columns[-1].view(torch.float32).view(2, -1)
