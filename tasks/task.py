"""The protocols of tasks and verifiers.

A task gives problems, prompts and parsers; its verifier, an object apart, marks the answers. A
state is any immutable, hashable value of the task's own. Only `Task` is mandatory. Each `Has...`
protocol is one more ability, and an expander, evaluator or policy that needs it refuses a task
without it before the first search.

This module imports nothing of the package: `treeshare.search` uses it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, Self, runtime_checkable

State = Any
"""A state of a task: immutable and hashable. Two equal states are the same position."""

RoleSampling = Mapping[str, Mapping[str, Any]]
"""By role, fields of `treeshare.llm_backend.api.Sampling`, such as `max_tokens`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a task, without its answer.

    Attributes:
        id: the problem's name in results and seeds, unique in the task, such as `game24/1-5-5-5`.
        data: what the task's `root` reads; it must not hold the right answer.
    """

    id: str
    data: Any


@dataclass(frozen=True, slots=True)
class Step:
    """One move from a state to the next.

    Attributes:
        text: the step as the model wrote it, or as a continuation of the `choose` prompt.
        state: the state after the step.
    """

    text: str
    state: State


class Dialogue(tuple[str, ...]):
    """A prompt in parts, so that a chat model can be asked in turns.

    As a tuple it is the same prompt as plain text, in segments: the instruction and the examples,
    the question, the steps, the cue. A task that gives a plain tuple is always asked in plain text.

    Args:
        instruction: what to do, with the empty line that divides it from what follows.
        examples: worked examples, each a question and the whole reply to it. In the plain text an
            empty line follows each.
        question: what is asked now, in segments; a string is one segment.
        steps: how the reply begins: a segment for each step so far. A child's steps begin with its
            parent's.
        cue: the text after the steps with which the next one begins, such as `Step:`. It does not
            end with a blank, because tokens begin with one.
    """

    instruction: str
    examples: tuple[tuple[str, str], ...]
    question: tuple[str, ...]
    steps: tuple[str, ...]
    cue: str

    def __new__(
        cls,
        instruction: str = "",
        examples: Iterable[tuple[str, str]] = (),
        question: str | Iterable[str] = (),
        steps: str | Iterable[str] = (),
        cue: str = "",
    ) -> Self:
        """Make the segments of the parts; empty ones are left out."""
        examples = tuple(examples)
        question = (question,) if isinstance(question, str) else tuple(question)
        steps = (steps,) if isinstance(steps, str) else tuple(steps)
        preamble = _preamble(instruction, examples)
        made = super().__new__(cls, filter(None, (preamble, *question, *steps, cue)))
        made.instruction, made.examples, made.cue = instruction, examples, cue
        made.question, made.steps = question, steps
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Return the arguments by which a copy is made."""
        return self.instruction, self.examples, self.question, self.steps, self.cue

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """The conversation before the reply: (`user` or `assistant`, text), the last the user's.

        The instruction is at the start of the first turn, since some chat formats have no place
        for a system prompt.
        """
        before = _example_turns(self.instruction, self.examples)
        asked = "".join(self.question) if before else "".join([self.instruction, *self.question])
        return (*before, ("user", asked.rstrip()))

    @property
    def reply(self) -> tuple[str, ...]:
        """How the reply begins, in pieces: the pieces of a child's reply begin with its parent's.

        A step that begins with the cue is divided after it, where the parent's reply ended.
        """
        pieces = [""]
        for step in self.steps:
            if self.cue and step.startswith(self.cue):
                pieces[-1] += self.cue
                step = step.removeprefix(self.cue)
            pieces.append(step)
        pieces[-1] += self.cue
        return tuple(filter(None, pieces))


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """A reply that the task could not read. Results count these; nothing raises them.

    Attributes:
        role: the role of the request.
        text: the reply.
        reason: why it could not be read, in a few words.
    """

    role: str
    text: str
    reason: str


