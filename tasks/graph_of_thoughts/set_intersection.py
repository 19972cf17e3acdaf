"""The intersection of two sets of 32, 64 or 128 numbers (Graph of Thoughts, arXiv 2308.09687,
section 5.2).

The second set is split, each part intersected with all of the first, the results joined. The size
is the difficulty.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from treeshare.tasks.sampling import RoleSampling
from treeshare.tasks.task import Problem

from .merging import MergingTask, MergingVerifier, MergingWords, Numbers, Thought

WORDS = MergingWords(
    split="""\
Split the list into parts of the length told, in order. Leave no number out.

Parts of 4 of: [13, 16, 30, 6, 21, 7, 31, 15]
Part 1: [13, 16, 30, 6]
Part 2: [21, 7, 31, 15]

Parts of 3 of: [8, 25, 2, 10, 6, 23, 1, 11, 4]
Part 1: [8, 25, 2]
Part 2: [10, 6, 23]
Part 3: [1, 11, 4]

""",
    solve="""\
Write the numbers that are in both sets, each once.

Set 1: [13, 16, 30, 6, 21, 7, 31, 15]
Set 2: [25, 24, 10, 4, 27, 16, 7, 2]
Both: [16, 7]

Set 1: [1, 5, 22, 9, 14, 28]
Set 2: [3, 12, 30]
Both: []

Set 1: [26, 11, 18, 3, 20, 8, 29, 0]
Set 2: [8, 26, 15, 20, 1, 3]
Both: [8, 26, 20, 3]

""",
    reason="""\
Write the numbers that are in both sets, each once: say of each number of the second set whether \
it is in the first, then write the list.

Set 1: [13, 16, 30, 6, 21, 7, 31, 15]
Set 2: [25, 24, 16, 7]
Reasoning: 25 no, 24 no, 16 yes, 7 yes.
Both: [16, 7]

Set 1: [1, 5, 22, 9, 14, 28]
Set 2: [3, 12, 30]
Reasoning: 3 no, 12 no, 30 no.
Both: []

""",
    merge="""\
Join the lists into one list of all their numbers.

List 1: [16, 7]
List 2: [30, 15, 21]
Merged: [16, 7, 30, 15, 21]

List 1: []
List 2: [4, 11]
Merged: [4, 11]

""",
    improve="""\
The third list should be the numbers that are in both sets, each once, but it is wrong: numbers \
are missing or too many. Write it right.

Set 1: [13, 16, 30, 6, 21, 7, 31, 15]
Set 2: [25, 24, 10, 4, 27, 16, 7, 2]
Wrong: [16, 7, 2]
Both: [16, 7]

Set 1: [26, 11, 18, 3, 20, 8, 29, 0]
Set 2: [8, 26, 15, 20, 1, 3]
Wrong: [8, 26]
Both: [8, 26, 20, 3]

""",
    part="Set 2",
    other="Set 1",
    answer="Both",
)


class Sets(NamedTuple):
    first: Numbers
    second: Numbers


class SetIntersection(MergingTask):
    """The task: generated pairs of sets, prompts and parsers.

    Both have `size` numbers from 0 to 2 · size - 1; of a quarter to three quarters of them they
    have in common, any share is as likely.

    Args:
        size: numbers of a set; the paper has 32, 64 and 128.
        part_size: numbers of a part of the second set; the paper has 16.
        limit: problems; the first of more are these.
        seed: of the sets.
        sampling: per role, fields that replace those of the defaults.

    Raises:
        ValueError: an argument is out of its bound, or there are fewer problems than `limit`.
    """

    name = "set_intersection"
    words = WORDS

    def __init__(
        self,
        *,
        size: int = 32,
        part_size: int = 16,
        limit: int = 100,
        seed: int = 0,
        sampling: RoleSampling | None = None,
    ) -> None:
        super().__init__(size, part_size, sampling)
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
        first, second = problem.data
        return Thought(second, len(second), other=first)

    def errors(self, thought: Thought) -> int:
        assert thought.result is not None
        return count_errors(Sets(thought.other, thought.part), thought.result)


class SetIntersectionVerifier(MergingVerifier):
    def errors(self, problem: Problem, result: Numbers) -> int:
        return count_errors(problem.data, result)


def count_errors(sets: Sets, result: Sequence[int]) -> int:
    """Numbers missing, too many or repeated. 0 only if the result, in any order, is right."""
    difference = Counter(result)
    difference.subtract(set(sets.first) & set(sets.second))
    return sum(map(abs, difference.values()))
