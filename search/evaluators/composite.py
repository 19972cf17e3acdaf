"""Evaluators made of evaluators: a weighted mean of several, and a memory of one's values.

Each names what it is made of in `parts`; the context checks these as it checks the evaluator.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from treeshare.search.budget import Budget
from treeshare.search.context import Context, Evaluator
from treeshare.search.graph import Node

from .prompted import first_of_each_state


@dataclass(frozen=True)
class Combined:
    """The weighted mean of several evaluators' values, Σ w·v / Σ w; their requests go out together.

    The values are taken as they are, so the parts should share a scale: most are in [0, 1], but
    `LogProb` is not. A part of weight 0 is not asked.

    Args:
        evaluators: the parts, by names of your own.
        weights: of the parts, by the same names; None weighs all alike.

    Raises:
        ValueError: no evaluators, other names than theirs among the weights, a weight that is
            negative or not finite, or weights that are all 0.
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
            if not (isinstance(weight, int | float) and 0 <= weight < math.inf):
                raise ValueError(f"weights.{name}={weight!r} must be at least 0 and finite")
        if not any(self.weights.values()):
            raise ValueError(f"weights of {names} are all 0; one must be above")

    @property
    def parts(self) -> tuple[Evaluator, ...]:
        return tuple(self.evaluators.values())

    @property
    def is_oracle(self) -> bool:
        return any(getattr(part, "is_oracle", False) for part in self.parts)

    @property
    def memo_hits(self) -> int:
        return sum(getattr(part, "memo_hits", 0) for part in self.parts)

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
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
    """Asks `evaluator` only for what no search of the run has had an answer to yet.

    A value is kept under the prompt that fixes it, not under the state: two puzzles can share a
    state whose prompts differ (`3 * 8` may answer the one and not the other). An evaluator whose
    values depend on who asks (sampled verdicts, votes, paths) is refused: a search would depend on
    which others ran before it. So a memo changes no value beyond the engine's rounding; it changes
    what a search spends, hence limits on requests, tokens and money are refused too. Nobody waits:
    searches that ask the same in the same round all ask. It lives as long as the process; a resumed
    run begins with an empty one.

    In the log of Tree of Thoughts' Game of 24, 5,451 of the 8,397 value calls (65 %) ask what an
    earlier one asked. So much is saved if the puzzles are searched one after another
    (`max_live=1`). If all 100 go in lock-step most doubles meet in one round: 1,065 (13 %).

    Raises:
        ValueError: the evaluator's values depend on who asks.
    """

    evaluator: Evaluator
    _values: dict[Hashable, float] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _hits: Counter[Hashable] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self._fixed_by is None:
            raise ValueError(
                f"Memo cannot keep the values of {self.evaluator!r}: they may depend on who asks; "
                "it can of SelfEvaluation, Heuristic, and ValuePrompt with mode=score"
            )

    @property
    def parts(self) -> tuple[Evaluator, ...]:
        return (self.evaluator,)

    @property
    def is_oracle(self) -> bool:
        return bool(getattr(self.evaluator, "is_oracle", False))

    @property
    def memo_hits(self) -> int:
        """States valued without asking."""
        return self._hits.total()

    def check_budget(self, budget: Budget) -> None:
        """Refuse limits that a search would reach sooner or later for what others have asked.

        Raises:
            ValueError: there is such a limit.
        """
        for name in ("tokens", "calls", "money"):
            if getattr(budget, name) is not None:
                raise ValueError(
                    f"budget.{name} cannot be used with a memo: what a search spends then depends "
                    "on the other searches"
                )

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        first = first_of_each_state(nodes)  # lest a double's prompt be kept with the first's value
        key_of = {state: self._key(ctx, node) for state, node in first.items()}
        node_of = {key_of[state]: node for state, node in first.items()}
        new = [key for key in node_of if key not in self._values]
        self._hits.update(node_of.keys() & self._values.keys())
        if new:
            values = await ctx.values(self.evaluator, [node_of[key] for key in new])
            for key, value in zip(new, values, strict=True):
                self._values.setdefault(key, value)
        return [self._values[key_of[node.state]] for node in nodes]

    @property
    def _fixed_by(self) -> str | None:
        return getattr(self.evaluator, "fixed_by", None)

    def _key(self, ctx: Context, node: Node) -> Hashable:
        assert self._fixed_by is not None
        if self._fixed_by == "state":
            return ctx.problem.id, node.state
        return "".join(ctx.task.prompt(self._fixed_by, node.state))
