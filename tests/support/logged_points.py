"""The points that a logger must have sent for the rows of a run."""

import pytest

from treeshare.experiments.loggers.metrics import Metrics
from treeshare.experiments.results.summary import replayed


def expected_points(rows, sessions):
    """By metric, the number of puzzles and the value of each point."""
    metrics, found = Metrics(), {}
    for row, totals in replayed(rows, sessions):
        for name, value in metrics.of_puzzle(row, totals).items():
            found.setdefault(name, []).append((totals.puzzles, pytest.approx(value)))
    return found
