"""The steps of tree speculative decoding, without a drafter: verify a tree, accept some of it.

DeFT's third workload (arXiv 2404.00242 section 4). Every step is a forward of t tree tokens below a
prompt that grows by the accepted ones; the trees and how many tokens are accepted are as Medusa's
runs were recorded. The drafts are any tokens, so what the model says of them decides nothing; but
it is read back in every step, as whoever accepts must. Knows no engine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from treeshare.experiments.bench.attention.workloads import token_trees
from treeshare.experiments.bench.templates import explained_template
from treeshare.kernels.planning.forest import Forest
from treeshare.kernels.planning.segments import Segment
from treeshare.llm_backend.api import EngineStats
from treeshare.llm_backend.model.attention import DeftAttention, TreeBatch
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime.planned_step import PlannedStep

from .case import Limits, spread, with_steps
from .step_profile import Watch
from .tables import Measurement

_FIRST = 97  # token id of which the drafts and the prompt go on; any will do


@dataclass(frozen=True, slots=True)
class Verification:
    """Token trees under a prompt, and how much of each is accepted."""

    tree: Forest  # node 0 is the prompt; every other is one token and one query
    accepted: tuple[int, ...]  # tokens, by step
    tokens: int  # to accept in all

    @property
    def name(self) -> str:
        size, prompt = len(self.tree.parent) - 1, int(self.tree.length[0])
        return f"speculative t={size} P={prompt} N={self.tokens}"

    def steps(self) -> list[list[int]]:
        """The accepted path of each step, as nodes from the model's own token downwards.

        The recorded number of tokens, along the tree's first path that is long enough.
        """
        paths: list[list[int]] = [[]]
        for node, parent in enumerate(self.tree.parent[1:].tolist(), start=1):
            paths.append([*paths[parent], node])
        longest = max(map(len, paths))
        steps: list[list[int]] = []
        while sum(map(len, steps)) < self.tokens:
            count = min(self.accepted[len(steps) % len(self.accepted)], longest)
            steps.append(next(path for path in paths if len(path) == count))
        return steps

    def at(self, prompt: int) -> Forest:
        """The tree below a prompt of so many tokens."""
        length = self.tree.length.copy()
        length[0] = prompt
        return Forest.packed(self.tree.parent, length, self.tree.num_queries)


def verifications(
    templates: str | Path, sizes: Sequence[int], prompt: int, tokens: int
) -> list[Verification]:
    """DeFT's recordings of Medusa; the first record's accepted lengths.

    Raises:
        ValueError: a file is missing or is no such template.
    """
    found = []
    for size, workload in zip(sizes, token_trees(templates, prompt, sizes), strict=True):
        file = Path(templates) / f"APPS_tree_size{size}.json"
        with explained_template(file):
            record = json.loads(file.read_text())["Records"][0]
            accepted = tuple(max(1, int(count)) for count in record["Accept_length"])
            if not accepted:
                raise ValueError("no accepted lengths")
        found.append(Verification(workload.forest, accepted, tokens))
    return found


def measure_verification(
    model: Model,
    verification: Verification,
    limits: Limits,
    row: Measurement,
    trace: Path | None = None,
) -> Measurement:
    """`row` with the columns of a workload filled in.

    Raises:
        ValueError: the model's attention has no plans in fixed memory.
    """
    steps = verification.steps()
    verifier = Verifier(model, verification)
    verifier.prefill()
    for path in steps:
        verifier.step(path)
    spans = limits.spans if model.device.type == "cuda" else 0
    watch = Watch(spread(len(steps), spans), trace=trace)
    watch.start()
    verifier.prefill()
    for path in steps:
        verifier.step(path)
        watch.forward(is_decode=True, num_entries=verifier.num_entries)
    watch.stop()
    return replace(
        with_steps(row, model, watch, limits),
        tokens=sum(map(len, steps)),
        prompt_tokens=int(verification.tree.length[0]),
    )


class Verifier:
    """The memory of the steps: a pool, a table of its slots in order of position, and a plan.

    Raises:
        ValueError: the model's attention has no plans in fixed memory.
    """

    def __init__(self, model: Model, verification: Verification) -> None:
        backend = model.backend
        if not (isinstance(backend, DeftAttention) and backend.can_update):
            raise ValueError("verification wants an attention that plans in fixed memory")
        self._model, self._verification = model, verification
        self._prompt = int(verification.tree.length[0])
        self._size = len(verification.tree.parent) - 1
        num_slots = self._prompt + sum(map(len, verification.steps())) + self._size
        self._pool = model.new_pool(num_slots)
        self._table = torch.arange(num_slots, dtype=torch.int32, device=model.device)
        depth = verification.tree.depth_first().end[1:] - self._prompt - 1
        self._entries = 0
        self._depth = torch.from_numpy(depth).to(model.device)
        self._tokens = torch.arange(self._size, device=model.device) + _FIRST
        self._positions = torch.zeros_like(self._depth)
        self._slots = torch.zeros_like(self._depth)
        self._drawn = torch.zeros_like(self._depth)
        self._length = self._prompt
        window = backend.window(self._table, self._size)
        self._batch = TreeBatch(backend, self._pool, self._slots, window)
        name = f"a verification of {self._size} tokens"
        self._planned = PlannedStep(self._forward, [], window, model.device, name, EngineStats())

    @property
    def num_entries(self) -> int:
        """KV entries that the last step's queries saw, each once."""
        return self._entries

    def prefill(self) -> None:
        """Begin again with the prompt."""
        count, tokens = self._prompt, self.prompt_tokens()
        slots = self._table[:count].long().cpu().numpy()
        segments = [Segment(slots, 0, 0, count)]
        self._model.forward(tokens, range(count), slots, segments, self._pool, [count - 1])
        self._length = count

    def prompt_tokens(self) -> list[int]:
        return [_FIRST + position % 26 for position in range(self._prompt)]

    def tree_tokens(self) -> list[int]:
        """That the next step verifies."""
        tokens: list[int] = self._tokens.tolist()
        return tokens

    @torch.inference_mode()
    def step(self, path: Sequence[int]) -> list[int]:
        """Verify the tree and accept a path of its nodes; what the model says after each node."""
        begin, end = self._length, self._length + self._size
        self._entries = end
        self._positions.copy_(self._depth + begin)
        self._slots.copy_(self._table[begin:end])
        self._load(self._verification.at(begin))
        drawn: list[int] = self._drawn.tolist()
        # The accepted entries come to lie behind the prompt's; the others are free again.
        kept = np.array(path) - 1
        order = np.append(kept, np.setdiff1d(np.arange(self._size), kept))
        moved = torch.from_numpy(order + begin).to(self._table.device)
        self._table[begin:end] = self._table[moved]
        self._tokens[0] = drawn[path[-1] - 1]
        self._length += len(path)
        return drawn

    def _load(self, forest: Forest) -> None:
        """Plan the forest and run its forward, as a graph where there is one."""
        self._planned.fit(forest)
        self._planned.launch()

    def _forward(self) -> None:
        logits = self._model.run(self._batch, self._tokens, self._positions)
        self._drawn.copy_(logits.argmax(-1))
