"""Small forwards as CUDA graphs: fixed memory, one copy in, one wait for the drawn tokens.

On a slow host the launches of an eager forward take longer than its work. Here the numbers of
tokens and of rows are each rounded up to a power of two, and layers, logits and sampling are one
graph for each such size; another graph updates the plan of the attention. Without CUDA the same
steps run eagerly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch

from treeshare.kernels.planning.forest import Forest
from treeshare.llm_backend.api import EngineStats
from treeshare.llm_backend.cache.kv_pool import KVPool
from treeshare.llm_backend.model.attention import AttentionBackend, TreeBatch
from treeshare.llm_backend.model.network import Network
from treeshare.llm_backend.sampling.batch_sampler import BatchSampler, any_filtered

from .batch import ForwardBatch, ForwardOutput, SamplingColumns
from .eager import EagerRunner
from .packing import forest_by_slot, pack_in_order
from .planned_step import PlannedStep

MAX_WORK = 1 << 43
"""Parameters times tokens of the largest forward that becomes a graph: 1,024 tokens of an 8B model.

A larger one computes for over 40 ms on an H100, as long as a host needs for its launches."""
NUM_EAGER = 2
"""Forwards of a size that run eagerly first: making a graph takes as long as tens of them."""
_LEAST = 16


class CudaGraphRunner:
    """Runs small forwards as CUDA graphs (`runner.Runner`).

    Forwards larger than `MAX_WORK`, and the first `NUM_EAGER` of each size, run eagerly.

    Args:
        network: computes the logits.
        attention: plans and computes the attention; its `capabilities.captures` is true.
        pool: holds keys and values.
        stats: where captures are counted.
    """

    def __init__(
        self, network: Network, attention: AttentionBackend, pool: KVPool, stats: EngineStats
    ) -> None:
        self._network = network
        self._attention = attention
        self._pool = pool
        self._stats = stats
        self.eager = EagerRunner(network, attention, pool)
        # Entry i of the pool is slot i.
        self._table = torch.arange(pool.slots.num_slots, dtype=torch.int32, device=network.device)
        self._num_seen: Counter[tuple[int, int, bool]] = Counter()
        self.graphs: dict[tuple[int, int, bool], _GraphOfForward] = {}  # by size

    def run(self, batch: ForwardBatch) -> Iterator[ForwardOutput]:
        """Compute the batch and yield its output; see `Runner.run`."""
        num_tokens = _rounded_up(batch.num_tokens)
        num_rows = max(_rounded_up(batch.num_rows), num_tokens // 8)  # few sizes for prompts
        key = num_tokens, num_rows, any_filtered(each.sampling for each in batch.sequences)
        is_large = max(num_tokens, num_rows) * self._network.num_parameters > MAX_WORK
        if not is_large:
            self._num_seen[key] += 1
        if is_large or self._num_seen[key] <= NUM_EAGER:
            yield from self.eager.run(batch)
            return
        if key not in self.graphs:
            self.graphs[key] = _GraphOfForward(
                self._network, self._attention, self._pool, self._table, self._stats, *key
            )
        yield self.graphs[key].run(batch)


def _rounded_up(count: int) -> int:
    return 1 << (max(count, _LEAST) - 1).bit_length()


class _GraphOfForward:
    """A graph for `num_tokens` tokens and `num_rows` rows of logits at most, and its memory."""

    def __init__(
        self,
        network: Network,
        attention: AttentionBackend,
        pool: KVPool,
        table: torch.Tensor,
        stats: EngineStats,
        num_tokens: int,
        num_rows: int,
        is_filtered: bool,
    ) -> None:
        device = network.device
        self._network = network
        self._sampler = BatchSampler(num_rows, is_filtered, device)
        sizes = [num_tokens, num_tokens, num_tokens, num_rows]
        self._inputs = torch.zeros(sum(sizes), dtype=torch.int64, device=device)
        self._tokens, self._positions, slots, self._rows = torch.split(self._inputs, sizes)
        # Reused without a race: each forward, and so its copy, has ended before the next is loaded.
        self._host = torch.zeros(sum(sizes), dtype=torch.int64, pin_memory=device.type == "cuda")
        self._host_columns = [column.numpy() for column in torch.split(self._host, sizes)]
        self._plans = attention.captured_plans(table, num_tokens, is_ample=True)
        self._batch = TreeBatch(attention, pool, slots, self._plans)
        self._result: torch.Tensor  # what is drawn, then the status of the plans
        name = f"a forward of {num_tokens} tokens"
        self._planned = PlannedStep(self._step, [], self._plans, device, name, stats)

    @torch.inference_mode()
    def run(self, batch: ForwardBatch) -> ForwardOutput:
        """Compute the batch and return its output."""
        forest = forest_by_slot(batch.ends)
        tokens, logprobs = self._compute(forest, batch)
        num_drawn = len(batch.places)
        return ForwardOutput(
            [int(token) for token in tokens[:num_drawn]],
            logprobs[:num_drawn],
            logprobs[num_drawn : batch.num_rows],
            int(forest.length.sum()),
        )

    def _compute(self, forest: Forest, batch: ForwardBatch) -> list[list[float]]:
        """Return tokens and log-probabilities by row."""
        drawn = self._run(forest, batch)
        while drawn is None:
            self._load(batch)  # the step is run as it is captured
            self._planned.make_room(forest)
            drawn = self._run(forest, batch)
        return drawn

    def _run(self, forest: Forest, batch: ForwardBatch) -> list[list[float]] | None:
        """Do as `_compute`, but return None if the forest has no room in the plans.

        What the forward wrote then is computed again.
        """
        if not (self._planned.is_ready and self._plans.load(forest)):
            return None
        self._load(batch)  # while the device plans
        self._planned.launch()
        drawn, status = self._result.cpu().tensor_split([self._sampler.drawn.numel()])
        if not self._plans.had_room(status.long()):
            return None
        lists: list[list[float]] = drawn.view(2, -1).tolist()
        return lists

    def _load(self, batch: ForwardBatch) -> None:
        """Copy a batch to the graph's memory.

        Tokens beyond the last have no slot, and rows beyond the last are the first token's. Each
        target has a row of its own, after those that are drawn.
        """
        packed = pack_in_order(batch.ends)
        tokens, positions, slots, rows = self._host_columns
        count = len(packed.tokens)
        self._host.zero_()
        tokens[:count] = packed.tokens
        positions[:count] = packed.positions
        slots[:count] = np.concatenate(packed.slots)
        slots[count:] = -1
        places = [*batch.places, *(place for place, _ in batch.targets)]
        rows[: len(places)] = [packed.row(*place) for place in places]
        self._inputs.copy_(self._host, non_blocking=True)
        targets = [token for _, token in batch.targets]
        self._sampler.load(*SamplingColumns.of(batch.sequences), batch.depths, targets)

    def _step(self) -> None:
        """Compute layers, logits and draws. Device work only."""
        logits = self._network.run(self._batch, self._tokens, self._positions, self._rows)
        self._sampler.draw(logits)
        self._result = torch.cat([self._sampler.drawn.flatten(), self._plans.status().double()])
