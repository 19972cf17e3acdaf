"""Run a configuration: search its unfinished puzzles and record the results.

The objects come from `config.prepare`. An exception that one puzzle causes ends that puzzle alone,
whichever part raises it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol, TypeVar

from omegaconf import DictConfig

from treeshare.experiments.results.digests import digest_of
from treeshare.experiments.results.directory import RunDirectory, exclusive, set_aside
from treeshare.experiments.results.meta import changed
from treeshare.experiments.results.rows import FailedSearch, Row, Session, check_results
from treeshare.experiments.results.shards import adopt_shards, shard_directories
from treeshare.experiments.results.summary import (
    Summary,
    Tally,
    Totals,
    replayed,
    resource_kinds,
    search_limits,
)
from treeshare.llm_backend.api import Engine
from treeshare.llm_backend.engines.replay import ReplayEngine
from treeshare.search.context import Context
from treeshare.search.parts import Policy
from treeshare.search.scheduler import Outcome, Scheduler
from treeshare.tasks.task import Problem

from .config import Setup, explained, prepare, resources_of
from .failures import failure_of
from .gc_tuning import rare_collections
from .marking import recounted, row_of, tree_of
from .progress import Progress


def run_or_resume(cfg: DictConfig) -> Summary:
    """Run a composed configuration; puzzles that an earlier run finished are not searched again.

    Raises:
        SetupError: it cannot be run, or its files cannot be read or written.
    """
    setup = prepare(cfg)
    if setup.options.verbose:
        logging.getLogger("treeshare").setLevel(logging.DEBUG)
    return resume(setup)


def resume(setup: Setup, on_result: OnResult | None = None) -> Summary:
    """Search the puzzles of a run that have no row in its directory yet.

    Args:
        setup: the run; `setup.load_engine` is called unless every puzzle has a row.
        on_result: called with each new row and its search's outcome, after both are on disk.

    Raises:
        SetupError: it cannot be run, or its files cannot be read or written.
    """
    with explained(errors=(MemoryError, OSError)):
        if (shown := _shown(setup)) is not None:
            return shown
        with exclusive(setup.directory), ExitStack() as stack:
            return _resume(setup, stack, on_result)


def _shown(setup: Setup) -> Summary | None:
    """Sum up a finished run, without a lock, and without writing anything."""
    writes_files = setup.options.overwrite or setup.logger.logs_finished
    if writes_files or not setup.directory.is_dir():
        return None
    with _opened(setup, writable=False) as directory:
        return None if _unfinished(setup, directory) else _finished(setup, directory)


def _resume(setup: Setup, stack: ExitStack, on_result: OnResult | None) -> Summary:
    """Do what is left of a run whose directory is locked; `stack` closes what it opens."""
    directory = None
    if setup.options.overwrite:
        for shard in shard_directories(setup.directory):
            stack.enter_context(exclusive(shard))
    elif setup.directory.is_dir():
        directory = stack.enter_context(_opened(setup))
        num_adopted = _adopted(setup, directory)
        if not _unfinished(setup, directory):
            return _finished(setup, directory, num_adopted)
    num_left = len(_unfinished(setup, directory)) if directory else len(setup.problems)
    progress = stack.enter_context(Progress(setup, len(setup.problems) - num_left))
    with progress.loading():
        engine = setup.load_engine()
    stack.callback(lambda: engine.close())  # looked up late: a recorder may replace `engine`
    progress.show_engine(engine)
    if directory is None:
        set_aside(setup.directory)
        setup.directory.mkdir()
        directory = stack.enter_context(_opened(setup))
    if setup.options.record:
        with explained("record"):
            engine = ReplayEngine(directory.path / "requests.jsonl", engine)
    directory.describe(setup.config, setup.meta)
    directory.failures.clear()
    search = partial(search_unfinished, setup, engine, directory, progress, on_result)
    return _logged(setup, directory, search)


def _opened(setup: Setup, *, writable: bool = True) -> closing[RunDirectory]:
    """Open the run's directory and check it against the configuration.

    Raises:
        SetupError: another process uses it, it cannot be read, or it belongs to another run.
    """
    with explained():
        directory = RunDirectory(setup.directory, writable=writable)
        try:
            _check(setup, directory)
        except BaseException:
            directory.close()
            raise
        return closing(directory)


def _check(setup: Setup, directory: RunDirectory) -> None:
    directory.check(setup.meta)
    path, rows = directory.results.path, directory.results.rows
    check_results(path, rows, seed=setup.options.seed, oracle=setup.is_oracle)
    data = {problem.id: problem.data for problem in setup.problems}
    for number, row in enumerate(rows, start=1):
        if row.problem in data and row.digest not in ("", digest_of(data[row.problem])):
            raise ValueError(f"{path}:{number} {changed(f'the data of {row.problem!r}')}")


def _unfinished(setup: Setup, directory: RunRecord) -> list[Problem]:
    done = {row.problem for row in directory.results.rows}
    return [problem for problem in setup.problems if problem.id not in done]


def counted_rows(setup: Setup, rows: Iterable[Row]) -> list[Row]:
    """The rows of the puzzles that are asked for, as they are with the run's number of answers."""
    problems = {problem.id: problem for problem in setup.problems}
    with explained():
        return [
            recounted(setup, problems[row.problem], row) for row in rows if row.problem in problems
        ]


