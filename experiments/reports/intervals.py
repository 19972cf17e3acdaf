"""Confidence intervals of 95 % for a share and for a mean.

An interval says how much the value would vary over other puzzles of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.959963984540054  # the standard normal's 97.5 % point
_RESAMPLES = 5000
_BATCH = 500  # resamples in memory at a time


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(successes: float, trials: int) -> Estimate:
    """A share p = k/n with Wilson's score interval (1927).

    The interval is (p + z²/2n ± z·√(p(1 - p)/n + z²/4n²)) / (1 + z²/n). It stays within [0, 1]
    and is not empty at 0 and 1. If a trial gives a fraction of a success (the mean of several
    seeds), the interval is wider than needed, never narrower: the variance of a variable in [0, 1]
    with mean p is at most p(1 - p).

    Args:
        successes: k, from 0 to `trials`; fractions are allowed.
        trials: n, at least 1.

    Raises:
        ValueError: there are no trials, or `successes` is out of its bounds.
    """
    if not trials or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials have no interval")
    share, weight = successes / trials, _Z**2 / trials
    middle = share + weight / 2
    reach = _Z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    low, high = ((middle + way * reach) / (1 + weight) for way in (-1, 1))
    return Estimate(share, min(max(low, 0.0), share), max(min(high, 1.0), share))


def bootstrap(values: Sequence[float]) -> Estimate:
    """A mean with the percentile interval of 5,000 bootstrap resamples (Efron, 1979).

    The resampling has a fixed seed, so equal values give equal intervals.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("the mean of no values has no interval")
    sample = np.asarray(values, dtype=float)
    rng = np.random.default_rng(0)
    shape = (_BATCH, len(sample))
    batches = (rng.integers(len(sample), size=shape) for _ in range(_RESAMPLES // _BATCH))
    means = [sample[indices].mean(axis=1) for indices in batches]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(sample.mean()), float(low), float(high))
