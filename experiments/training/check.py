"""Check a saved model on held-out puzzles, through the engine that searches use.

The model's judgements are compared with the exact solver's, its proposals are parsed by the task,
and the answers of its chains of steps are marked by the verifier.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from treeshare.llm_backend.api import Generate, GenerateReply, Sampling, Score, ScoreReply
from treeshare.llm_backend.engines.serve import serve
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import load_model
from treeshare.tasks.arithmetic.game24 import Game24, Game24Verifier
from treeshare.tasks.arithmetic.game24_puzzles import Puzzle
from treeshare.tasks.arithmetic.rules import Position, can_make
from treeshare.tasks.task import Problem

from .solver import Solved, solve_all

_CHAINS = 4  # sampled for each puzzle


@dataclass(frozen=True, slots=True)
class Check:
    """A line of checks.jsonl. All shares are in [0, 1]."""

    step: int
    right_judgements: dict[str, float]  # by role, numbers left and right judgement
    valid_proposals: float  # lines proposed that are legal steps
    good_proposals: float  # lines proposed after which 24 can still be made
    solved_chains: float  # chains of steps that end in a right answer

    def to_text(self) -> str:
        """The results in one line."""
        judgements = "; ".join(
            f"{kind} {share:.1%}" for kind, share in self.right_judgements.items()
        )
        return (
            f"step {self.step}: right judgements: {judgements}; proposals valid "
            f"{self.valid_proposals:.1%}, good {self.good_proposals:.1%}; chains solved "
            f"{self.solved_chains:.1%}"
        )


def check(step: int, directory: Path, puzzles: Sequence[Puzzle], device: str) -> Check:
    """Check the model that was saved after `step` steps.

    Args:
        step: the number of training steps.
        directory: the saved model.
        puzzles: puzzles of the Game of 24 that the model was not trained on.
        device: where the model runs, such as `cuda`.
    """
    engine = TreeEngine(load_model(str(directory), device=device), max_num_batched_tokens=4096)
    task = Game24()
    solved = list(solve_all(np.array(puzzles)))
    roots = [root.position for root in solved]
    valid, good = _proposals(engine, task, roots)
    chains = _solved_chains(engine, task, roots)
    return Check(step, _right_judgements(engine, task, solved), valid, good, chains)


def _right_judgements(
    engine: TreeEngine, task: Game24, roots: Sequence[Solved]
) -> dict[str, float]:
    """The shares of right judgements.

    Judged are the puzzles, all positions after one step, and one position after two steps of each.
    """
    truths = {state: truth for root in roots for state, truth in _states(root)}
    options = {"value": tuple(task.values), "judge": task.yes_no}
    asked = [(role, state) for role in options for state in truths]
    scores = [Score(task.prompt(role, state), options[role]) for role, state in asked]
    is_right = defaultdict(list)
    for (role, state), reply in zip(asked, serve(engine, scores, ScoreReply), strict=True):
        said = options[role][int(np.argmax(reply.logprobs))]
        truth = "solvable" if truths[state] else "unsolvable"
        kind = f"{role}, {len(state.numbers)} left, {truth}"
        is_right[kind].append((said not in (" impossible", " no")) == truths[state])
    return {kind: sum(right) / len(right) for kind, right in sorted(is_right.items())}


def _states(root: Solved) -> Iterator[tuple[Position, bool]]:
    """Positions below a puzzle, each with whether it can make 24."""
    yield root.position, root.can_make_it()
    for operation in range(len(root.made)):
        if (child := root.after(operation)) is not None:
            yield child.position, child.can_make_it()
            if (grandchild := child.after(operation % len(child.made))) is not None:
                yield grandchild.position, grandchild.can_make_it()


def _proposals(engine: TreeEngine, task: Game24, roots: Sequence[Position]) -> tuple[float, float]:
    valid = good = count = 0
    for root, reply in zip(roots, _generated(engine, task, "propose", roots, 1), strict=True):
        for line in reply.completions[0].text.splitlines():
            count += 1
            step = task.parse("propose", root, line)
            if isinstance(step, list):
                valid += 1
                good += can_make(step[0].state.values)
    return valid / max(1, count), good / max(1, count)


def _solved_chains(engine: TreeEngine, task: Game24, roots: Sequence[Position]) -> float:
    verifier, right = Game24Verifier(), 0
    for root, reply in zip(roots, _generated(engine, task, "cot", roots, _CHAINS), strict=True):
        problem = Problem("", root.puzzle)
        for completion in reply.completions:
            steps = task.parse("cot", root, completion.text)
            if isinstance(steps, list):
                right += verifier.check(problem, task.answer(steps[0].state) or "")
    return right / (len(roots) * _CHAINS)


def _generated(
    engine: TreeEngine, task: Game24, role: str, states: Sequence[Position], n: int
) -> list[GenerateReply]:
    sampling = Sampling(**task.sampling[role])
    requests = [
        Generate(task.prompt(role, state), n, sampling, seed) for seed, state in enumerate(states)
    ]
    return serve(engine, requests, GenerateReply)
