"""Evaluators made of others: a weighted mean of several, and a memory of one's values.

Each lists the evaluators that it is made of in `parts`, so that they are checked too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from treeshare.search.context import Context
from treeshare.search.graph import Node
from treeshare.search.parts import Evaluator, traits_of

from .prompted import first_of_each_state


@dataclass(frozen=True)
class Combined:
    """The weighted mean of several evaluators' values, Σ w·v / Σ w.

    The values are not rescaled, so the evaluators should share a scale: most use [0, 1], but
    `LogProb` does not. The requests of all of them go out together. One of weight 0 is not asked.

    Args:
        evaluators: the evaluators, by names of your own.
        weights: their weights, by the same names; None gives equal weights.

    Raises:
        ValueError: there are no evaluators, the names of the weights differ from theirs, a weight
            is negative or not finite, or all weights are 0.
    """

    evaluators: Mapping[str, Evaluator]
    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        names = ", ".join(self.evaluators)
        if not names:
            raise ValueError("evaluators is empty; at least one is needed")
        if self.weights is None:
            return
        if self.weights.keys() != self.evaluators.keys():
            given = ", ".join(self.weights) or "none"
            raise ValueError(f"weights are of {given}, but evaluators are {names}")
        for name, weight in self.weights.items():
            is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not (is_number and 0 <= weight < math.inf):
                raise ValueError(f"weights.{name}={weight!r} must be a finite number, at least 0")
        if not any(self.weights.values()):
            raise ValueError(f"weights of {names} are all 0; one must be above")

    @property
    def parts(self) -> tuple[Evaluator, ...]:
        """The evaluators."""
        return tuple(self.evaluators.values())

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Ask all the evaluators together, and take the mean for each node."""
        weights = self.weights or dict.fromkeys(self.evaluators, 1.0)
        asked = [name for name in self.evaluators if weights[name]]
        columns = await ctx.gather(*(ctx.values(self.evaluators[name], nodes) for name in asked))
        total = sum(weights[name] for name in asked)
        rows = zip(*columns, strict=True)
        return [
            sum(weights[name] * value for name, value in zip(asked, row, strict=True)) / total
            for row in rows
        ]


@dataclass(frozen=True)
class Memo:
    """Keeps an evaluator's values for all searches of a run, and asks only for new ones.

    A value is kept under the prompt that determines it, not under the state: two puzzles can share
    a state whose prompts differ (`3 * 8` may answer one puzzle and not the other). An evaluator
    whose values may differ between searches (sampled verdicts, votes, paths) is refused, because a
    search would then depend on those that ran before it. So a memo changes no value, except for the
    engine's rounding. It changes what a search spends, so limits on requests, tokens and money are
    refused too. Searches that need the same value in the same round all ask for it. The memory
    lasts as long as the process; a resumed run begins with an empty one.

    In the published log of Tree of Thoughts' Game of 24, 5,451 of the 8,397 value requests (65 %)
    repeat an earlier one. All of these are saved if the puzzles are searched one after another
    (`max_live=1`). If all 100 run together, most repetitions fall into one round, and 1,065 (13 %)
    are saved.

    Args:
        evaluator: the evaluator to ask.

    Raises:
        ValueError: the evaluator's values may differ between searches.
    """

    evaluator: Evaluator
    _values: dict[Hashable, float] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _counts: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    shares_values: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if traits_of(self.evaluator).fixed_by is None:
            raise ValueError(
                f"Memo cannot keep the values of {self.evaluator!r}: they may differ between "
                "searches; use SelfEvaluation, Heuristic, or ValuePrompt with mode=score"
            )

    @property
    def parts(self) -> tuple[Evaluator, ...]:
        """The evaluator that it asks."""
        return (self.evaluator,)

    @property
    def memo_hits(self) -> int:
        """How many values were given from memory."""
        return self._counts["hits"]

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Take the known values from memory, and ask for the others."""
        # One node for each state: equal states may have different prompts, and the evaluator asks
        # about the first of them.
        first = first_of_each_state(nodes)
        key_of = self._keys(ctx, first)
        node_of = {key_of[state]: node for state, node in first.items()}
        new = [key for key in node_of if key not in self._values]
        self._counts["hits"] += len(node_of) - len(new)
        if new:
            values = await ctx.values(self.evaluator, [node_of[key] for key in new])
            for key, value in zip(new, values, strict=True):
                self._values.setdefault(key, value)
        return [self._values[key_of[node.state]] for node in nodes]

    def _keys(self, ctx: Context, nodes: Mapping[Hashable, Node]) -> dict[Hashable, Hashable]:
        """Return the key of each state's value; `nodes` holds one node for each state."""
        role = traits_of(self.evaluator).fixed_by
        assert role is not None
        if role == "state":
            return {state: (ctx.problem.id, state) for state in nodes}
        prompts = {state: ctx.task.prompt(role, node.state) for state, node in nodes.items()}
        return {state: "".join(prompt) for state, prompt in prompts.items()}
