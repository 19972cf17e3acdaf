"""Paired tests against values of the literature and under a true null hypothesis."""

import sys

import numpy as np
import pytest
from config_results import result

from treeshare.experiments.reports.config_results import PuzzleMeans
from treeshare.experiments.reports.paired_tests import (
    holm,
    mcnemar,
    paired_comparisons,
    sign_flips,
)

pytest.importorskip("scipy", reason="needs the extra `report`")

# Fisher, The Design of Experiments (1935), section 17: the differences in height of 15 pairs of
# plants of Darwin's, in eighths of an inch. 1,726 of the 2^15 changes of signs are as extreme.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (1, 7, 0.0703),  # Fagerland, Lydersen and Laake (2013), tables 2 and 5
        (6, 16, 0.0525),  # the same, tables 3 and 5
        (86, 150, 3.716e-05),  # Agresti, Categorical Data Analysis: ratings of a prime minister
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 2 / 2**5),
    ],
)
def test_mcnemars_exact_test(first, second, p):
    assert mcnemar(first, second) == pytest.approx(p, rel=2e-3)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_sign_flips_of_darwins_plants():
    assert sign_flips(DARWIN, resamples=2**15) == pytest.approx(1726 / 2**15)
    assert sign_flips(DARWIN) == pytest.approx(1726 / 2**15, abs=0.005)
    assert sign_flips(DARWIN) == sign_flips(DARWIN)


@pytest.mark.parametrize(("first", "second"), [(1, 7), (0, 4), (3, 3), (9, 2), (0, 0)])
def test_sign_flips_are_mcnemars_test_for_single_seeds(first, second):
    differences = [1.0] * first + [-1.0] * second + [0.0] * 10
    assert sign_flips(differences) == pytest.approx(mcnemar(first, second))


def test_holms_correction():
    # Holm's method by hand: 4 * 0.01, 3 * 0.02, then the largest so far
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def share_rejected(values, test, num_runs):
    rng = np.random.default_rng(0)
    return np.mean([test(values(rng)) <= 0.05 for _ in range(num_runs)])


def single_seeds(rng, num_puzzles=60):
    """Differences of two equally good configurations; puzzles differ in difficulty."""
    chance = rng.beta(0.7, 0.7, num_puzzles)
    return (rng.random(num_puzzles) < chance) * 1.0 - (rng.random(num_puzzles) < chance)


def several_seeds(rng, num_puzzles=60, num_seeds=3):
    """Single differences by puzzle and seed.

    Both are equally good on average, but each is better on some of the puzzles.
    """
    first, second = rng.beta(0.7, 0.7, (2, num_puzzles, 1))
    draws = rng.random((2, num_puzzles, num_seeds))
    return (draws[0] < first) * 1.0 - (draws[1] < second)


def mcnemar_of(differences):
    return mcnemar(int((differences > 0).sum()), int((differences < 0).sum()))


def test_the_exact_test_rejects_a_true_hypothesis_in_at_most_5_percent():
    assert 0.01 < share_rejected(single_seeds, mcnemar_of, 2_000) < 0.055


def test_seeds_of_one_puzzle_are_no_puzzles_of_their_own():
    """Means over seeds keep the size of 5 %. Pairs of (puzzle, seed) would exceed it."""

    def means(differences):
        return sign_flips(differences.mean(axis=1), resamples=499)

    assert 0.03 < share_rejected(several_seeds, means, 600) < 0.07
    assert share_rejected(several_seeds, mcnemar_of, 600) > 0.1


def test_comparison_counts_common_puzzles_and_discordant_pairs():
    first = result("tot_bfs", top1=[1, 1, 1, 0, 1, 0])
    second = result("cot", top1=[1, 0, 0, 1, 0])
    ((pair,), num_without) = paired_comparisons([first, second])
    assert (pair.puzzles, pair.first_better, pair.second_better, num_without) == (5, 3, 1, 0)
    assert (pair.test, pair.p_value) == ("McNemar", mcnemar(3, 1))
    assert pair.top1.value == pytest.approx(2 / 5) and pair.top1.low < 2 / 5 < pair.top1.high
    assert pair.mean_accuracy == pair.top1  # the helper gives both the same values


def test_several_seeds_are_compared_by_their_means():
    first, second = result("a", top1=[1, 2 / 3, 1 / 3]), result("b", top1=[0, 1 / 3, 2 / 3])
    ((pair,), _) = paired_comparisons([first, second])
    assert pair.test == "sign flips"
    assert pair.p_value == pytest.approx(sign_flips([1, 1 / 3, -1 / 3]))
    assert (pair.first_better, pair.second_better) == (2, 1)


def test_pairs_are_of_one_model_and_have_puzzles_in_common():
    results = [result("a"), result("b"), result("c", model="other"), result("d", top1=[1])]
    results[3] = result("d", puzzles={"q": PuzzleMeans(1, 1)})
    pairs, num_without = paired_comparisons(results)
    assert [(pair.first.name, pair.second.name) for pair in pairs] == [("a", "b")]
    assert num_without == 2  # a and b with d


def test_puzzles_of_other_data_are_not_common():
    def of(*digests):
        puzzles = [PuzzleMeans(1, 1, frozenset(d)) for d in digests]
        return result(puzzles={f"p{i}": puzzle for i, puzzle in enumerate(puzzles)})

    ((pair,), _) = paired_comparisons([of("a", "b", "", "d"), of("a", "x", "c", "")])
    assert pair.puzzles == 3  # all but p1; an unknown digest may be of the same data


def test_all_are_compared_with_the_baseline():
    results = [result("a"), result("b", parameters={"width": "2"}), result("c")]
    pairs, _ = paired_comparisons(results, "b width=2")
    assert [(pair.first.label, pair.second.label) for pair in pairs] == [
        ("a", "b width=2"),
        ("c", "b width=2"),
    ]
    assert paired_comparisons(results, "none") == ([], 0)


def test_p_values_are_corrected_over_all_pairs():
    results = [result(name, top1=top1) for name, top1 in (("a", [1] * 9), ("b", [0] * 9))]
    pairs, _ = paired_comparisons([*results, result("c", top1=[0] * 9)])
    assert [pair.p_value for pair in pairs] == [2 / 2**9, 2 / 2**9, 1]
    assert [pair.p_holm for pair in pairs] == [6 / 2**9, 6 / 2**9, 1]


def test_without_scipy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"pip install \"treeshare\[report\]\""):
        mcnemar(1, 2)
