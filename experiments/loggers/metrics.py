"""The metrics that all loggers send, under the same names.

A point is sent for every puzzle that ends. docs/wandb.md explains each metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from treeshare.experiments.results.rows import Row
from treeshare.experiments.results.summary import Totals

STEP = "puzzles"
"""The metric that the others are drawn over: the number of finished puzzles."""

OTHER_AXES = ("completion_tokens", "seconds")
"""Metrics that never fall, which a user may choose to draw the others over."""

PUZZLE = "puzzle/"
"""Precedes the metrics of one puzzle; the others are of the run so far."""

_NO_METRICS = {"oracle", "seed", "session"}  # numbers of a row that are the same or arbitrary


class Metrics:
    """The metrics of one run."""

    def __init__(self) -> None:
        self.num_puzzles = 0  # finished
        self.num_failed = 0  # in this process

    def of_puzzle(self, row: Row, totals: Totals) -> dict[str, float]:
        """The metrics of the run so far, and those of the puzzle that has ended."""
        self.num_puzzles = totals.puzzles
        numbers = _numbers(asdict(row))
        own = {f"{PUZZLE}{name}": numbers[name] for name in numbers if name not in _NO_METRICS}
        return self.of_run(totals) | own

    def of_failure(self) -> dict[str, float]:
        """The metrics that change when a puzzle fails."""
        self.num_failed += 1
        return {"failed": self.num_failed}

    def of_run(self, totals: Totals) -> dict[str, float]:
        """The metrics of the run so far."""
        return {
            **_numbers(asdict(totals)),
            "tokens": totals.prompt_tokens + totals.completion_tokens,
            "nodes_per_second": totals.nodes / totals.seconds if totals.seconds else 0.0,
            "failed": self.num_failed,
        }


def _numbers(fields: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among the fields; those of a mapping as `field/key`, truth values as 0 and 1."""
    numbers: dict[str, float] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            numbers |= {f"{name}/{key}": number for key, number in _numbers(value).items()}
        elif isinstance(value, int | float):
            numbers[name] = int(value) if isinstance(value, bool) else value
    return numbers
