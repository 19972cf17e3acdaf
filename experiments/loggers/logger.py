"""The interface of a logger, which sends the results of a run to another place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from treeshare.experiments.results.rows import FailedSearch, Row
from treeshare.experiments.results.summary import Summary, Totals


class Logger(Protocol):
    """Gets the results of a run while it goes on.

    All rows of a run are given to the logger each time: a resumed run first calls `puzzle` for the
    rows on disk, and a finished run for all of them.
    """

    replays: bool
    """Whether a resumed run first calls `puzzle` for every puzzle that is on disk."""

    logs_finished: bool
    """Whether a run that is already finished is logged from its rows."""

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

    def failure(self, failure: FailedSearch) -> None:
        """Log a puzzle that failed in this process.

        Args:
            failure: the puzzle's row of failures.jsonl.
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
    logs_finished = False

    def start(self, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        """Do nothing."""

    def puzzle(self, row: Row, totals: Totals) -> None:
        """Do nothing."""

    def failure(self, failure: FailedSearch) -> None:
        """Do nothing."""

    def finish(self, summary: Summary | None) -> None:
        """Do nothing."""


class SafeLogger:
    """Wraps a logger so that its errors do not end a run.

    The rows are on disk, so nothing is lost: the first error is logged as a warning, the rest of
    the run is not sent, and the same command sends it later. An error in `start` is raised, as no
    search has begun yet.

    Args:
        logger: the logger. `failure` and `logs_finished` may be missing, because a user's logger
            may be written for version 0.1.0.
        locate: returns the line of code that an error came from, for the warning.
    """

    def __init__(
        self, logger: Logger, locate: Callable[[BaseException], str] | None = None
    ) -> None:
        self._logger = logger
        self._locate = locate
        self._has_failed = False
        self.replays = logger.replays
        self.logs_finished: bool = getattr(logger, "logs_finished", False)

    def start(self, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        """Begin a run.

        Raises:
            Exception: whatever the logger raises.
        """
        self._has_failed = False
        self._logger.start(directory, title, config)

    def puzzle(self, row: Row, totals: Totals) -> None:
        """Log a finished puzzle, unless the logger has failed."""
        if not self._has_failed:
            self._attempt(self._logger.puzzle, row, totals)

    def failure(self, failure: FailedSearch) -> None:
        """Log a failed puzzle, unless the logger has failed or takes none."""
        if not self._has_failed and hasattr(self._logger, "failure"):
            self._attempt(self._logger.failure, failure)

    def finish(self, summary: Summary | None) -> None:
        """End the run; as failed, if the logger has failed."""
        self._attempt(self._logger.finish, None if self._has_failed else summary)

    def _attempt(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:
            if not self._has_failed:
                message = next(iter(str(error).splitlines()), "")
                where = f"{self._locate(error)}: " if self._locate is not None else ""
                logging.getLogger(__name__).warning(
                    "%s failed and the rest of the run is not sent: %s; the rows are on disk, and "
                    "the same command sends them again",
                    type(self._logger).__name__,
                    f"{where}{type(error).__name__}: {message}",
                )
            self._has_failed = True
