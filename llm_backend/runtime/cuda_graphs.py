"""Small forwards as CUDA graphs: fixed memory, one copy in, one wait for what is drawn.

On a slow host the launches of an eager forward take longer than its work. Here a forward's tokens
and rows are each filled up to a power of two, and layers, logits and sampling are one graph for
each such size; the plan of its attention is updated by another (DESIGN sections 4 and 5.8). Where
there is no CUDA the same steps run eagerly. Knows no requests and no scheduling.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from treeshare.kernels.planning.forest import Forest
from treeshare.llm_backend.api import EngineStats
from treeshare.llm_backend.cache.kv_pool import KVPool
from treeshare.llm_backend.model.attention import DeftAttention, TreeBatch
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.sampling.batch_sampler import RowSampler, any_filtered

from .eager import EagerForward, Outcome, Work
from .packing import forest_by_slot, pack_in_order
from .planned_step import PlannedStep

# Parameters times tokens of a forward: more, and it takes an H100 as long as its launches a host,
# 40 ms. That is 1,024 tokens of an 8B model.
MAX_WORK = 1 << 43
NUM_EAGER = 2  # forwards of a size that are not worth a graph: it takes as long as tens to make
_LEAST = 16


class GraphForward:
    """Runs forwards of at most `MAX_WORK` as graphs; others, and the first of each size, eagerly.

    Args:
        model: its attention is a variant that `attention.DeftAttention.can_update`.
        pool: where keys and values go.
        stats: counts what is captured.
    """

    def __init__(self, model: Model, pool: KVPool, stats: EngineStats) -> None:
        self._model = model
        self._pool = pool
        self._stats = stats
        self._eager = EagerForward(model, pool)
        # Entry i of the pool is slot i.
        self._table = torch.arange(pool.slots.num_slots, dtype=torch.int32, device=model.device)
        self._num_seen: Counter[tuple[int, int, bool]] = Counter()
        self._programs: dict[tuple[int, int, bool], _Program] = {}

    def run(self, work: Work) -> Outcome:
        num_tokens = _filled_up(work.num_tokens)
        num_rows = max(_filled_up(work.num_rows), num_tokens // 8)  # of a prompt, for example
        if max(num_tokens, num_rows) * self._model.num_parameters > MAX_WORK:
            return self._eager.run(work)
        key = num_tokens, num_rows, any_filtered(work.draws)
        self._num_seen[key] += 1
        if self._num_seen[key] <= NUM_EAGER:
            return self._eager.run(work)
        if key not in self._programs:
            self._programs[key] = _Program(self._model, self._pool, self._table, self._stats, *key)
        return self._programs[key].run(work)


def _filled_up(count: int) -> int:
    return 1 << (max(count, _LEAST) - 1).bit_length()


class _Program:
    """A forward of `num_tokens` tokens or fewer, the logits of `num_rows` rows of it or fewer, and
    the memory it works on."""

    def __init__(
        self,
        model: Model,
        pool: KVPool,
        table: torch.Tensor,
        stats: EngineStats,
        num_tokens: int,
        num_rows: int,
        is_filtered: bool,
    ) -> None:
        assert isinstance(model.backend, DeftAttention)
        device = model.device
        self._model = model
        self._sampler = RowSampler(num_rows, is_filtered, device)
        sizes = [num_tokens, num_tokens, num_tokens, num_rows]
        self._inputs = torch.zeros(sum(sizes), dtype=torch.int64, device=device)
        self._tokens, self._positions, slots, self._rows = torch.split(self._inputs, sizes)
        # A forward is waited for, and so is its copy, before the next is written here.
        self._host = torch.zeros(sum(sizes), dtype=torch.int64, pin_memory=device.type == "cuda")
        self._host_columns = [column.numpy() for column in torch.split(self._host, sizes)]
        self._window = model.backend.window(table, num_tokens, is_ample=True)
        self._batch = TreeBatch(model.backend, pool, slots, self._window)
        self._result: torch.Tensor  # what is drawn, then the window's status
        name = f"a forward of {num_tokens} tokens"
        self._planned = PlannedStep(self._step, [], self._window, device, name, stats)

    @torch.inference_mode()
    def run(self, work: Work) -> Outcome:
        forest = forest_by_slot(work.ends)
        tokens, logprobs = self._compute(forest, work)
        num_drawn = len(work.places)
        return Outcome(
            [int(token) for token in tokens[:num_drawn]],
            logprobs[:num_drawn],
            logprobs[num_drawn : work.num_rows],
            int(forest.length.sum()),
        )

    def _compute(self, forest: Forest, work: Work) -> list[list[float]]:
        """Tokens and log-probabilities by row."""
        drawn = self._run(forest, work)
        while drawn is None:
            self._load(work)  # the step is run as it is captured
            self._planned.make_room(forest)
            drawn = self._run(forest, work)
        return drawn

    def _run(self, forest: Forest, work: Work) -> list[list[float]] | None:
        """As `_compute`; None if the forest has no room in the plans. What the forward wrote then
        is computed again."""
        if not (self._planned.is_ready and self._window.load(forest)):
            return None
        self._load(work)  # while the device plans
        self._planned.launch()
        drawn, status = self._result.cpu().tensor_split([self._sampler.drawn.numel()])
        if not self._window.had_room(status.long()):
            return None
        lists: list[list[float]] = drawn.view(2, -1).tolist()
        return lists

    def _load(self, work: Work) -> None:
        """Tokens beyond the last have no slot to go to, and rows beyond it are the first token's.
        A token that may come next has a row of its own, after those that are drawn."""
        packed = pack_in_order(work.ends)
        tokens, positions, slots, rows = self._host_columns
        count = len(packed.tokens)
        self._host.zero_()
        tokens[:count] = packed.tokens
        positions[:count] = packed.positions
        slots[:count] = np.concatenate(packed.slots)
        slots[count:] = -1
        places = [*work.places, *(place for place, _ in work.targets)]
        rows[: len(places)] = [packed.row(*place) for place in places]
        self._inputs.copy_(self._host, non_blocking=True)
        self._sampler.load(work.draws, work.depths, [token for _, token in work.targets])

    def _step(self) -> None:
        """Device work only."""
        logits = self._model.run(self._batch, self._tokens, self._positions, self._rows)
        self._sampler.draw(logits)
        self._result = torch.cat([self._sampler.drawn.flatten(), self._window.status().double()])
