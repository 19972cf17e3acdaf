"""Sorting of digits with repetitions, 32, 64 or 128 of them (Graph of Thoughts, arXiv 2308.09687,
section 5.1).

Language models lose and invent digits long before they fail to order them. The length is the
difficulty.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from treeshare.tasks.generator import at_least
from treeshare.tasks.sampling import RoleSampling
from treeshare.tasks.task import Problem

from .merging import MergingTask, MergingVerifier, MergingWords, Numbers, Thought

WORDS = MergingWords(
    split="""\
Split the list into parts of the length told, in order. Leave no number out.

Parts of 4 of: [3, 1, 9, 3, 7, 5, 5, 4]
Part 1: [3, 1, 9, 3]
Part 2: [7, 5, 5, 4]

Parts of 3 of: [8, 2, 2, 0, 6, 3, 1, 1, 4]
Part 1: [8, 2, 2]
Part 2: [0, 6, 3]
Part 3: [1, 1, 4]

""",
    solve="""\
Sort the numbers in ascending order. Keep each as often as it is there.

Input: [5, 1, 0, 1, 2, 0, 4, 8]
Sorted: [0, 0, 1, 1, 2, 4, 5, 8]

Input: [3, 7, 0, 2, 8, 1, 2, 2, 2, 4, 7, 8, 5, 5, 3, 9]
Sorted: [0, 1, 2, 2, 2, 2, 3, 3, 4, 5, 5, 7, 7, 8, 8, 9]

""",
    reason="""\
Sort the numbers in ascending order: count how often each is there, then write the list.

Input: [5, 1, 0, 1, 2, 0, 4, 8]
Reasoning: 0 twice, 1 twice, 2 once, 4 once, 5 once, 8 once.
Sorted: [0, 0, 1, 1, 2, 4, 5, 8]

Input: [3, 7, 0, 2, 8, 1, 2, 2, 2, 4, 7, 8, 5, 5, 3, 9]
Reasoning: 0 once, 1 once, 2 4 times, 3 twice, 4 once, 5 twice, 7 twice, 8 twice, 9 once.
Sorted: [0, 1, 2, 2, 2, 2, 3, 3, 4, 5, 5, 7, 7, 8, 8, 9]

""",
    merge="""\
Merge the sorted lists into one sorted list. Keep each number as often as it is there.

List 1: [0, 1, 1, 5]
List 2: [0, 2, 4, 8]
Merged: [0, 0, 1, 1, 2, 4, 5, 8]

List 1: [0, 1, 2, 2, 3, 7, 8, 8]
List 2: [2, 2, 3, 4, 5, 5, 7, 9]
Merged: [0, 1, 2, 2, 2, 2, 3, 3, 4, 5, 5, 7, 7, 8, 8, 9]

""",
    improve="""\
The second list should be the first in ascending order, but it is wrong: numbers are missing, too \
many or out of order. Write it right.

Input: [5, 1, 0, 1, 2, 0, 4, 8]
Wrong: [0, 1, 1, 2, 4, 5, 8, 8]
Sorted: [0, 0, 1, 1, 2, 4, 5, 8]

Input: [3, 7, 0, 2, 8, 1, 2, 2, 2, 4, 7, 8, 5, 5, 3, 9]
Wrong: [0, 1, 2, 2, 3, 2, 2, 3, 4, 5, 5, 7, 8, 8, 9]
Sorted: [0, 1, 2, 2, 2, 2, 3, 3, 4, 5, 5, 7, 7, 8, 8, 9]

""",
    part="Input",
    other=None,
    answer="Sorted",
)


class Sorting(MergingTask):
    """The task: generated lists, prompts and parsers.

    Args:
        size: numbers of a list; the paper has 32, 64 and 128.
        largest: the numbers are from 0 to this; the paper has 9.
        part_size: numbers of a part; the paper has 16.
        limit: lists; the first of more are these.
        seed: of the lists.
        sampling: per role, fields that replace those of the defaults.

    Raises:
        ValueError: an argument is out of its bound, or there are fewer lists than `limit`.
    """

    name = "sorting"
    words = WORDS

    def __init__(
        self,
        *,
        size: int = 32,
        largest: int = 9,
        part_size: int = 16,
        limit: int = 100,
        seed: int = 0,
        sampling: RoleSampling | None = None,
    ) -> None:
        super().__init__(size, part_size, sampling)
        at_least(1, largest=largest)
        if largest > 9999:
            raise ValueError(f"largest={largest} must be at most 9999")

        def draw(rng: random.Random) -> Numbers:
            return tuple(rng.randint(0, largest) for _ in range(size))

        self._draw(draw, limit, seed)

    def root(self, problem: Problem) -> Thought:
        return Thought(problem.data, len(problem.data))

    def errors(self, thought: Thought) -> int:
        assert thought.result is not None
        return count_errors(thought.part, thought.result)


class SortingVerifier(MergingVerifier):
    def errors(self, problem: Problem, result: Numbers) -> int:
        return count_errors(problem.data, result)


def count_errors(given: Sequence[int], result: Sequence[int]) -> int:
    """X + Y of the paper: X neighbours out of order, Σ_i [b_i > b_i+1], and Y numbers too few or
    too many, Σ_n |#n in b - #n in a|, for the list a and the result b. 0 only if it is right."""
    disorder = sum(b > c for b, c in pairwise(result))
    difference = Counter(result)
    difference.subtract(Counter(given))
    return disorder + sum(map(abs, difference.values()))