_Turns = tuple[tuple[str, str], ...]


@lru_cache(maxsize=256)  # a task has many prompts, and few of these
def _preamble(instruction: str, examples: _Turns) -> str:
    """Return the instruction and the examples as text."""
    return instruction + "".join(f"{question}{reply}\n\n" for question, reply in examples)


@lru_cache(maxsize=256)
def _example_turns(instruction: str, examples: _Turns) -> _Turns:
    """Return the examples as turns, with the instruction in the first."""
    questions = [question for question, _ in examples]
    questions[:1] = [instruction + question for question in questions[:1]]
    replies = [reply for _, reply in examples]
    return tuple(
        turn
        for question, reply in zip(questions, replies, strict=True)
        for turn in (("user", question.rstrip()), ("assistant", reply))
    )


@runtime_checkable
class Task(Protocol):
    """Problems, prompts and parsers: what every task must have."""

    name: str
    """The task's name, which is the first part of each problem's id."""

    @property
    def sampling(self) -> RoleSampling:
        """How each role's replies are sampled; `merge_sampling` makes it. An attribute will do."""
        ...

    def problems(self) -> Sequence[Problem]:
        """Return all problems, in a fixed order."""
        ...

    def root(self, problem: Problem) -> State:
        """Return the state in which a search of the problem begins."""
        ...

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Return the segments of the prompt for `role`, first the part that all states share.

        The prompt is the segments joined. A `Dialogue` is a tuple of segments that can also be
        asked in turns. The roles are:

        - `propose`: list next steps;
        - `step`: write one next step;
        - `choose`: continued by the text of one of `moves`;
        - `io`, `cot`: write a whole solution, without and with reasoning;
        - `value`: judge a state by one of `values`;
        - `judge`: judge a state by one of `yes_no`;
        - `vote`: name the best; the state is a tuple of candidate states;
        - `reflect`: say what to learn from a failed terminal state;
        - `feedback`: say what is wrong with a whole solution;
        - `refine`: correct it; the state is a tuple of pairs, each a solution's state and the
          feedback on it, the newest last;
        - `split`: list the parts of a problem;
        - `solve`: solve a part;
        - `merge`: merge partial results; the state is a tuple of states;
        - `improve`: correct a merged result.

        Raises:
            ValueError: the task has no such role.
        """
        ...

    def parse(self, role: str, state: State, text: str) -> list[Step] | ParseFailure:
        """Read the steps of a reply; the list is never empty.

        The role is one of `propose`, `step`, `io`, `cot`, `refine` (with the root's state, as for
        `io`), `split`, `solve` and `improve`, of those that the task has.

        Raises:
            ValueError: the role has no such reply.
        """
        ...

    def is_terminal(self, state: State) -> bool:
        """Return whether no step follows the state."""
        ...

    def answer(self, state: State) -> str | None:
        """Return the final answer of a terminal state, right or wrong; None for other states."""
        ...


@runtime_checkable
class HasMoves(Protocol):
    """A task that lists the legal steps, so that the model only chooses (`expander=choose`)."""

    def moves(self, state: State) -> list[Step]:
        """Return the legal steps in a fixed order; each text continues the `choose` prompt."""
        ...


@runtime_checkable
class HasValues(Protocol):
    """A task whose states the model judges in words (`evaluator=value`)."""

    values: Mapping[str, float]
    """The value in [0, 1] of each verdict; each verdict continues the `value` prompt."""

    def parse_value(self, state: State, text: str) -> float | ParseFailure:
        """Read the value, in [0, 1], of the verdict in a reply to `value`."""
        ...


@runtime_checkable
class HasJudgement(Protocol):
    """A task whose states the model judges by yes or no (`evaluator=self_evaluation`)."""

    yes_no: tuple[str, str]
    """The continuations of the `judge` prompt for a good state (yes) and for a bad one (no)."""


@runtime_checkable
class HasSolution(Protocol):
    """A task for reward models (`evaluator=outcome_reward`, `evaluator=process_reward`)."""

    def solution(self, state: State) -> tuple[str, ...]:
        """Return the question, and then each step so far, without a newline at their ends.

        A step says all that is new in it, so a child's solution begins with its parent's.
        """
        ...


@runtime_checkable
class HasVotes(Protocol):
    """A task in which the model names the best of several states (`evaluator=vote`)."""

    def parse_vote(self, states: Sequence[State], text: str) -> int | ParseFailure:
        """Read the index of the state that a reply to `vote` names."""
        ...


@runtime_checkable
class HasHeuristic(Protocol):
    """A task that estimates a state's value without the model (`evaluator=heuristic`)."""

    def heuristic(self, state: State) -> float:
        """Return an estimate, in [0, 1], that is cheap to compute."""
        ...