def _adopted(setup: Setup, directory: RunDirectory) -> int:
    """Take in the rows of the run's shards that are not at work, and count them."""
    with explained():
        if not shard_directories(directory.path):
            return 0
        directory.describe(setup.config, setup.meta)
        return adopt_shards(directory, lambda shard: _check(setup, shard))


def _finished(setup: Setup, directory: RunDirectory, num_adopted: int = 0) -> Summary:
    """Sum up a run of which nothing is left to search."""
    note = "already finished: nothing was run"
    if num_adopted:
        note = f"{num_adopted:,} puzzles were taken from shards: nothing was run"
    if setup.logger.logs_finished:
        return _logged(setup, directory, None, note)
    return _summary(setup, directory, counted_rows(setup, directory.results.rows), note)


def _logged(
    setup: Setup,
    directory: RunDirectory,
    search: Callable[[list[Row]], None] | None,
    note: str = "",
) -> Summary:
    """Search, and send the results to the logger.

    Args:
        setup: the run.
        directory: its files.
        search: searches the unfinished puzzles, and appends their rows to those that it is given;
            None sends the rows on disk alone.
        note: a line of the summary.
    """
    rows = counted_rows(setup, directory.results.rows)
    with explained("logger"):
        setup.logger.start(directory.path, setup.title, setup.config)
    summary = None
    try:
        if search is None or setup.logger.replays:
            counted = {row.problem: row for row in rows}
            for row, totals in replayed(directory.results.rows, directory.sessions.rows, counted):
                setup.logger.puzzle(row, totals)
        if search is not None:
            search(rows)
        summary = _summary(setup, directory, rows, note)
    finally:
        setup.logger.finish(summary)
    return summary


OnResult = Callable[[Row, Outcome], None]


class RunRecord(Protocol):
    """Where the rows of a run are written: a `RunDirectory`, or a list in memory."""

    @property
    def results(self) -> RowList[Row]:
        """The rows of the finished puzzles."""
        ...

    @property
    def failures(self) -> RowList[FailedSearch]:
        """The puzzles that failed."""
        ...

    @property
    def sessions(self) -> RowList[Session]:
        """The counters of each process."""
        ...

    def save_tree(self, problem_id: str, tree: str) -> None:
        """Keep the tree of one puzzle, as node-link JSON."""
        ...


RowType = TypeVar("RowType", Row, FailedSearch, Session)


class RowList(Protocol[RowType]):
    """Rows that can be read, and appended to."""

    @property
    def rows(self) -> list[RowType]:
        """The rows so far, in the order in which they were appended."""
        ...

    def append(self, row: RowType) -> None:
        """Add a row at the end."""
        ...


class _FirstFailure(Exception):
    """Ends the searches if `fail_fast` is set."""


