"""The steps of tree speculative decoding, without a drafter: verify a tree, accept some of it.

DeFT's third workload (arXiv 2404.00242 section 4). Every step is a forward of t tree tokens below a
prompt that grows by the accepted ones. The trees, and the numbers of accepted tokens, are those of
recorded runs of Medusa. The drafts are arbitrary tokens, so the model's draws do not decide what is
accepted; they are still read back in every step, as acceptance needs them.
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
from treeshare.llm_backend.model.attention import TreeBatch, make_backend
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime.planned_step import PlannedStep

from .case import Limits, spread, with_steps
from .step_profile import Watch
from .tables import Measurement

_FIRST = 97  # token id with which the drafts and the prompt begin; any would do


@dataclass(frozen=True, slots=True)
class Verification:
    """Token trees under a prompt, and how much of each is accepted.

    Args:
        tree: node 0 is the prompt; every other node is one token and one query.
        accepted: number of accepted tokens, by step.
        tokens: number of tokens to accept in all.
    """

    tree: Forest
    accepted: tuple[int, ...]
    tokens: int

    @property
    def name(self) -> str:
        """The workload in a few words, with its sizes."""
        size, prompt = len(self.tree.parent) - 1, int(self.tree.length[0])
        return f"speculative t={size} P={prompt} N={self.tokens}"

    def steps(self) -> list[list[int]]:
        """Return the accepted path of each step, as nodes from the model's own token downwards.

        It has the recorded number of tokens, along the tree's first path that is long enough.
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
        """Return the tree below a prompt of this many tokens."""
        length = self.tree.length.copy()
        length[0] = prompt
        return Forest.packed(self.tree.parent, length, self.tree.num_queries)


def verifications(
    templates: str | Path, sizes: Sequence[int], prompt: int, tokens: int
) -> list[Verification]:
    """Read DeFT's recordings of Medusa, with the first record's accepted lengths.

    Args:
        templates: directory of DeFT's templates.
        sizes: tokens of a tree.
        prompt: tokens of the prompt.
        tokens: number of tokens to accept in all.

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
    """Measure a verification.

    Returns:
        `row` with the columns of a workload filled in.

    Raises:
        ValueError: the model's attention has no plans in fixed memory.
    """
    steps = verification.steps()
    verifier = Verifier(model, verification)
    verifier.prefill()
    for path in steps:
        verifier.step(path)
    spans = limits.spans if model.network.device.type == "cuda" else 0
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

    Args:
        model: its attention has plans in fixed memory.
        verification: the trees.

    Raises:
        ValueError: the model's attention has no plans in fixed memory.
    """

    def __init__(self, model: Model, verification: Verification) -> None:
        attention, network = make_backend(model.attention, model.network.device), model.network
        if not attention.capabilities.captures:
            raise ValueError("verification needs an attention that plans in fixed memory")
        network.check(attention)
        self._network, self._attention = network, attention
        self._verification = verification
        self._prompt = int(verification.tree.length[0])
        self._size = len(verification.tree.parent) - 1
        num_slots = self._prompt + sum(map(len, verification.steps())) + self._size
        self._pool = network.new_pool(num_slots)
        self._table = torch.arange(num_slots, dtype=torch.int32, device=network.device)
        depth = verification.tree.depth_first().end[1:] - self._prompt - 1
        self._entries = 0
        self._depth = torch.from_numpy(depth).to(network.device)
        self._tokens = torch.arange(self._size, device=network.device) + _FIRST
        self._positions = torch.zeros_like(self._depth)
        self._slots = torch.zeros_like(self._depth)
        self._drawn = torch.zeros_like(self._depth)
        self._length = self._prompt
        plans = attention.captured_plans(self._table, self._size)
        self._batch = TreeBatch(attention, self._pool, self._slots, plans)
        name, stats = f"a verification of {self._size} tokens", EngineStats()
        self._planned = PlannedStep(self._forward, [], plans, network.device, name, stats)

    @property
    def num_entries(self) -> int:
        """KV entries that the last step's queries saw, each once."""
        return self._entries

    def prefill(self) -> None:
        """Begin again with the prompt."""
        count, tokens = self._prompt, self.prompt_tokens()
        slots = self._table[:count].long().cpu().numpy()
        segments = [Segment(slots, 0, 0, count)]
        where = self._attention, self._pool
        self._network.forward(tokens, range(count), slots, segments, *where, [count - 1])
        self._length = count

    def prompt_tokens(self) -> list[int]:
        """Return the prompt's token ids."""
        return [_FIRST + position % 26 for position in range(self._prompt)]

    def tree_tokens(self) -> list[int]:
        """Return the token ids that the next step verifies."""
        tokens: list[int] = self._tokens.tolist()
        return tokens

    @torch.inference_mode()
    def step(self, path: Sequence[int]) -> list[int]:
        """Verify the tree and accept a path of its nodes.

        Returns:
            The likeliest token after each node.
        """
        begin, end = self._length, self._length + self._size
        self._entries = end
        self._positions.copy_(self._depth + begin)
        self._slots.copy_(self._table[begin:end])
        self._load(self._verification.at(begin))
        drawn: list[int] = self._drawn.tolist()
        # Move the accepted entries behind the prompt's; the others are free again.
        kept = np.array(path) - 1
        order = np.append(kept, np.setdiff1d(np.arange(self._size), kept))
        moved = torch.from_numpy(order + begin).to(self._table.device)
        self._table[begin:end] = self._table[moved]
        self._tokens[0] = drawn[path[-1] - 1]
        self._length += len(path)
        return drawn

    def _load(self, forest: Forest) -> None:
        """Plan the forest and run its forward; on CUDA it is a graph."""
        self._planned.fit(forest)
        self._planned.launch()

    def _forward(self) -> None:
        logits = self._network.run(self._batch, self._tokens, self._positions)
        self._drawn.copy_(logits.argmax(-1))