@runtime_checkable
class HasMaxSteps(Protocol):
    """A task that says how deep a search must go, for policies that are given no `depth`.

    A policy searches other tasks 16 steps deep (`ctx.depth`).
    """

    def max_steps(self, problem: Problem) -> int:
        """Return the most steps from the problem's root to a solution, at least 1."""
        ...


@runtime_checkable
class HasEqualAnswers(Protocol):
    """A task in which answers with different texts can be the same answer.

    Votes count such answers together. For other tasks, answers are the same if their texts are.
    The right answer is not used.
    """

    def answer_keys(self, answers: Sequence[str]) -> list[Hashable]:
        """Return one key for each answer; answers with equal keys are the same answer.

        Keys of different calls cannot be compared.
        """
        ...


@runtime_checkable
class HasReflections(Protocol):
    """A task that learns from failed attempts (role `reflect`; `search=lats`)."""

    def with_reflections(self, state: State, reflections: Sequence[str]) -> State:
        """Return an equal state whose prompts show the reflections, each of one line.

        They replace those that `state` showed, and the steps from the new state inherit them.
        """
        ...


@runtime_checkable
class HasRefinement(Protocol):
    """A task whose whole solutions the model criticises and corrects (`search=self_refine`).

    Its roles are `feedback` and `refine`.
    """

    def is_satisfied(self, state: State, feedback: str) -> bool:
        """Return whether a reply to `feedback` on `state` finds nothing to correct."""
        ...


@runtime_checkable
class HasMerge(Protocol):
    """A task that is solved in parts (roles `split`, `solve`, `merge`, `improve`; `search=got`)."""

    def parse_merge(self, states: Sequence[State], text: str) -> Step | ParseFailure:
        """Read the state that a reply to `merge` makes of all the states."""
        ...


class Verifier(Protocol):
    """The judge of a task's answers.

    The runner holds it. A search reaches it only through `evaluator=oracle`.
    """

    def check(self, problem: Problem, answer: str) -> bool:
        """Return whether `answer` is right."""
        ...

    def promise(self, problem: Problem, state: State) -> float:
        """Return 1.0 if a right answer can still be reached from `state`, else 0.0."""
        ...


@runtime_checkable
class HasGrades(Protocol):
    """A verifier that also gives partial credit, which results show next to right and wrong."""

    def grades(self, problem: Problem, state: State) -> Mapping[str, float]:
        """Return marks in [0, 1], by name, for the state ranked first, terminal or not."""
        ...


def merge_sampling(
    defaults: RoleSampling, overrides: RoleSampling | None
) -> dict[str, dict[str, Any]]:
    """Return the sampling by role: the defaults, where fields of `overrides` replace their own.

    Raises:
        ValueError: `overrides` names a role that is not in the defaults.
    """
    given = overrides or {}
    for role in given:
        if role not in defaults:
            raise ValueError(f"sampling: role {role!r} must be one of {', '.join(defaults)}")
    return {role: {**fields, **given.get(role, {})} for role, fields in defaults.items()}
