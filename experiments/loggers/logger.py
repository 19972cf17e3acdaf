"""The interface of a logger, which sends the results of a run to another place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from treeshare.experiments.results.rows import Row
from treeshare.experiments.results.summary import Summary, Totals


class Logger(Protocol):
    """Gets the results of a run while it goes on."""

    replays: bool
    """Whether a resumed run first calls `puzzle` for every puzzle that is on disk."""

    def start(self, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        """Begin a run, before its first search.

        Args:
            directory: the run's directory; its name is unique to the run.
            title: task, policy, model and seed in one line.
            config: the whole configuration.
        """
        ...

    def puzzle(self, row: Row, totals: Totals) -> None:
        """Log a finished puzzle.

        Args:
            row: the puzzle's row.
            totals: the totals of the run, this puzzle included.
        """
        ...

    def finish(self, summary: Summary | None) -> None:
        """End the run.

        Args:
            summary: the run's results; None if it was interrupted or an exception ended it.
        """
        ...


class NoLogger:
    """Logs nothing beyond the run's directory."""

    replays = False

    def start(self, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        """Do nothing."""

    def puzzle(self, row: Row, totals: Totals) -> None:
        """Do nothing."""

    def finish(self, summary: Summary | None) -> None:
        """Do nothing."""
