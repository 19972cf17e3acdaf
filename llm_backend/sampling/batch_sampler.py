"""Sampling in fixed memory, as CUDA graphs need it: the parameters of all rows are one copy.

Unused rows are sampled too, because shapes are fixed; they get default parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from treeshare.llm_backend.api import Sampling

from .sampler import SamplingParamsBatch, draw_tokens, is_filtered, top_k_of


class BatchSampler:
    """Draws `num_rows` tokens, or takes the log-probabilities of given ones.

    Args:
        num_rows: R.
        is_filtered: whether `top_p` or `top_k` may cut a row.
        device: where.

    Attributes:
        counts: [R] int64, the index of each row's token in its completion.
        drawn: [2, R] float64, the tokens, and the log-probability of each in nats.
    """

    def __init__(self, num_rows: int, is_filtered: bool, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        # Streams, counts, top_k, forced tokens; in the last row, temperature and top_p as fp32.
        self._columns = torch.zeros(5, num_rows, dtype=torch.int64, device=device)
        self._streams, self.counts, top_k, forced, _ = self._columns
        temperature, top_p = _fractions(self._columns)
        rows = torch.arange(num_rows, device=device) if is_filtered else None
        self._params = SamplingParamsBatch(temperature, top_p, top_k, rows, forced)
        self.drawn = torch.zeros(2, num_rows, dtype=torch.float64, device=device)

    def load(
        self,
        samplings: Sequence[Sampling],
        streams: Sequence[int],
        steps: Sequence[int],
        depths: Sequence[Sequence[int]] | None = None,
        forced: Sequence[int] = (),
    ) -> None:
        """Set what the rows are, without waiting for the device.

        Args:
            samplings: parameters of each sequence that the first rows are drawn for.
            streams: its random stream (`sampler.streams`).
            steps: the index of its next token in its completion.
            depths: its rows, as distances from its next token; None is one row at distance 0.
            forced: for the rows after these, token ids whose log-probabilities are wanted.
        """
        # New pinned memory each time: the allocator reuses it when the copy is done.
        host = torch.zeros(self._columns.shape, dtype=torch.int64, pin_memory=self._is_cuda)
        stream, count, top_k, token, _ = host.numpy()
        temperature, top_p = _fractions(host).numpy()
        top_k[:], temperature[:], top_p[:] = top_k_of(Sampling()), 1, 1
        token[:] = -1
        depths = [(0,)] * len(samplings) if depths is None else depths
        flat = [depth for rows in depths for depth in rows]
        token[len(flat) : len(flat) + len(forced)] = forced
        if samplings:
            of_row = np.repeat(np.arange(len(samplings)), [len(rows) for rows in depths])
            params = SamplingParamsBatch.of(samplings)
            used = slice(len(flat))
            stream[used] = np.array(streams, dtype=np.int64)[of_row]
            count[used] = np.array(steps)[of_row] + flat
            top_k[used] = params.top_k[of_row]
            temperature[used], top_p[used] = params.temperature[of_row], params.top_p[of_row]
        self._columns.copy_(host, non_blocking=True)

    def draw(self, logits: torch.Tensor) -> torch.Tensor:
        """Fill `drawn` from logits [R, V], and return the tokens, [R] int64. Device work only."""
        tokens, logprobs = draw_tokens(logits, self._params, self._streams, self.counts)
        self.drawn[0].copy_(tokens)
        self.drawn[1].copy_(logprobs)
        return tokens


def any_filtered(samplings: Iterable[Sampling]) -> bool:
    """Whether `top_p` or `top_k` may cut a token of any row."""
    return any(map(is_filtered, samplings))


def _fractions(columns: torch.Tensor) -> torch.Tensor:
    return columns[-1].view(torch.float32).view(2, -1)
