"""The solver of the training data agrees with the tasks' own solver on every path."""

from fractions import Fraction

import numpy as np
import pytest

from treeshare.experiments.training.solver import LARGEST_TARGET, solve_all
from treeshare.tasks.arithmetic.rules import can_make


def drawn(k, count):
    return np.random.default_rng(k).integers(1, 14, (count, k))


@pytest.mark.parametrize(("k", "count"), [(2, 40), (3, 40), (4, 4)])
def test_targets_are_those_that_can_be_made(k, count):
    for solved in solve_all(drawn(k, count)):
        values = solved.position.values
        expected = [t for t in range(1, 1 + LARGEST_TARGET) if can_make(values, Fraction(t))]
        assert solved.targets() == expected


def test_five_numbers():
    (solved,) = solve_all(np.array([[1, 1, 2, 3, 13]]))
    values = solved.position.values
    for target in (24, 77, 99, 100):
        assert solved.aimed(target).can_make_it() == can_make(values, Fraction(target))


@pytest.mark.parametrize("target", [1, 24, 60])
def test_every_path_ends_where_it_says(target):
    """A position can make the target exactly if its entry says so.

    That of a final position depends on its number, that of any other on the paths below it.
    """
    num_good = 0

    def descend(solved, is_whole):
        nonlocal num_good
        position = solved.position
        is_whole &= all(value.denominator == 1 for value in position.values)
        if position.is_final:
            makes = position.values[0] == target
            assert solved.can_make_it() == makes
            assert solved.can_make_it(only_whole=True) == (makes and is_whole)
            num_good += makes
            return
        good, whole = solved.is_good(), solved.is_good(only_whole=True)
        assert solved.can_make_it() == good.any()
        for operation in range(len(solved.made)):
            child = solved.after(operation)
            if child is None:
                assert not solved.made[operation].any()  # divided by zero
            else:
                assert child.can_make_it() == good[operation]
                assert child.can_make_it(only_whole=True) == whole[operation]
                descend(child, is_whole)

    for solved in solve_all(np.array([[1, 2, 3, 4], [2, 2, 10, 10], [1, 5, 5, 5]])):
        descend(solved.aimed(target), True)
    assert num_good


def test_fractions_are_distinguished_from_whole_numbers():
    (solved,) = solve_all(np.array([[1, 5, 5, 5]]))  # 5 * (5 - 1 / 5)
    assert solved.can_make_it() and not solved.can_make_it(only_whole=True)


@pytest.mark.parametrize(
    ("puzzle", "message"),
    [
        ([1, 2, 3, 4, 5, 6], "6 numbers must be from 2 to 5"),
        ([3], "1 numbers must be from 2 to 5"),
        ([0, 3], "from 0 to 3 must be from 1 to 50"),
        ([3, 51], "from 3 to 51 must be from 1 to 50"),
    ],
)
def test_puzzles_out_of_bounds_are_refused(puzzle, message):
    with pytest.raises(ValueError, match=message):
        next(solve_all(np.array([puzzle])))
