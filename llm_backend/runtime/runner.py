"""How the engine's batches are computed: the `Runner` protocol, and the choice of runners.

There are three runners. `EagerRunner` computes a forward operation by operation, on any attention.
`CudaGraphRunner` replays small forwards as CUDA graphs. `MultiStepRunner` computes several decode
steps of one batch, and the host reads the tokens of a step while the device computes the next.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from treeshare.llm_backend.api import EngineStats
from treeshare.llm_backend.cache.kv_pool import KVPool
from treeshare.llm_backend.model.attention import AttentionBackend
from treeshare.llm_backend.model.network import Network

from .batch import ForwardBatch, ForwardOutput
from .cuda_graphs import CudaGraphRunner
from .eager import EagerRunner
from .multi_step import MultiStepRunner

_log = logging.getLogger(__name__)


class Runner(Protocol):
    """Computes batches."""

    def run(self, batch: ForwardBatch) -> Iterator[ForwardOutput]:
        """Compute a batch, and yield the output of each forward.

        All runners but one yield once. `MultiStepRunner` yields once a decode step; its caller
        appends the tokens of an output to their sequences before it asks for the next one.

        Args:
            batch: what to compute.
        """
        ...


class Runners(NamedTuple):
    """The runners of an engine.

    Attributes:
        forward: runs any batch.
        decode: runs several steps of a batch of `ForwardBatch.decoding`; None if decode steps go
            through `forward` too.
    """

    forward: Runner
    decode: Runner | None


def choose_runners(
    network: Network,
    attention: AttentionBackend,
    pool: KVPool,
    max_num_seqs: int,
    stats: EngineStats,
    *,
    has_drafter: bool,
) -> Runners:
    """Choose runners by what the attention can do, and log the choice.

    Args:
        network: computes the logits.
        attention: plans and computes the attention.
        pool: holds keys and values.
        max_num_seqs: sequences in one decode step at most.
        stats: where captures of CUDA graphs are counted.
        has_drafter: whether drafted tokens are verified, which needs the host after every step.
    """
    if not attention.capabilities.captures:
        _log.info("attention %s without CUDA graphs", attention.name)
        return Runners(EagerRunner(network, attention, pool), None)
    forward = CudaGraphRunner(network, attention, pool, stats)
    if has_drafter:
        _log.info(
            "attention %s with CUDA graphs, one step at a time for the drafts", attention.name
        )
        return Runners(forward, None)
    _log.info("attention %s with CUDA graphs of several decode steps", attention.name)
    return Runners(forward, MultiStepRunner(network, attention, pool, max_num_seqs, stats))
