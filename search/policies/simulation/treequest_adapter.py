"""Runs tree-search algorithms with an ask/tell interface unchanged, such as those of treequest.

Such an algorithm is asked for trials ("draw a child of this state with that action"), and the child
and its score are passed back to it. It keeps a tree of its own, whose states are our nodes; the
graph receives every child drawn. This module uses the three methods of the interface and imports no
such package. treequest (Sakana AI, 0.3.x) implements adaptive branching (Inoue et al., "Wider or
Deeper?", arXiv 2503.04412) and other algorithms.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from treeshare.search.bounds import check_numbers
from treeshare.search.context import Context
from treeshare.search.graph import Node


class Trial(Protocol):
    """A request of an algorithm to draw one child."""

    @property
    def trial_id(self) -> str:
        """The name under which the result is passed back."""
        ...

    @property
    def action(self) -> str:
        """One of the actions that the algorithm was given."""
        ...

    @property
    def parent_state(self) -> Any:
        """The node to draw a child of; None is the root."""
        ...


class Algorithm(Protocol):
    """The part of `treequest.Algorithm` that is used.

    The object holds parameters only. The state belongs to one search and may be changed in place.
    """

    def init_tree(self) -> Any:
        """Return the state of a new search."""
        ...

    def ask_batch(
        self, state: Any, batch_size: int, actions: list[str], /
    ) -> tuple[Any, Sequence[Trial]]:
        """Return the new state and the trials to run."""
        ...

    def tell(self, state: Any, trial_id: str, result: tuple[Any, float], /) -> Any:
        """Take in a trial's child and its score, and return the new state."""
        ...


@dataclass(frozen=True)
class AskTell:
    """Ask for trials, draw and evaluate their children together, pass the scores back in order.

    A trial is one sampled reply and at most one child, so the run's expander is not used. The
    actions are roles whose replies are steps (`step`, `io`, `cot`); equal steps are kept apart. A
    parent that can have no children (terminal, too deep) is passed back in place of a child, with
    its own value and without a request. For a reply that cannot be parsed, the parent is passed
    back with the value 0. The interface has no terminal states, so a greedy algorithm may use up
    its trials at one. treequest requires values in [0, 1].

    Algorithms draw from the global generators of `random` and numpy. While an algorithm runs, these
    have a state that belongs to its search.

    The search ends when the trials are used up or the algorithm asks for none. It returns the
    default ranking.

    Args:
        algorithm: such as `treequest.ABMCTSA()`.
        trials: how many replies to draw.
        batch_size: trials asked for together. Some algorithms discard more than they queue.
        actions: roles of the task to draw from.

    Raises:
        ValueError: a number is below 1, or there are no actions.
    """

    algorithm: Algorithm
    trials: int = 50
    batch_size: int = 1
    actions: Sequence[str] = ("step",)

    paper: ClassVar[str] = "the algorithm's own"
    asks: ClassVar[str] = "step, io or cot"
    evaluates: ClassVar[str] = "all samples"
    together: ClassVar[str] = "`batch_size` trials"
    max_requests: ClassVar[str | None] = "trials"

    def __post_init__(self) -> None:
        check_numbers(self, trials=1, batch_size=1)
        object.__setattr__(self, "actions", tuple(self.actions))
        if not self.actions:
            raise ValueError("actions must not be empty")

    async def search(self, ctx: Context) -> list[Node]:
        """Run the algorithm's trials and rank the terminal nodes."""
        draws = _GlobalDraws(ctx.random("ask_tell").getrandbits(32))
        with draws.in_place():
            state = self.algorithm.init_tree()
        begun = 0
        while begun < self.trials:
            count = min(self.batch_size, self.trials - begun)
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
        """Return for each trial the node and the value to pass back."""
        parents = [ctx.root if t.parent_state is None else t.parent_state for t in trials]
        drawn = await ctx.gather(
            *(
                ctx.sample(parent, trial.action)
                for parent, trial in zip(parents, trials, strict=True)
            )
        )
        chosen: list[tuple[Node, bool]] = []  # the node, and whether its value counts
        for parent, children in zip(parents, drawn, strict=True):
            is_closed = not ctx.can_expand(parent)
            chosen.append((children[0] if children else parent, bool(children) or is_closed))
        valued = [node for node, counts in chosen if counts]
        value_of = dict(zip(valued, await ctx.evaluate(valued), strict=True))
        return [(node, value_of[node] if counts else 0.0) for node, counts in chosen]


class _GlobalDraws:
    """The state of the global generators while one search's algorithm runs."""

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
