"""CPU time of a simulation of Monte-Carlo tree search, as the tree grows.

`python -m treeshare.experiments.bench.search [size ...]` prints a Markdown table. Both algorithms
grow a tree of four children a state with the same values; there is no model. Ours is `MCTS` with
`Choose`, scheduler and mock engine. treequest's `StandardMCTS`, if it is installed, is called by
ask and tell alone. Its tree finds a node by sorting all nodes: the tree is grown to size with an
index instead, and the timed simulations are those of the package as it is.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.context import Context
from treeshare.search.expanders import Choose
from treeshare.search.graph import Node
from treeshare.search.policies.simulation.mcts import MCTS
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.task import Problem, Step

WIDTH = 4
"""Children of a state."""


class NumberedTree:
    """A task without end: the children of number n are WIDTH·n + 1 to WIDTH·n + WIDTH."""

    name = "numbered_tree"
    sampling: Mapping[str, Mapping[str, Any]] = {}

    def problems(self) -> list[Problem]:
        """Return the only problem."""
        return [Problem(self.name, None)]

    def root(self, problem: Problem) -> int:
        """Return 0."""
        return 0

    def prompt(self, role: str, state: int) -> tuple[str, ...]:
        """Return the number as text."""
        return (str(state),)

    def parse(self, role: str, state: int, text: str) -> list[Step]:
        """Refuse: no reply is read.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("its replies are never read")

    def is_terminal(self, state: int) -> bool:
        """Return False."""
        return False

    def answer(self, state: int) -> None:
        """Return None."""
        return None

    def moves(self, state: int) -> list[Step]:
        """Return the steps to the children."""
        children = range(WIDTH * state + 1, WIDTH * state + WIDTH + 1)
        return [Step(str(child), child) for child in children]


def value(state: int) -> float:
    """Return the value of a state, in [0, 1)."""
    return random.Random(state).random()


@dataclass
class Stopwatch:
    """An evaluator that notes the time of each call; there is one call a simulation."""

    times: list[float] = field(default_factory=list)

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Return the nodes' values."""
        self.times.append(time.process_time())
        return [value(node.state) for node in nodes]


def our_microseconds(sizes: Sequence[int], window: int) -> list[float]:
    """Measure the time of a simulation at each size, as the mean of the last `window` of them."""
    watch = Stopwatch()
    task = NumberedTree()
    context = Context(task, task.problems()[0], Choose(), watch)
    policy = MCTS(max(sizes), selection="uct", c=math.sqrt(2))
    (outcome,) = Scheduler(MockEngine(score=lambda *_: -1.0)).run([(policy, context)])
    assert outcome.error is None and len(watch.times) == max(sizes)
    return [
        1e6 * (watch.times[size - 1] - watch.times[size - 1 - window]) / window for size in sizes
    ]


def treequest_microseconds(sizes: Sequence[int], seconds: float) -> list[float]:
    """Measure treequest's `StandardMCTS`, at each size for about `seconds`.

    Raises:
        ImportError: treequest is not installed.
    """
    treequest: Any = import_module("treequest")
    tree: Any = import_module("treequest.algos.tree")

    class IndexedTree(tree.Tree):  # type: ignore[misc]
        """A tree with an index of its nodes, for growing."""

        def add_node(self, *args: Any, **kwargs: Any) -> Any:
            node = super().add_node(*args, **kwargs)
            self.index[node.expand_idx] = node
            return node

        def get_node(self, expand_idx: int) -> Any:
            return self.index[expand_idx]

    algorithm = treequest.StandardMCTS(samples_per_action=WIDTH)
    state = algorithm.init_tree()
    state.tree.index = {-1: state.tree.root}
    drawn: Counter[int] = Counter()

    def simulate() -> None:
        nonlocal state
        state, (trial,) = algorithm.ask_batch(state, 1, ["step"])
        parent = trial.parent_state or 0
        drawn[parent] += 1
        child = WIDTH * parent + drawn[parent]
        state = algorithm.tell(state, trial.trial_id, (child, value(child)))

    def results() -> Iterator[float]:
        for size in sizes:
            state.tree.__class__ = IndexedTree
            while len(state.tree) < size:
                simulate()
            state.tree.index.clear()
            state.tree.__class__ = tree.Tree
            count, begun = 0, time.process_time()
            while time.process_time() - begun < seconds:
                simulate()
                count += 1
            yield 1e6 * (time.process_time() - begun) / count
            state.tree.index = {node.expand_idx: node for node in state.tree.get_nodes()}

    return list(results())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; the command."""
    parser = argparse.ArgumentParser(description=__doc__, prog="bench_search")
    parser.add_argument("sizes", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--window", type=int, default=900, help="simulations averaged (ours)")
    parser.add_argument("--seconds", type=float, default=3.0, help="time at each size (treequest)")
    given = parser.parse_args(arguments)
    sizes = sorted(given.sizes)
    if not 0 < given.window < sizes[0]:
        parser.error(f"--window={given.window} must be from 1 to {sizes[0] - 1}")
    columns = {"treeshare MCTS": our_microseconds(sizes, given.window)}
    try:
        columns["treequest StandardMCTS"] = treequest_microseconds(sizes, given.seconds)
    except ImportError:
        print("treequest is not installed: its column is left out\n")
    print("| simulations so far |", " | ".join(f"{name}, µs" for name in columns), "|")
    print("|---:|" + "---:|" * len(columns))
    for size, *figures in zip(sizes, *columns.values(), strict=True):
        print(f"| {size:,} |", " | ".join(f"{figure:,.0f}" for figure in figures), "|")


if __name__ == "__main__":
    main()
