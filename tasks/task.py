"""What a task is: problems, prompts, parsers, and a verifier kept apart from them.

A task knows no search, no model and no engine. States are its own: any hashable value. Only
`Task` is mandatory; an expander or evaluator asks for the smaller protocols below as it needs them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
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
        `moves`), `io` and `cot` (a whole solution), `value` (judge a state), `judge` (the same, yes
        or no), `vote` (the state is a tuple of candidate states), `reflect` (say what to learn from
        a failed terminal state), `feedback` (say what is wrong with a whole solution), `refine`
        (mend it; the state is a tuple of pairs, each a solution's state and the feedback on it,
        newest last), `split` (list the parts of a problem), `solve` (a part), `merge` (the state is
        a tuple of states) and `improve` (a merged state).

        Raises:
            ValueError: the task has no such role.
        """
        ...

    def parse(self, role: str, state: State, text: str) -> list[Step] | ParseFailure:
        """Steps read from a reply to `propose`, `step`, `io`, `cot`, `refine` (at the root's
        state, as `io`), `split`, `solve` or `improve`; never an empty list."""
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
class HasJudgement(Protocol):
    """Can be judged by the model with a yes or no (`evaluator=self_evaluation`)."""

    yes_no: tuple[str, str]
    """The continuations of the `judge` prompt that mean yes, the state is good, and no."""


@runtime_checkable
class HasSolution(Protocol):
    """Can be shown to a reward model (`evaluator=outcome_reward`, `process_reward`)."""

    def solution(self, state: State) -> tuple[str, ...]:
        """The question, then each step so far; none ends with a newline. A step says all that is
        new in it, so a child's solution continues its parent's."""
        ...


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


@runtime_checkable
class HasEqualAnswers(Protocol):
    """Knows which answers are the same though their texts differ, without the right answer. Votes
    count them together; other tasks' answers are the same if their texts are."""

    def answer_keys(self, answers: Sequence[str]) -> list[Hashable]:
        """One key for each answer; answers with equal keys are the same. The keys of one list
        are of no use in another."""
        ...


@runtime_checkable
class HasReflections(Protocol):
    """Can have failed attempts reflected on (role `reflect`) and learnt from (`search=lats`)."""

    def with_reflections(self, state: State, reflections: Sequence[str]) -> State:
        """A state equal to `state` whose prompts show the reflections, each one line, in place of
        any it showed; steps from it inherit them."""
        ...


@runtime_checkable
class HasRefinement(Protocol):
    """Can have whole solutions criticised and mended (roles `feedback`, `refine`;
    `search=self_refine`)."""

    def is_satisfied(self, state: State, feedback: str) -> bool:
        """Whether a reply to `feedback` on `state` finds nothing to mend."""
        ...


@runtime_checkable
class HasMerge(Protocol):
    """Can be solved in parts (roles `split`, `solve`, `merge`, `improve`; policy `GoT`)."""

    def parse_merge(self, states: Sequence[State], text: str) -> Step | ParseFailure:
        """The state that a reply to `merge` makes of all the states."""
        ...


class Verifier(Protocol):
    """Knows the right answers. Held by the runner; a search meets it only through the oracle."""

    def check(self, problem: Problem, answer: str) -> bool: ...

    def promise(self, problem: Problem, state: State) -> float:
        """1 if a right answer can still be reached from `state`, else 0 (`evaluator=oracle`)."""
        ...


@runtime_checkable
class HasGrades(Protocol):
    """A verifier that also gives partial credit, reported beside right and wrong."""

    def grades(self, problem: Problem, state: State) -> Mapping[str, float]:
        """By name, marks in [0, 1] for the state that a search ranks first, final or not."""
        ...
