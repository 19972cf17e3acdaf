"""One run of the command: searches what is unfinished, and keeps the record of it.

The configuration says what is searched, and with what (setup.py); one puzzle's error ends that
puzzle alone, whichever part of it raises.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from tqdm import tqdm

from treeshare.experiments.results.digests import Digests, digests_of
from treeshare.experiments.results.directory import RunDirectory
from treeshare.experiments.results.rows import Row, Session, check_results
from treeshare.experiments.results.summary import Summary, Tally, Totals, replayed
from treeshare.llm_backend.api import Engine
from treeshare.llm_backend.engines.replay import ReplayEngine
from treeshare.search.context import Context, Policy
from treeshare.search.scheduler import Outcome, Scheduler
from treeshare.tasks.task import Problem

from .command import complain, show
from .config import Setup, explained, keep_given_keys, prepare
from .failures import failure_of
from .gc_tuning import rare_collections
from .marking import row_of, tree_of
from .startup_status import StartupStatus


def launch(cfg: DictConfig, finished: list[tuple[list[str], Summary]]) -> int:
    """One job of the command line; a multirun has several. Added to `finished` if it ran.

    Returns:
        0; 1 if a puzzle failed.

    Raises:
        SetupError: it cannot be run.
    """
    hydra_cfg = HydraConfig.get()
    overrides = list(hydra_cfg.overrides.task)
    keep_given_keys(cfg, overrides)
    if not any(text.startswith("search._target_=") for text in overrides):
        cfg.name = cfg.name or hydra_cfg.runtime.choices.search
    summary = run_or_resume(cfg)
    if hydra_cfg.mode == RunMode.MULTIRUN:
        show(f"\n{' '.join(overrides)}")
    show(summary.table())
    finished.append((overrides, summary))
    return complain("treeshare", summary.failure_line(), 1) if summary.failures else 0


def run_or_resume(cfg: DictConfig) -> Summary:
    """Run a composed configuration, or the rest of it if it was run before.

    Raises:
        SetupError: it cannot be run, or its files cannot be read or written.
    """
    setup = prepare(cfg)
    with explained(errors=(OSError,)), ExitStack() as stack:
        digests = digests_of(setup.config, setup.problems)
        directory = None
        if setup.directory.is_dir():
            with _opened(setup, digests, writable=False) as there:
                if not _unfinished(setup, there):
                    return _summary(setup, there)
            directory = stack.enter_context(_opened(setup, digests))
        num_done = len(directory.results.rows) if directory else 0
        with _progress_bar(setup, num_done, "loading the engine") as bar, StartupStatus(bar):
            engine = setup.load_engine()
        stack.callback(lambda: engine.close())  # or that of the recorder around it
        if directory is None:
            setup.directory.mkdir(parents=True)
            directory = stack.enter_context(_opened(setup, digests))
        if setup.options.record:
            with explained("record"):
                engine = ReplayEngine(directory.path / "requests.jsonl", engine)
        return _work(setup, engine, directory, digests)


def _opened(setup: Setup, digests: Digests, *, writable: bool = True) -> closing[RunDirectory]:
    """The run's directory, checked against the configuration.

    Raises:
        SetupError: it is another process's, cannot be read, or is of another run.
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


def _unfinished(setup: Setup, directory: RunDirectory) -> list[Problem]:
    done = {row.problem for row in directory.results.rows}
    return [problem for problem in setup.problems if problem.id not in done]


def _work(setup: Setup, engine: Engine, directory: RunDirectory, digests: Digests) -> Summary:
    """Search what is unfinished, and keep the logger informed."""
    directory.describe(setup.config, digests)
    directory.failures.clear()
    with explained("logger"):
        setup.logger.start(directory.path, setup.title, setup.config)
    summary = None
    try:
        if setup.logger.replays:
            for row, totals in replayed(directory.results.rows, directory.sessions.rows):
                setup.logger.puzzle(row, totals)
        _search(setup, engine, directory)
        summary = _summary(setup, directory)
    finally:
        setup.logger.finish(summary)
    return summary


class _FirstFailure(Exception):
    """Ends the searches where `fail_fast` is set."""


@rare_collections()
def _search(setup: Setup, engine: Engine, directory: RunDirectory) -> None:
    """Search what is unfinished. Whenever this is killed, every puzzle that ended is on disk."""
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
        _progress_bar(setup, len(directory.results.rows)) as bar,
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
                _show(bar, totals)
        except _FirstFailure:
            pass
        finally:
            note_session()


def _progress_bar(setup: Setup, num_done: int, status: str | None = None) -> tqdm[Any]:
    """A bar, shown on a terminal only; one with a status is gone when it is closed."""
    return tqdm(
        desc=status,
        leave=status is None,
        total=len(setup.problems),
        initial=num_done,
        unit="puzzle",
        disable=None if setup.options.progress else True,
    )


def _show(bar: tqdm[Any], totals: Totals) -> None:
    bar.set_postfix_str(
        f"top-1 {totals.top1:.1%}, {totals.tokens_per_second:.0f} tokens/s, "
        f"batch {totals.requests_per_round:.1f}",
        refresh=False,
    )
    bar.update()


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
