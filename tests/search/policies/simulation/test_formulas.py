"""The scores of a child against values worked out by hand."""

import math

import pytest

from treeshare.search.policies.simulation.formulas import puct_score, uct_score, uct_with_guess


def test_uct_score():
    # 3/4 + 1·√(ln 16 / 4) = 0.75 + √0.693147 = 0.75 + 0.832555
    assert uct_score(3.0, 4, 16, 1.0) == pytest.approx(1.582555, abs=1e-6)
    assert uct_score(3.0, 4, 16, 0.0) == 0.75
    assert uct_score(0.5, 1, 1, 5.0) == 0.5
    assert uct_score(0.0, 0, 16, 1.0) == math.inf


def test_puct_score():
    # 3/4 + 2·0.3·√25 / (1 + 4) = 0.75 + 0.6
    assert puct_score(3.0, 4, 25, 0.3, 2.0, 0.5) == pytest.approx(1.35)
    # unvisited: 0.5 + 2·0.3·√25 / 1
    assert puct_score(0.0, 0, 25, 0.3, 2.0, 0.5) == pytest.approx(3.5)


def test_uct_with_guess():
    # 0.5 + 2·√(ln 8 / 2) = 0.5 + 2·√1.039721
    assert uct_with_guess(0.5, 2, 8, 2.0) == pytest.approx(2.539334, abs=1e-6)
    assert uct_with_guess(0.5, 0, 8, 1.0) == uct_with_guess(0.5, 1, 8, 1.0)
    assert uct_with_guess(0.5, 0, 1, 1.0) == 0.5
