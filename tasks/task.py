"""What a task is: problems, prompts, parsers, and a verifier kept apart from them.

A task knows no search, no model and no engine. States are its own: any hashable value. Only
`Task` is mandatory; an expander or evaluator asks for the smaller protocols below as it needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

State = Any  # hashable, immutable; two equal states are the same position


@dataclass(frozen=True, slots=True)
class Problem:
    id: str  # unique in the task; names the problem in results and seeds
    data: Any  # what the task's `root` reads; never the answer


@dataclass(frozen=True, slots=True)
class Step:
    """One move from a state to the next."""

    text: str
    state: State


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """A reply the task could not read. Counted in the results, never raised."""

    role: str
    text: str
    reason: str


@runtime_checkable
class Task(Protocol):
    name: str
    sampling: Mapping[str, Mapping[str, Any]]
    """Per role, the fields of `llm_backend.api.Sampling` (max_tokens, temperature, stop, ...)."""

    def problems(self) -> Sequence[Problem]: ...

    def root(self, problem: Problem) -> State: ...

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Segments of the prompt for `role`, the part shared by all states first.

        Roles: `propose` (list next steps), `step` (one next step), `choose` (followed by one of
        `moves`), `io` and `cot` (a whole solution), `value` (judge a state), `vote` (the
        state is a tuple of candidate states).

        Raises:
            ValueError: the task has no such role.
        """
        ...

    def parse(self, role: str, state: State, text: str) -> list[Step] | ParseFailure:
        """Steps read from a reply to `propose`, `step`, `io` or `cot`; never an empty list."""
        ...

    def is_terminal(self, state: State) -> bool: ...

    def answer(self, state: State) -> str | None:
        """The final answer of a terminal state."""
        ...


@runtime_checkable
class HasMoves(Protocol):
    """Can enumerate legal steps, so that a model need only choose (`expander=choose`)."""

    def moves(self, state: State) -> list[Step]:
        """Legal steps in a fixed order; each `text` is a continuation of the `choose` prompt."""
        ...


@runtime_checkable
class HasValues(Protocol):
    """Can be judged by the model (`evaluator=value`)."""

    values: Mapping[str, float]
    """Verdict to value in [0, 1]; each key continues the `value` prompt."""

    def parse_value(self, state: State, text: str) -> float | ParseFailure: ...


@runtime_checkable
class HasVotes(Protocol):
    """Can have the best of several states named by the model (`evaluator=vote`)."""

    def parse_vote(self, states: Sequence[State], text: str) -> int | ParseFailure:
        """Index of the state voted for."""
        ...


@runtime_checkable
class HasHeuristic(Protocol):
    def heuristic(self, state: State) -> float:
        """A cheap guess of a state's value in [0, 1] (`evaluator=heuristic`)."""
        ...


class Verifier(Protocol):
    """Knows the right answers. Held by the runner; a search meets it only through the oracle."""

    def check(self, problem: Problem, answer: str) -> bool: ...

    def promise(self, problem: Problem, state: State) -> float:
        """1 if a right answer can still be reached from `state`, else 0 (`evaluator=oracle`)."""
        ...
