"""Confidence intervals of 95 %: of a share, and of a mean.

Knows no runs. An interval says how much the figure would vary over other puzzles of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.959963984540054  # the standard normal's 97.5 % point
_RESAMPLES = 5000


@dataclass(frozen=True, slots=True)
class Estimate:
    value: float
    low: float
    high: float


def wilson(successes: float, trials: int) -> Estimate:
    """A share p = k/n with Wilson's score interval (1927), which never leaves [0, 1] and is not
    empty at 0 and 1: (p + z²/2n ± z·√(p(1 - p)/n + z²/4n²)) / (1 + z²/n).

    Where each trial gives a share of a success (the mean of several seeds) the interval is too
    wide rather than too narrow: no variable in [0, 1] of mean p varies more than p(1 - p).

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    if not trials or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials have no interval")
    share, weight = successes / trials, _Z**2 / trials
    middle = share + weight / 2
    reach = _Z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    low, high = ((middle + way * reach) / (1 + weight) for way in (-1, 1))
    return Estimate(share, min(max(low, 0.0), share), max(min(high, 1.0), share))


def bootstrap(values: Sequence[float]) -> Estimate:
    """A mean with the percentile interval of 5,000 resamples (Efron, 1979), always the same ones.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("the mean of no values has no interval")
    sample = np.asarray(values, dtype=float)
    rng = np.random.default_rng(0)
    means = [sample[rng.integers(len(sample), size=len(sample))].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(sample.mean()), float(low), float(high))
