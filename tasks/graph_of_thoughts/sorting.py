"""Sorting of 32, 64 or 128 digits with repetitions.

This is a task of Graph of Thoughts (arXiv 2308.09687 section 5.1). The length is the difficulty:
language models lose and invent digits long before they fail to order them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from treeshare.tasks.arguments import keeps_arguments
from treeshare.tasks.generator import at_least
from treeshare.tasks.prompts import PromptTexts, Shots, read_prompts
from treeshare.tasks.task import Problem, RoleSampling
from treeshare.tasks.verifiers import verifier_of

from .merging import MergingTask, MergingVerifier, Numbers, Thought, make_templates


@keeps_arguments
class Sorting(MergingTask):
    """The task of sorting, with generated lists.

    Args:
        size: length of a list, at least 2; the paper has 32, 64 and 128.
        largest: largest number, 1 to 9999; the numbers are from 0 on. The paper has 9.
        part_size: length of a part, 1 to `size`; the paper has 16.
        limit: number of lists; a larger limit gives the same lists first.
        seed: seed of the lists.
        sampling: per role, fields that replace those of the defaults.
        prompts: by role, a file or a text that replaces the prompt.
        shots: the number of examples in each prompt, or by role; None takes all.

    Raises:
        OSError: a prompt's file cannot be read.
        ValueError: an argument is out of its bound, or there are fewer lists than `limit`.
    """

    name = "sorting"
    templates = make_templates(
        read_prompts(__package__, "sorting"), part="Input", other=None, answer="Sorted"
    )

    def __init__(
        self,
        *,
        size: int = 32,
        largest: int = 9,
        part_size: int = 16,
        limit: int = 100,
        seed: int = 0,
        sampling: RoleSampling | None = None,
        prompts: PromptTexts | None = None,
        shots: Shots | None = None,
    ) -> None:
        super().__init__(size, part_size, sampling, prompts, shots)
        at_least(1, largest=largest)
        if largest > 9999:
            raise ValueError(f"largest={largest} must be at most 9999")

        def draw(rng: random.Random) -> Numbers:
            return tuple(rng.randint(0, largest) for _ in range(size))

        self._draw(draw, limit, seed)

    def root(self, problem: Problem) -> Thought:
        """Return the whole list without a result."""
        return Thought(problem.data, len(problem.data))

    def errors(self, thought: Thought) -> int:
        """Count the errors of a thought's result (`count_errors`)."""
        assert thought.result is not None
        return count_errors(thought.part, thought.result)


class SortingVerifier(MergingVerifier):
    """Counts the errors of sorted lists."""

    def errors(self, problem: Problem, result: Numbers) -> int:
        """Count the errors of a result for the whole list (`count_errors`)."""
        return count_errors(problem.data, result)


@verifier_of.register
def _make_verifier(task: Sorting) -> SortingVerifier:
    return SortingVerifier()


def count_errors(given: Sequence[int], result: Sequence[int]) -> int:
    """Count the errors of a sorted list as the paper does: X + Y.

    For a list a and a result b, X is the number of neighbours out of order, Σ_i [b_i > b_i+1], and
    Y the number of elements that are missing or too many, Σ_n |#n in b - #n in a|. The count is 0
    only for the right result.
    """
    disorder = sum(b > c for b, c in pairwise(result))
    difference = Counter(result)
    difference.subtract(Counter(given))
    return disorder + sum(map(abs, difference.values()))
