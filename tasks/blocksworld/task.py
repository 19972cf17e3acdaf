"""Blocksworld: move blocks, one at a time and only from the top of a stack, to the goal's stacks.

This is the planning problem of RAP (arXiv 2305.14992 section 4.1), where one move here is a pick up
and a put down there. The length of the shortest plan is the difficulty. `Blocksworld` reads replies
and does not check plans. The examples in `prompts/` have blocks with names from P on, so none can
be a puzzle.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from treeshare.tasks.arguments import keeps_arguments
from treeshare.tasks.generator import distinct, within
from treeshare.tasks.prompts import (
    REPLY,
    PromptTemplates,
    PromptTexts,
    Shots,
    Values,
    read_prompts,
)
from treeshare.tasks.replies import normalize_characters, read_steps, read_verdict
from treeshare.tasks.task import ParseFailure, Problem, RoleSampling, State, Step, merge_sampling
from treeshare.tasks.verifiers import verifier_of

from .rules import (
    TABLE,
    Move,
    Stacks,
    apply,
    count_in_place,
    distances,
    draw_stacks,
    legal_moves,
    run,
    stacks_to_text,
)

BLOCKS = "ABCDEF"
"""The names of the blocks."""

_STEPS = ("steps", "Goal: {goal}\n", "Blocks: {start}\n", REPLY, "{steps}", "Step:")
_TEMPLATES = PromptTemplates(
    read_prompts(__package__),
    {
        "propose": ("propose", "Goal: {goal}\n", "{state}", REPLY, "Moves:\n"),
        "step": _STEPS,
        "io": ("solve", "Goal: {goal}\n", "Blocks: {start}\n", REPLY, "Plan:"),
        "cot": _STEPS,
        "value": ("value", "Goal: {goal}\n", "{state}", REPLY, "Verdict:"),
        "choose": _STEPS,
        "judge": ("judge", "Goal: {goal}\n", "{state}", REPLY, "On the way:"),
    },
)
_SAMPLING: RoleSampling = {
    "propose": {"max_tokens": 120, "temperature": 0.7, "stop": ("\n\n",)},
    "step": {"max_tokens": 32, "temperature": 0.7, "stop": ("\n",)},
    "io": {"max_tokens": 120, "temperature": 0.7, "stop": ("\n",)},
    "cot": {"max_tokens": 400, "temperature": 0.7, "stop": ("\n\n",)},
    "value": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
}
_MOVE = re.compile(  # (?ai:...) matches ASCII letters alone, in both cases
    r"(?:\W|\d|(?ai:step)\b)*+"
    r"(?ai:move (?:block )?([A-Z]) (?:onto|on|to|on top of) (?:the )?(table|[A-Z]))\b"
)
_BETWEEN = re.compile(r"[;,.\n]|\b(?ai:then|and)\b")  # what divides the moves of a plan
_PLAN = re.compile(r"plan:", re.IGNORECASE | re.ASCII)
_PLAN_END = re.compile(r"\[ ?plan end ?\]", re.IGNORECASE | re.ASCII)


class Puzzle(NamedTuple):
    """A puzzle: the stacks at the start and the goal's."""

    start: Stacks
    goal: Stacks


@dataclass(frozen=True, slots=True)
class World:
    """A state of a puzzle.

    Two worlds are equal if they have the same stacks, goal and plan; the moves that led to them do
    not count.

    Attributes:
        start: the stacks at the start.
        stacks: the stacks now.
        goal: the stacks of the goal.
        moves: the moves so far.
        plan: a whole plan as the model wrote it, right or wrong.
    """

    start: Stacks = field(compare=False)
    stacks: Stacks
    goal: Stacks
    moves: tuple[Move, ...] = field(default=(), compare=False)
    plan: tuple[Move, ...] | None = None

    def __str__(self) -> str:
        return stacks_to_text(self.stacks) if self.plan is None else plan_to_text(self.plan)


