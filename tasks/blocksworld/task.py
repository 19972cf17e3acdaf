"""Blocksworld: move blocks, one at a time and only from the top of a stack, into the goal's stacks.

The planning problem of RAP (arXiv 2305.14992 section 4.1) with one move for its pick up and put
down. How many moves the shortest plan has is the difficulty. The rules are `blocksworld_rules`;
`Blocksworld` reads replies and never judges whether a plan is right.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from treeshare.tasks.generator import distinct
from treeshare.tasks.replies import read_steps, read_verdict, tidy
from treeshare.tasks.sampling import RoleSampling, merged
from treeshare.tasks.task import ParseFailure, Problem, State, Step

from . import prompts as prompts
from .rules import (
    TABLE,
    Move,
    Stacks,
    apply,
    distances,
    draw_stacks,
    in_place,
    legal_moves,
    run,
    show,
)

BLOCKS = "ABCDEF"

_SAMPLING: RoleSampling = {
    "propose": {"max_tokens": 120, "temperature": 0.7, "stop": ("\n\n",)},
    "step": {"max_tokens": 32, "temperature": 0.7, "stop": ("\n",)},
    "io": {"max_tokens": 120, "temperature": 0.7, "stop": ("\n",)},
    "cot": {"max_tokens": 400, "temperature": 0.7, "stop": ("\n\n",)},
    "value": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
}
_MOVE = re.compile(  # (?ai:...) takes ASCII letters alone, great and small
    r"(?:\W|\d|(?ai:step)\b)*+"
    r"(?ai:move (?:block )?([A-Z]) (?:onto|on|to|on top of) (?:the )?(table|[A-Z]))\b"
)
_BETWEEN = re.compile(r"[;,.\n]|\b(?ai:then|and)\b")  # moves of a plan
_PLAN = re.compile(r"plan:", re.IGNORECASE | re.ASCII)
_PLAN_END = re.compile(r"\[ ?plan end ?\]", re.IGNORECASE | re.ASCII)


class Puzzle(NamedTuple):
    start: Stacks
    goal: Stacks


@dataclass(frozen=True, slots=True)
class World:
    """How the blocks stand. Two worlds are equal if the blocks stand the same (and the same plan
    is claimed), however they came to."""

    start: Stacks = field(compare=False)
    stacks: Stacks
    goal: Stacks
    moves: tuple[Move, ...] = field(default=(), compare=False)
    plan: tuple[Move, ...] | None = None  # a whole plan as the model wrote it, right or wrong

    def __str__(self) -> str:
        return show(self.stacks) if self.plan is None else told(self.plan)


class Blocksworld:
    """The task: generated puzzles, prompts and parsers.

    A start is drawn block by block, each on the table or on one of the stacks so far, all equally
    likely; its goal is any of those at the distance, all equally likely.

    Args:
        blocks: 3 to 6.
        moves: of the shortest plan, at least 1; more than 2 * blocks - 2 do not exist.
        limit: puzzles; the first of more are these.
        seed: of the puzzles.
        sampling: per role, fields that replace those of the defaults.

    Raises:
        ValueError: an argument is out of its bound, or there are fewer puzzles than `limit`.
    """

    name = "blocksworld"
    values: Mapping[str, float] = {" sure": 1.0, " likely": 0.5, " impossible": 0.0}
    yes_no = (" yes", " no")

    def __init__(
        self,
        *,
        blocks: int = 4,
        moves: int = 4,
        limit: int = 100,
        seed: int = 0,
        sampling: RoleSampling | None = None,
    ) -> None:
        self.sampling = merged(_SAMPLING, sampling)
        if not 3 <= blocks <= len(BLOCKS):
            raise ValueError(f"blocks={blocks} must be from 3 to {len(BLOCKS)}")
        if not 1 <= moves <= 2 * blocks - 2:
            raise ValueError(f"moves={moves} must be from 1 to {2 * blocks - 2}")

        def draw(rng: random.Random) -> Puzzle | None:
            start = draw_stacks(rng, BLOCKS[:blocks])
            goals = sorted(goal for goal, far in distances(start).items() if far == moves)
            return Puzzle(start, rng.choice(goals)) if goals else None

        self._puzzles = distinct(draw, limit, seed)

    def problems(self) -> list[Problem]:
        """In the order drawn; an id as `blocksworld/A-BC-to-CAB` names the stacks."""
        return [
            Problem(f"{self.name}/{'-'.join(start)}-to-{'-'.join(goal)}", Puzzle(start, goal))
            for start, goal in self._puzzles
        ]

    def root(self, problem: Problem) -> World:
        start, goal = problem.data
        return World(start, start, goal)

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Segments of the prompt for `role`, the constant one first.

        `step`, `choose` and `cot` share one prompt, which holds the moves so far: a child's prompt
        continues its parent's. `propose`, `value` and `judge` show how the blocks stand now, and a
        plan if one is claimed.

        Raises:
            ValueError: there is no such role.
        """
        goal = f"Goal: {show(state.goal)}\n"
        start = f"Blocks: {show(state.start)}\n"
        now = [goal, f"Blocks: {show(state.stacks)}\n"]
        if state.plan is not None:
            now = [goal, start, f"Plan: {state}\n"]
        match role:
            case "propose":
                return prompts.PROPOSE, *now, "Moves:\n"
            case "step" | "choose" | "cot":
                return prompts.STEPS, goal, start, *_taken(state), "Step:"
            case "io":
                return prompts.SOLVE, goal, start, "Plan:"
            case "value":
                return prompts.VALUE, *now, "Verdict:"
            case "judge":
                return prompts.JUDGE, *now, "On the way:"
        known = ", ".join((*self.sampling, "choose", "judge"))
        raise ValueError(f"role={role!r} must be one of {known}")

    def parse(self, role: str, state: World, text: str) -> list[Step] | ParseFailure:
        """Steps read from a reply.

        `propose` and `step`: lines such as `move A onto B`, of which `step` takes the first; a move
        counts if it is legal. `io` and `cot`: all of the moves after the last `Plan:`, or else of
        the text, taken as they are, right or wrong; with anything else among them there is none.

        Raises:
            ValueError: the role has no such reply.
        """
        if role in ("propose", "step"):
            lines = map(_spaced, text.splitlines())
            return read_steps(role, text, lines, lambda line: _read_step(state, line))
        if role in ("io", "cot"):
            plan = read_plan(_PLAN.split(tidy(text))[-1])
            if plan is None:
                return ParseFailure(role, text, "not a plan such as `move A onto B; move C onto A`")
            return [Step(told(plan), replace(state, plan=plan))]
        raise ValueError(f"role={role!r} must be one of propose, step, io, cot")

    def is_terminal(self, state: World) -> bool:
        return state.plan is not None or state.stacks == state.goal

    def answer(self, state: World) -> str | None:
        """A plan such as `move A onto B; move C to the table`; None unless the state is
        terminal."""
        if not self.is_terminal(state):
            return None
        return told(state.moves if state.plan is None else state.plan)

    def moves(self, state: World) -> list[Step]:
        """All legal moves, each as its text; none from a terminal state."""
        if self.is_terminal(state):
            return []
        return [Step(f" {move} (now:", _after(state, move)) for move in legal_moves(state.stacks)]

    def heuristic(self, state: World) -> float:
        """The share of blocks that stand as in the goal with all below them; after a plan that is
        claimed, 0.0 if a move of it is not legal."""
        stacks = state.stacks if state.plan is None else run(state.start, state.plan)
        return in_place(stacks, state.goal) / sum(map(len, state.goal)) if stacks else 0.0

    def parse_value(self, state: World, text: str) -> float | ParseFailure:
        """The value of the one verdict in the reply (`read_verdict`)."""
        return read_verdict(self.values, text)