@rare_collections()
def search_unfinished(
    setup: Setup,
    engine: Engine,
    directory: RunRecord,
    progress: Progress,
    on_result: OnResult | None,
    rows: list[Row],
) -> None:
    """Search the puzzles that have no row yet.

    Every puzzle that ended is in the record, even if the process is killed.

    Args:
        setup: the run.
        engine: serves the requests; it is left open.
        directory: where rows, failures, sessions and trees are written.
        progress: shows how far the run is.
        on_result: called with each new row and its search's outcome.
        rows: those that count so far; the new ones are appended.
    """
    todo = {problem.id: problem for problem in _unfinished(setup, directory)}
    scheduler = Scheduler(engine, max_live=setup.options.max_live)
    sessions = directory.sessions.rows
    number = 1 + max((session.number for session in sessions), default=0)
    began = time.monotonic()
    tally = Tally()
    for session in sessions:
        tally.add_session(session)
    for row in rows:
        tally.add_row(row)
    resources = resources_of(setup, engine)

    def note_session() -> None:
        session = Session(
            number=number,
            requests=scheduler.requests,
            rounds=scheduler.rounds,
            seconds=time.monotonic() - began,
            engine=asdict(engine.stats()),
            memo_hits=setup.memo_hits,
            num_rows=len(directory.results.rows),
            scoring_failures=setup.scoring_failures,
            resources=resources,
        )
        directory.sessions.append(session)
        tally.add_session(session)

    def fail(problem_id: str, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise error
        failure = failure_of(problem_id, error)
        directory.failures.append(failure)
        setup.logger.failure(failure)
        progress.add_failure(failure)
        if setup.options.fail_fast:
            raise _FirstFailure

    def searches() -> Iterator[tuple[Policy, Context]]:
        for problem in todo.values():
            try:
                context = setup.context(problem)
            except BaseException as error:
                fail(problem.id, error)
            else:
                yield setup.policy, context

    def marked(outcome: Outcome) -> tuple[Row, str | None] | None:
        """The row and the tree; None if the puzzle failed."""
        if outcome.error is not None:
            fail(outcome.problem_id, outcome.error)
            return None
        try:
            row = row_of(setup, todo[outcome.problem_id], outcome, number)
            return row, tree_of(row, outcome) if setup.options.save_trees else None
        except BaseException as error:
            fail(outcome.problem_id, error)
            return None

    with progress.searching(scheduler):
        try:
            for outcome in scheduler.run(searches()):
                progress.end_search()
                ended = marked(outcome)
                note_session()
                if ended is None:
                    continue
                row, tree = ended
                if tree is not None:
                    directory.save_tree(row.problem, tree)
                directory.results.append(row)
                rows.append(row)
                tally.add_row(row)
                totals = tally.totals()
                setup.logger.puzzle(row, totals)
                progress.add(totals)
                if on_result is not None:
                    on_result(row, outcome)
        except _FirstFailure:
            pass
        finally:
            note_session()


def _summary(setup: Setup, directory: RunDirectory, rows: list[Row], note: str) -> Summary:
    asked = {problem.id for problem in setup.problems}
    paths = [directory.tree_path(row.problem) for row in rows]
    trees = [path for path in paths if path.exists()]
    return Summary(
        title=setup.title,
        directory=directory.path,
        num_problems=len(setup.problems),
        num_answers=setup.options.answers,
        rows=rows,
        failures=[failure for failure in directory.failures.rows if failure.problem in asked],
        totals=Totals.of(rows, directory.sessions.rows),
        trees=trees,
        num_missing_trees=len(rows) - len(trees) if setup.options.save_trees else 0,
        num_others=len(directory.results.rows) - len(rows),
        resources=resource_kinds(rows, directory.sessions.rows),
        chat=next((s.resources.get("chat", "") for s in directory.sessions.rows[-1:]), ""),
        note=note,
        search_limits=_limits_to_raise(setup, rows),
    )


def _limits_to_raise(setup: Setup, rows: list[Row]) -> dict[str, Any]:
    """What bounds a search, if no search reached a terminal state."""
    if not rows or any(row.reached_terminal for row in rows):
        return {}
    problem = next(problem for problem in setup.problems if problem.id == rows[0].problem)
    depth = setup.context(problem).depth
    return search_limits(setup.policy, setup.expander, setup.task.sampling, depth)