@keeps_arguments
class Blocksworld:
    """The task of Blocksworld, with generated puzzles.

    A start is drawn block by block, each on the table or on one of the stacks so far, all equally
    likely. Its goal is one of the configurations at the distance, all equally likely.

    Args:
        blocks: number of blocks, 3 to 6.
        moves: number of moves of the shortest plan, 1 to 2 * blocks - 2, the largest distance.
        limit: number of puzzles; a larger limit gives the same puzzles first.
        seed: seed of the puzzles.
        sampling: per role, fields that replace those of the defaults.
        prompts: by role, a file or a text that replaces the prompt.
        shots: the number of examples in each prompt, or by role; None takes all.

    Raises:
        OSError: a prompt's file cannot be read.
        ValueError: an argument is out of its bound, or there are fewer puzzles than `limit`.
    """

    name = "blocksworld"
    templates = _TEMPLATES
    """The prompts."""
    values: Mapping[str, float] = {" sure": 1.0, " likely": 0.5, " impossible": 0.0}
    """The value of each verdict."""
    yes_no = (" yes", " no")
    """The judgements."""

    def __init__(
        self,
        *,
        blocks: int = 4,
        moves: int = 4,
        limit: int = 100,
        seed: int = 0,
        sampling: RoleSampling | None = None,
        prompts: PromptTexts | None = None,
        shots: Shots | None = None,
    ) -> None:
        self.sampling = merge_sampling(_SAMPLING, sampling)
        self.templates = self.templates.customized(prompts, shots)
        within(3, len(BLOCKS), blocks=blocks)
        within(1, 2 * blocks - 2, moves=moves)
        self._num_moves = moves

        def draw(rng: random.Random) -> Puzzle | None:
            start = draw_stacks(rng, BLOCKS[:blocks])
            goals = sorted(goal for goal, far in distances(start).items() if far == moves)
            return Puzzle(start, rng.choice(goals)) if goals else None

        self._puzzles = distinct(draw, limit, seed)

    def problems(self) -> list[Problem]:
        """Return the problems in the order drawn; an id is such as `blocksworld/A-BC-to-CAB`."""
        return [
            Problem(f"{self.name}/{'-'.join(start)}-to-{'-'.join(goal)}", Puzzle(start, goal))
            for start, goal in self._puzzles
        ]

    def root(self, problem: Problem) -> World:
        """Return the world at the start."""
        start, goal = problem.data
        return World(start, start, goal)

    def max_steps(self, problem: Problem) -> int:
        """Return the number of moves of the shortest plan, which all puzzles share."""
        return self._num_moves

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Return the segments of the prompt for `role`, the constant one first.

        `step`, `choose` and `cot` share one prompt, which holds the moves so far, so a child's
        prompt begins with its parent's. `propose`, `value` and `judge` show the stacks now, or the
        start and the plan if there is a plan.

        Raises:
            ValueError: there is no such role.
        """
        start, now = stacks_to_text(state.start), stacks_to_text(state.stacks)
        shown = [f"Blocks: {now}\n"]
        if state.plan is not None:
            shown = [f"Blocks: {start}\n", f"Plan: {state}\n"]
        values: Values = {
            "goal": stacks_to_text(state.goal),
            "start": start,
            "state": shown,
            "steps": _move_lines(state),
        }
        return self.templates.render(role, values)

    def parse(self, role: str, state: World, text: str) -> list[Step] | ParseFailure:
        """Read the steps of a reply.

        A reply to `propose` or `step` has lines such as `move A onto B`; `step` takes the first. A
        move counts if it is legal. Of a reply to `io` or `cot` the step is the plan after the last
        `Plan:`, or else the whole text as a plan, right or wrong (`read_plan`).

        Raises:
            ValueError: the role has no such reply.
        """
        if role in ("propose", "step"):
            lines = map(_spaced, text.splitlines())
            return read_steps(role, text, lines, lambda line: _read_step(state, line))
        if role in ("io", "cot"):
            plan = read_plan(_PLAN.split(normalize_characters(text))[-1])
            if plan is None:
                return ParseFailure(role, text, "not a plan such as `move A onto B; move C onto A`")
            return [Step(plan_to_text(plan), replace(state, plan=plan))]
        raise ValueError(f"role={role!r} must be one of propose, step, io, cot")

    def is_terminal(self, state: World) -> bool:
        """Return whether the goal is reached or a whole plan was given."""
        return state.plan is not None or state.stacks == state.goal

    def answer(self, state: World) -> str | None:
        """Return a plan such as `move A onto B; move C to the table`.

        It is None for a state that is not terminal.
        """
        if not self.is_terminal(state):
            return None
        return plan_to_text(state.moves if state.plan is None else state.plan)

    def moves(self, state: World) -> list[Step]:
        """Return the legal moves; a terminal state has none."""
        if self.is_terminal(state):
            return []
        return [Step(f" {move} (now:", _after(state, move)) for move in legal_moves(state.stacks)]

    def heuristic(self, state: World) -> float:
        """Return the share of blocks that are in place, with all blocks below them.

        It is 0.0 after a plan with a move that is not legal.
        """
        stacks = state.stacks if state.plan is None else run(state.start, state.plan)
        return count_in_place(stacks, state.goal) / sum(map(len, state.goal)) if stacks else 0.0

    def parse_value(self, state: World, text: str) -> float | ParseFailure:
        """Read the value of the one verdict in the reply (`read_verdict`)."""
        return read_verdict(self.values, text)


class BlocksworldVerifier:
    """Applies the moves of a plan one by one."""

    def check(self, problem: Problem, answer: str) -> bool:
        """Return whether every move of the plan is legal and the last one reaches the goal.

        The plan may have any number of moves. A malformed answer is wrong.
        """
        plan = read_plan(answer)
        return plan is not None and run(problem.data.start, plan) == problem.data.goal

    def promise(self, problem: Problem, state: World) -> float:
        """Return 1.0 if the moves so far begin a shortest plan or a given plan is right, else 0.0.

        Longer plans reach the goal from every state, so only shortest ones are counted.
        """
        if state.plan is not None:
            return float(run(state.start, state.plan) == state.goal)
        far = distances(state.goal)
        return float(len(state.moves) + far[state.stacks] == far[state.start])

    def grades(self, problem: Problem, state: World) -> dict[str, float]:
        """Return the mark `shortest`: 1.0 for a right plan of the smallest length, else 0.0."""
        plan = state.moves if state.plan is None else state.plan
        is_right = run(state.start, plan) == state.goal
        return {"shortest": float(is_right and len(plan) == distances(state.goal)[state.start])}


@verifier_of.register
def _make_verifier(task: Blocksworld) -> BlocksworldVerifier:
    return BlocksworldVerifier()


def plan_to_text(plan: Iterable[Move]) -> str:
    """Return a plan as `move A onto B; move C to the table`."""
    return "; ".join(map(str, plan))


def read_plan(text: str) -> tuple[Move, ...] | None:
    """Read a text that is a plan; None if it has no moves or anything else.

    Moves are divided by `;`, `,`, `.`, `then`, `and` or line ends. What follows `[PLAN END]` is not
    read.
    """
    text = _PLAN_END.split("\n".join(map(_spaced, text.splitlines())), maxsplit=1)[0]
    moves = []
    for part in _BETWEEN.split(text):
        match = _MOVE.match(part)
        if match is not None and not part[match.end() :].strip(" `*)"):
            moves.append(_move(match))
        elif part.strip(" `*0123456789"):
            return None
    return tuple(moves) or None


def _spaced(line: str) -> str:
    """Return a line with single spaces for blanks of every kind."""
    return " ".join(normalize_characters(line).split())


def _move(match: re.Match[str]) -> Move:
    onto = match[2]
    return Move(match[1].upper(), TABLE if onto.lower() == TABLE else onto.upper())


def _after(state: World, move: Move) -> World:
    stacks = apply(state.stacks, move)
    assert stacks is not None
    return replace(state, stacks=stacks, moves=(*state.moves, move))


def _read_step(state: World, line: str) -> Step | str:
    """Read the step of a line; or return the reason why it has none."""
    match = _MOVE.match(line)
    if match is None:
        return "not a move such as `move A onto B`"
    move = _move(match)
    if apply(state.stacks, move) is None:
        return f"{move} is not legal"
    return Step(str(move), _after(state, move))


def _move_lines(state: World) -> list[str]:
    """Return a line for each move so far, with the stacks after it."""
    stacks, lines = state.start, []
    for move in state.moves:
        stacks = apply(stacks, move) or stacks
        lines.append(f"Step: {move} (now: {stacks_to_text(stacks)})\n")
    return lines