class BlocksworldVerifier:
    """Plays a plan through."""

    def check(self, problem: Problem, answer: str) -> bool:
        """Whether every move of the plan `answer` is legal and the goal stands after the last,
        however many there are. Anything malformed is wrong."""
        plan = read_plan(answer)
        return plan is not None and run(problem.data.start, plan) == problem.data.goal

    def promise(self, problem: Problem, state: World) -> float:
        """1.0 while the moves so far begin a shortest plan, or if the plan claimed is right; else
        0.0. (The goal can always be reached, by longer plans.)"""
        if state.plan is not None:
            return float(run(state.start, state.plan) == state.goal)
        far = distances(state.goal)
        return float(len(state.moves) + far[state.stacks] == far[state.start])

    def grades(self, problem: Problem, state: World) -> dict[str, float]:
        """`shortest`: 1.0 for a right plan that none is shorter than."""
        plan = state.moves if state.plan is None else state.plan
        is_right = run(state.start, plan) == state.goal
        return {"shortest": float(is_right and len(plan) == distances(state.goal)[state.start])}


def told(plan: Iterable[Move]) -> str:
    return "; ".join(map(str, plan))


def read_plan(text: str) -> tuple[Move, ...] | None:
    """The moves that a text is, divided by `;`, `,`, `.`, `then`, `and` or line ends; None if there
    are none, or anything else but `[PLAN END]` after them."""
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
    """A line with single spaces for blanks of every kind."""
    return " ".join(tidy(line).split())


def _move(match: re.Match[str]) -> Move:
    onto = match[2]
    return Move(match[1].upper(), TABLE if onto.lower() == TABLE else onto.upper())


def _after(state: World, move: Move) -> World:
    stacks = apply(state.stacks, move)
    assert stacks is not None
    return replace(state, stacks=stacks, moves=(*state.moves, move))


def _read_step(state: World, line: str) -> Step | str:
    """The step a line tells, or why it tells none."""
    match = _MOVE.match(line)
    if match is None:
        return "not a move such as `move A onto B`"
    move = _move(match)
    if apply(state.stacks, move) is None:
        return f"{move} is not legal"
    return Step(str(move), _after(state, move))


def _taken(state: World) -> list[str]:
    """A line for each move: the move, and how the blocks stand after it."""
    stacks, lines = state.start, []
    for move in state.moves:
        stacks = apply(stacks, move) or stacks
        lines.append(f"Step: {move} (now: {show(stacks)})\n")
    return lines
