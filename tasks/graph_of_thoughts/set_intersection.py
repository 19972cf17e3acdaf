"""Intersection of two sets of 32, 64 or 128 numbers.

This is a task of Graph of Thoughts (arXiv 2308.09687 section 5.2). The second set is split, each
part is intersected with the whole first set, and the results are joined. The size is the
difficulty.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from treeshare.tasks.arguments import keeps_arguments
from treeshare.tasks.prompts import PromptTexts, Shots, read_prompts
from treeshare.tasks.task import Problem, RoleSampling
from treeshare.tasks.verifiers import verifier_of

from .merging import MergingTask, MergingVerifier, Numbers, Thought, make_templates


class Sets(NamedTuple):
    """The two sets of a problem."""

    first: Numbers
    second: Numbers


@keeps_arguments
class SetIntersection(MergingTask):
    """The task of set intersection, with generated pairs of sets.

    Both sets have `size` numbers from 0 to 2 · size - 1. They share between a quarter and three
    quarters of their numbers; each count in that range is equally likely.

    Args:
        size: numbers of a set, 2 to 5000; the paper has 32, 64 and 128.
        part_size: numbers of a part of the second set, 1 to `size`; the paper has 16.
        limit: number of problems; a larger limit gives the same problems first.
        seed: seed of the sets.
        sampling: per role, fields that replace those of the defaults.
        prompts: by role, a file or a text that replaces the prompt.
        shots: the number of examples in each prompt, or by role; None takes all.

    Raises:
        OSError: a prompt's file cannot be read.
        ValueError: an argument is out of its bound, or there are fewer problems than `limit`.
    """

    name = "set_intersection"
    templates = make_templates(
        read_prompts(__package__, "set_intersection"), part="Set 2", other="Set 1", answer="Both"
    )

    def __init__(
        self,
        *,
        size: int = 32,
        part_size: int = 16,
        limit: int = 100,
        seed: int = 0,
        sampling: RoleSampling | None = None,
        prompts: PromptTexts | None = None,
        shots: Shots | None = None,
    ) -> None:
        super().__init__(size, part_size, sampling, prompts, shots)
        if size > 5000:
            raise ValueError(f"size={size} must be at most 5000")

        def draw(rng: random.Random) -> Sets:
            numbers = rng.sample(range(2 * size), 2 * size)
            common = rng.randint(size // 4, 3 * size // 4)
            second = numbers[:common] + numbers[size : 2 * size - common]
            rng.shuffle(second)
            return Sets(tuple(numbers[:size]), tuple(second))

        self._draw(draw, limit, seed)

    def root(self, problem: Problem) -> Thought:
        """Return the whole second set without a result."""
        first, second = problem.data
        return Thought(second, len(second), other=first)

    def errors(self, thought: Thought) -> int:
        """Count the errors of a thought's result (`count_errors`)."""
        assert thought.result is not None
        return count_errors(Sets(thought.other, thought.part), thought.result)


class SetIntersectionVerifier(MergingVerifier):
    """Counts the errors of intersections."""

    def errors(self, problem: Problem, result: Numbers) -> int:
        """Count the errors of a result for both whole sets (`count_errors`)."""
        return count_errors(problem.data, result)


@verifier_of.register
def _make_verifier(task: SetIntersection) -> SetIntersectionVerifier:
    return SetIntersectionVerifier()


def count_errors(sets: Sets, result: Sequence[int]) -> int:
    """Count the numbers that are missing, too many or repeated; the order does not count."""
    difference = Counter(result)
    difference.subtract(set(sets.first) & set(sets.second))
    return sum(map(abs, difference.values()))
