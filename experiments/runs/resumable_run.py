"""Run a configuration: search its unfinished puzzles and record the results.

The objects come from `config.prepare`. An exception that one puzzle causes ends that puzzle alone,
whichever part raises it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Protocol, TypeVar

from omegaconf import DictConfig

from treeshare.experiments.results.digests import Digests, digests_of
from treeshare.experiments.results.directory import RunDirectory
from treeshare.experiments.results.rows import FailedSearch, Row, Session, check_results
from treeshare.experiments.results.summary import Summary, Tally, Totals, replayed
from treeshare.llm_backend.api import Engine
from treeshare.llm_backend.engines.replay import ReplayEngine
from treeshare.search.context import Context
from treeshare.search.parts import Policy
from treeshare.search.scheduler import Outcome, Scheduler
from treeshare.tasks.task import Problem

from .config import Setup, explained, prepare
from .failures import failure_of
from .gc_tuning import rare_collections
from .marking import row_of, tree_of
from .progress import progress_bar, update_bar
from .startup_status import StartupStatus


def run_or_resume(cfg: DictConfig) -> Summary:
    """Run a composed configuration; puzzles that an earlier run finished are not searched again.

    Raises:
        SetupError: it cannot be run, or its files cannot be read or written.
    """
    return resume(prepare(cfg))


def resume(setup: Setup, on_result: OnResult | None = None) -> Summary:
    """Search the puzzles of a run that have no row in its directory yet.

    Args:
        setup: the run; `setup.load_engine` is called unless every puzzle has a row.
        on_result: called with each new row and its search's outcome, after both are on disk.

    Raises:
        SetupError: it cannot be run, or its files cannot be read or written.
    """
    with explained(errors=(OSError,)), ExitStack() as stack:
        digests = digests_of(setup.config, setup.problems)
        directory = None
        if setup.directory.is_dir():
            with _opened(setup, digests, writable=False) as there:
                if not _unfinished(setup, there):
                    return _summary(setup, there)
            directory = stack.enter_context(_opened(setup, digests))
        num_done = len(directory.results.rows) if directory else 0
        with progress_bar(setup, num_done, "loading the engine") as bar, StartupStatus(bar):
            engine = setup.load_engine()
        stack.callback(lambda: engine.close())  # looked up late: a recorder may replace `engine`
        if directory is None:
            setup.directory.mkdir(parents=True)
            directory = stack.enter_context(_opened(setup, digests))
        if setup.options.record:
            with explained("record"):
                engine = ReplayEngine(directory.path / "requests.jsonl", engine)
        return _work(setup, engine, directory, digests, on_result)


def _opened(setup: Setup, digests: Digests, *, writable: bool = True) -> closing[RunDirectory]:
    """Open the run's directory and check it against the configuration.

    Raises:
        SetupError: another process uses it, it cannot be read, or it belongs to another run.
    """
    with explained():
        directory = RunDirectory(setup.directory, writable=writable)
        try:
            _check(setup, directory, digests)
        except BaseException:
            directory.close()
            raise
        return closing(directory)


def _check(setup: Setup, directory: RunDirectory, digests: Digests) -> None:
    rows = directory.results.rows
    ids = {problem.id for problem in setup.problems}
    for number, row in enumerate(rows, start=1):
        if row.problem not in ids:
            raise ValueError(
                f"{directory.results.path}:{number} holds {row.problem!r}, which is no problem of "
                "the task: its file has changed; move the directory away"
            )
    check_results(directory.results.path, rows, seed=setup.options.seed, oracle=setup.is_oracle)
    directory.check_digests(digests)


def _unfinished(setup: Setup, directory: RunRecord) -> list[Problem]:
    done = {row.problem for row in directory.results.rows}
    return [problem for problem in setup.problems if problem.id not in done]


def _work(
    setup: Setup,
    engine: Engine,
    directory: RunDirectory,
    digests: Digests,
    on_result: OnResult | None,
) -> Summary:
    """Search the unfinished puzzles and send the results to the logger."""
    directory.describe(setup.config, digests)
    directory.failures.clear()
    with explained("logger"):
        setup.logger.start(directory.path, setup.title, setup.config)
    summary = None
    try:
        if setup.logger.replays:
            for row, totals in replayed(directory.results.rows, directory.sessions.rows):
                setup.logger.puzzle(row, totals)
        search_unfinished(setup, engine, directory, on_result)
        summary = _summary(setup, directory)
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
    setup: Setup, engine: Engine, directory: RunRecord, on_result: OnResult | None = None
) -> None:
    """Search the puzzles that have no row yet.

    Every puzzle that ended is in the record, even if the process is killed.

    Args:
        setup: the run.
        engine: serves the requests; it is left open.
        directory: where rows, failures, sessions and trees are written.
        on_result: called with each new row and its search's outcome.
    """
    todo = {problem.id: problem for problem in _unfinished(setup, directory)}
    scheduler = Scheduler(engine, max_live=setup.options.max_live)
    sessions = directory.sessions.rows
    number = 1 + max((session.number for session in sessions), default=0)
    began = time.monotonic()
    tally = Tally()
    for session in sessions:
        tally.add_session(session)
    for row in directory.results.rows:
        tally.add_row(row)

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
        )
        directory.sessions.append(session)
        tally.add_session(session)

    def fail(problem_id: str, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise error
        directory.failures.append(failure_of(problem_id, error))
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
            row = row_of(setup, todo[outcome.problem_id], outcome)
            return row, tree_of(row, outcome) if setup.options.save_trees else None
        except BaseException as error:
            fail(outcome.problem_id, error)
            return None

    with (
        progress_bar(setup, len(directory.results.rows)) as bar,
        StartupStatus(bar) as status,
    ):
        try:
            for outcome in scheduler.run(searches()):
                status.clear()
                ended = marked(outcome)
                note_session()
                if ended is None:
                    continue
                row, tree = ended
                if tree is not None:
                    directory.save_tree(row.problem, tree)
                directory.results.append(row)
                tally.add_row(row)
                totals = tally.totals()
                setup.logger.puzzle(row, totals)
                update_bar(bar, totals)
                if on_result is not None:
                    on_result(row, outcome)
        except _FirstFailure:
            pass
        finally:
            note_session()


def _summary(setup: Setup, directory: RunDirectory) -> Summary:
    rows = directory.results.rows
    paths = [directory.tree_path(row.problem) for row in rows]
    trees = [path for path in paths if path.exists()]
    return Summary(
        title=setup.title,
        directory=directory.path,
        num_problems=len(setup.problems),
        num_answers=setup.options.answers,
        rows=rows,
        failures=directory.failures.rows,
        totals=Totals.of(rows, directory.sessions.rows),
        trees=trees,
        num_missing_trees=len(rows) - len(trees) if setup.options.save_trees else 0,
    )
