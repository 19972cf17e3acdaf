"""Compare configurations on the puzzles that they have in common.

The values of two configurations on the same puzzle are paired: a hard puzzle is hard for both. A
paired test looks at the puzzles on which they differ, so it finds differences that the intervals of
the two shares do not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from .config_results import ConfigResult, PuzzleMeans
from .intervals import Estimate, bootstrap

_RESAMPLES = 9_999


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two configurations on the puzzles that both have finished.

    Differences are the first's value minus the second's.
    """

    first: ConfigResult
    second: ConfigResult
    puzzles: int  # common ones
    first_better: int  # of these, puzzles on which the first's top-1 is higher
    second_better: int
    top1: Estimate  # difference of the shares
    mean_accuracy: Estimate  # difference of the means
    test: str  # `McNemar` or `sign flips`
    p_value: float  # two-sided, for the hypothesis that top-1 does not differ
    p_holm: float  # corrected for the number of comparisons


def mcnemar(first_better: int, second_better: int) -> float:
    """The two-sided p-value of McNemar's exact test (1947).

    Puzzles on which both are right or both are wrong say nothing. If the two are equally good, each
    of the others is in favour of either with a probability of 1/2.

    Args:
        first_better: the number of puzzles that only the first solves.
        second_better: the number of puzzles that only the second solves.

    Raises:
        ImportError: scipy is not installed.
    """
    num_discordant = first_better + second_better
    if not num_discordant:
        return 1.0
    return float(_stats().binomtest(first_better, num_discordant, 0.5).pvalue)


def sign_flips(differences: Sequence[float], *, resamples: int = _RESAMPLES) -> float:
    """The two-sided p-value of Fisher's randomization test for paired values (1935).

    If the two configurations are equally good on every puzzle, each difference could have had the
    other sign. The test compares the mean difference with those after random changes of signs. For
    differences of -1, 0 and 1 it is McNemar's exact test.

    Args:
        differences: one for each puzzle.
        resamples: the number of random changes of signs; if there are no more ways than this to
            choose the signs, each is tried once. The random numbers have a fixed seed.

    Raises:
        ImportError: scipy is not installed.
    """
    changed = np.array([value for value in differences if value])
    if not len(changed):
        return 1.0
    result = _stats().permutation_test(
        (changed,),
        lambda sample, axis: np.mean(sample, axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        vectorized=True,
        batch=1_000,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of several tests by Holm's method (1979), in the given order.

    The probability that any true hypothesis gets a value of at most 5 % is at most 5 %.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def paired_comparisons(
    results: Sequence[ConfigResult], baseline: str | None = None
) -> tuple[list[PairedComparison], int]:
    """Compare the configurations of each model with each other, or with one of them.

    Args:
        results: the configurations of one task.
        baseline: the label of the configuration that all others are compared with; None compares
            each with each.

    Returns:
        The comparisons, and the number of pairs that have no puzzle in common.

    Raises:
        ImportError: scipy is not installed.
    """
    of_one_model = [pair for pair in combinations(results, 2) if pair[0].model == pair[1].model]
    if baseline is not None:
        ordered = [sorted(pair, key=lambda one: one.label == baseline) for pair in of_one_model]
        of_one_model = [(one, other) for one, other in ordered if other.label == baseline]
    made = [_compared(first, second) for first, second in of_one_model]
    pairs = [pair for pair in made if pair is not None]
    corrected = holm([pair.p_value for pair in pairs])
    pairs = [replace(pair, p_holm=p) for pair, p in zip(pairs, corrected, strict=True)]
    return pairs, len(made) - len(pairs)


def _compared(first: ConfigResult, second: ConfigResult) -> PairedComparison | None:
    """Compare two configurations; None if they have no puzzle in common."""
    common = list(_common(first, second))
    if not common:
        return None
    differences = [one.top1 - other.top1 for one, other in common]
    first_better = sum(value > 0 for value in differences)
    second_better = sum(value < 0 for value in differences)
    is_binary = all(means.top1 in (0, 1) for pair in common for means in pair)
    p = mcnemar(first_better, second_better) if is_binary else sign_flips(differences)
    return PairedComparison(
        first=first,
        second=second,
        puzzles=len(common),
        first_better=first_better,
        second_better=second_better,
        top1=bootstrap(differences),
        mean_accuracy=bootstrap([one.mean_accuracy - other.mean_accuracy for one, other in common]),
        test="McNemar" if is_binary else "sign flips",
        p_value=p,
        p_holm=p,
    )


def _common(first: ConfigResult, second: ConfigResult) -> Iterator[tuple[PuzzleMeans, PuzzleMeans]]:
    for puzzle, means in first.puzzles.items():
        other = second.puzzles.get(puzzle)
        if other is not None and means.is_of(other):
            yield means, other


def _stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError('paired tests need `pip install "treeshare[report]"`') from error
    return stats
