"""Confidence intervals against known values."""

import math
import random

import pytest

from treeshare.experiments.reports.intervals import bootstrap, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),  # bounds are the roots of (p - k/n)² = z² p (1 - p) / n
    [
        (0, 10, 0.0, 0.27754),
        (5, 10, 0.23659, 0.76341),
        (10, 10, 0.72246, 1.0),
        (62, 100, 0.52210, 0.70903),
    ],
)
def test_wilsons_interval(successes, trials, low, high):
    estimate = wilson(successes, trials)
    assert estimate.value == successes / trials
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-5)
    for bound in (estimate.low, estimate.high):
        error = (bound - estimate.value) ** 2
        if 0 < bound < 1:
            assert error == pytest.approx(1.959964**2 * bound * (1 - bound) / trials, rel=1e-5)


def test_the_bootstraps_interval_is_that_of_the_normal_for_many_values():
    rng = random.Random(0)
    values = [rng.gauss(10, 2) for _ in range(400)]
    estimate = bootstrap(values)
    mean = sum(values) / 400
    error = math.sqrt(sum((v - mean) ** 2 for v in values)) / 400
    assert estimate.value == pytest.approx(mean)
    assert estimate.low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert estimate.high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)
    assert estimate == bootstrap(values)
    assert bootstrap([3.0]).low == bootstrap([3.0]).high == 3.0


@pytest.mark.parametrize(
    "call", [lambda: wilson(0, 0), lambda: wilson(3, 2), lambda: bootstrap([])]
)
def test_nothing_has_no_interval(call):
    with pytest.raises(ValueError, match="no interval"):
        call()


def test_the_bootstraps_interval_stays_the_same():
    """Figures of published reports can be computed again."""
    estimate = bootstrap([0.0, 0.25, 0.5, 1.0] * 3)
    assert (estimate.low, estimate.high) == pytest.approx((0.229167, 0.645833), abs=1e-6)
