"""Packed forwards, operation by operation, on any attention backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from treeshare.llm_backend.cache.kv_pool import KVPool
from treeshare.llm_backend.model.attention import AttentionBackend
from treeshare.llm_backend.model.network import Network
from treeshare.llm_backend.sampling.sampler import SamplingParamsBatch, draw_tokens

from .batch import ForwardBatch, ForwardOutput
from .packing import pack

MOST_SCORED_ROWS = 256
"""Rows of logits whose log-probabilities are computed at once, as that takes copies in fp32."""


class EagerRunner:
    """Runs one forward a batch, operation by operation (`runner.Runner`).

    Args:
        network: computes the logits.
        attention: plans and computes the attention.
        pool: holds keys and values.
    """

    def __init__(self, network: Network, attention: AttentionBackend, pool: KVPool) -> None:
        self._network = network
        self._attention = attention
        self._pool = pool

    def run(self, batch: ForwardBatch) -> Iterator[ForwardOutput]:
        """Compute the batch and yield its output; see `Runner.run`."""
        forest = pack(batch.ends)
        rows = [forest.row(*place) for place in batch.places]
        target_rows = [forest.row(*place) for place, _ in batch.targets]
        score_rows = sorted(set(target_rows))
        logits = self._network.forward(
            forest.tokens,
            forest.positions,
            np.concatenate(forest.slots),
            forest.segments,
            self._attention,
            self._pool,
            rows + score_rows,
        )
        num_entries = sum(len(run.slots) for run in forest.segments)
        tokens, logprobs = _drawn(batch, logits[: len(rows)])
        index = {row: len(rows) + i for i, row in enumerate(score_rows)}
        target_logprobs = _logprobs(
            logits, [index[row] for row in target_rows], [token for _, token in batch.targets]
        )
        yield ForwardOutput(tokens, logprobs, target_logprobs, num_entries)


def _drawn(batch: ForwardBatch, logits: torch.Tensor) -> tuple[list[int], list[float]]:
    """Draw a token for each row, and return the tokens and their log-probabilities."""
    if not batch.sequences:
        return [], []
    rows = [
        (sequence, depth)
        for sequence, depths in zip(batch.sequences, batch.depths, strict=True)
        for depth in depths
    ]
    streams, steps = torch.tensor(
        [(sequence.stream, len(sequence.generated) + depth) for sequence, depth in rows],
        device=logits.device,
    ).T.contiguous()
    params = SamplingParamsBatch.of([sequence.sampling for sequence, _ in rows], logits.device)
    columns = draw_tokens(logits, params, streams, steps)
    drawn = torch.stack([column.double() for column in columns])
    tokens, logprobs = drawn.tolist()
    return [int(token) for token in tokens], logprobs


def _logprobs(logits: torch.Tensor, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Return the log-probability of each token after its row."""
    if not rows:
        return []
    index, chosen = torch.tensor([rows, tokens], device=logits.device)
    parts = torch.chunk(logits, -(-len(logits) // MOST_SCORED_ROWS))  # of equal size
    totals = torch.cat([torch.logsumexp(part.float(), dim=-1) for part in parts])
    logprobs: list[float] = (logits[index, chosen].float() - totals[index]).tolist()
    return logprobs
