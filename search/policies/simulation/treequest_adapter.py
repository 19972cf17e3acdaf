"""Runs ask/tell tree-search algorithms, those of treequest (Sakana AI, 0.3.x) above all, unchanged.

An algorithm asks for trials ("draw a child of this state with that action") and is told the child
and its score. It keeps a tree of its own whose states are our nodes; the graph gets every child
drawn. This module knows the three methods of the protocol and imports no such package. Adaptive
branching, treequest's own subject, is in Inoue et al., "Wider or Deeper?", arXiv 2503.04412.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from treeshare.search.bounds import at_least
from treeshare.search.context import Context
from treeshare.search.graph import Node


class Trial(Protocol):
    @property
    def trial_id(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def parent_state(self) -> Any:
        """The node to draw a child of; None is the root."""
        ...


class Algorithm(Protocol):
    """What of `treequest.Algorithm` is called. It holds parameters only; the state is the search's
    and may be changed in place."""

    def init_tree(self) -> Any: ...

    def ask_batch(
        self, state: Any, batch_size: int, actions: list[str], /
    ) -> tuple[Any, Sequence[Trial]]: ...

    def tell(self, state: Any, trial_id: str, result: tuple[Any, float], /) -> Any: ...


@dataclass(frozen=True)
class AskTell:
    """Ask for `parallel` trials, draw and evaluate their children together, tell them in order.

    A trial is one sampled reply and at most one child, so the run's expander is not used: the
    actions are roles whose replies are steps (`step`, `io`, `cot`), drawn as they come, equal ones
    too. A parent that can have no children (terminal, too deep) stands in for its child with its
    own value, and the model is not asked; a reply that cannot be read gives the parent the value 0.
    The protocol has no terminal states: a greedy algorithm may use up its trials at one. treequest
    wants values in [0, 1].

    Algorithms draw from the global generators of `random` and numpy: each search has its own
    state of these for as long as the algorithm runs.

    Ends when the trials are used up or the algorithm asks for none. Returns the default ranking.

    Raises:
        ValueError: a number is below 1, or there are no actions.
    """

    algorithm: Algorithm
    trials: int = 50
    parallel: int = 1  # trials asked for together; some algorithms discard more than they queue
    actions: Sequence[str] = ("step",)

    def __post_init__(self) -> None:
        at_least(1, trials=self.trials, parallel=self.parallel)
        object.__setattr__(self, "actions", tuple(self.actions))
        if not self.actions:
            raise ValueError("actions must not be empty")

    async def search(self, ctx: Context) -> list[Node]:
        draws = _GlobalDraws(ctx.random("ask_tell").getrandbits(32))
        with draws.in_place():
            state = self.algorithm.init_tree()
        begun = 0
        while begun < self.trials:
            count = min(self.parallel, self.trials - begun)
            with draws.in_place():
                state, trials = self.algorithm.ask_batch(state, count, list(self.actions))
            if not trials:
                break
            begun += len(trials)
            results = await self._results(ctx, trials)
            with draws.in_place():
                for trial, result in zip(trials, results, strict=True):
                    state = self.algorithm.tell(state, trial.trial_id, result)
        return ctx.ranked()

    async def _results(self, ctx: Context, trials: Sequence[Trial]) -> list[tuple[Node, float]]:
        """For each trial the node and the value to tell."""
        parents = [ctx.root if t.parent_state is None else t.parent_state for t in trials]
        drawn = await ctx.gather(
            *(
                ctx.sample(parent, trial.action)
                for parent, trial in zip(parents, trials, strict=True)
            )
        )
        told: list[tuple[Node, bool]] = []  # the node, and whether its value counts
        for parent, children in zip(parents, drawn, strict=True):
            is_closed = not ctx.can_expand(parent)
            told.append((children[0] if children else parent, bool(children) or is_closed))
        valued = [node for node, counts in told if counts]
        value_of = dict(zip(valued, await ctx.evaluate(valued), strict=True))
        return [(node, value_of[node] if counts else 0.0) for node, counts in told]


class _GlobalDraws:
    """The state that the global generators have while one search's algorithm runs."""

    def __init__(self, seed: int) -> None:
        self._python: Any = random.Random(seed).getstate()
        self._numpy: Any = np.random.RandomState(seed).get_state()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        outside = random.getstate(), np.random.get_state()
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        try:
            yield
        finally:
            self._python, self._numpy = random.getstate(), np.random.get_state()
            random.setstate(outside[0])
            np.random.set_state(outside[1])
