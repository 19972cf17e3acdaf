"""One packed forward: which tokens it computes, and what is drawn and read from their logits.

`EagerForward` runs it operation by operation, `graph_forward.py` small ones as one graph. Knows
nothing of when jobs run or end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from treeshare.llm_backend.cache.kv_pool import KVPool
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.sampling.sampler import Rules, sample, streams, uniforms

from .packing import KVNode, pack
from .sequence import Draw

Place = tuple[KVNode, int]  # a token: its node and its offset there


class Work(NamedTuple):
    ends: Mapping[KVNode, int]  # of each node, the end of the tokens to compute; parents first
    draws: Sequence[Draw]
    depths: Sequence[Sequence[int]]  # of each draw's rows: how far ahead of its next token
    places: Sequence[Place]  # of all draws' rows, one after the other
    targets: Sequence[tuple[Place, int]]  # tokens, and one that may come next after each

    @property
    def num_tokens(self) -> int:
        return sum(end - node.num_computed for node, end in self.ends.items())

    @property
    def num_rows(self) -> int:
        """Logits to look at; a token may be counted several times."""
        return len(self.places) + len(self.targets)


class Outcome(NamedTuple):
    tokens: list[int]  # drawn, by row
    logprobs: list[float]  # of each, nats
    target_logprobs: list[float]
    num_entries: int  # different KV entries read


class EagerForward:
    """Runs the model's forward, operation by operation."""

    def __init__(self, model: Model, pool: KVPool) -> None:
        self._model = model
        self._pool = pool

    def run(self, work: Work) -> Outcome:
        forest = pack(work.ends)
        rows = [forest.row(*place) for place in work.places]
        target_rows = [forest.row(*place) for place, _ in work.targets]
        score_rows = sorted(set(target_rows))
        logits = self._model.forward(
            forest.tokens,
            forest.positions,
            np.concatenate(forest.slots),
            forest.segments,
            self._pool,
            rows + score_rows,
        )
        num_entries = sum(len(run.slots) for run in forest.segments)
        tokens, logprobs = _drawn(work, logits[: len(rows)])
        index = {row: len(rows) + i for i, row in enumerate(score_rows)}
        target_logprobs = _logprobs(
            logits, [index[row] for row in target_rows], [token for _, token in work.targets]
        )
        return Outcome(tokens, logprobs, target_logprobs, num_entries)


def _drawn(work: Work, logits: torch.Tensor) -> tuple[list[int], list[float]]:
    if not work.draws:
        return [], []
    rows = [
        (draw, depth)
        for draw, depths in zip(work.draws, work.depths, strict=True)
        for depth in depths
    ]
    requests = [draw.ticket.request for draw, _ in rows]
    stream = streams([request.seed for request in requests], [draw.sample for draw, _ in rows])
    counts = torch.tensor([len(draw.generated) + depth for draw, depth in rows])
    uniform = uniforms(stream, counts).to(logits.device)
    rules = Rules.of([request.sampling for request in requests], logits.device)
    drawn = torch.stack([column.double() for column in sample(logits, rules, uniform)])
    tokens, logprobs = drawn.tolist()
    return [int(token) for token in tokens], logprobs


def _logprobs(logits: torch.Tensor, rows: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Of each token after its row."""
    if not rows:
        return []
    index, chosen = torch.tensor([rows, tokens], device=logits.device)
    logprobs: list[float] = (
        logits[index, chosen] - torch.logsumexp(logits, dim=-1)[index]
    ).tolist()
    return logprobs
