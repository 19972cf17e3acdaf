"""Run an experiment: `treeshare search=tot_bfs task.limit=5`, resumed by the same command.

Drives the searches and keeps the record; what is searched, and with what, is the configuration's
affair. `treeshare` starts it.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from tqdm import tqdm

from ..llm_backend.api import Engine
from ..llm_backend.replay import ReplayEngine
from ..search.scheduler import Outcome, Scheduler
from ..tasks.task import HasGrades, Problem
from .collector import rare_collections
from .command import complain, run_command
from .openmp import set_wait_policy
from .record import FailedSearch, Row, RunDirectory, Session
from .report import Summary, Totals, comparison
from .setup import Setup, SetupError, explained, keep_given_keys, prepare
from .startup_status import StartupStatus


def main() -> int:
    """The console command.

    Returns:
        0; 1 if a puzzle failed; 2 for a configuration that cannot be run; 130 if interrupted.
    """
    sys.path.append(os.getcwd())  # the user's own policies; last, so that they shadow nothing
    set_wait_policy()
    finished: list[tuple[list[str], Summary]] = []  # jobs, by their overrides
    code = run_command("treeshare", "config", lambda cfg: _launch(cfg, finished))
    if len(finished) > 1:
        print(f"\n{comparison(finished)}")
    return code


def run(cfg: DictConfig) -> Summary:
    """Run a composed configuration, or the rest of it if it was run before.

    Raises:
        SetupError: it cannot be run.
    """
    setup = prepare(cfg)
    with ExitStack() as stack:
        directory = None
        if setup.directory.is_dir():
            directory = stack.enter_context(_open(setup))
            if not _unfinished(setup, directory):
                return _summary(setup, directory)
        num_done = len(directory.results.rows) if directory else 0
        with _progress_bar(setup, num_done, "loading the engine") as bar, StartupStatus(bar):
            engine = setup.load_engine()
        stack.callback(lambda: engine.close())  # or that of the recorder around it
        if directory is None:
            with explained():
                setup.directory.mkdir(parents=True)
            directory = stack.enter_context(_open(setup))
        if setup.options.record:
            with explained("record"):
                engine = ReplayEngine(directory.path / "requests.jsonl", engine)
        return _work(setup, engine, directory)


def _launch(cfg: DictConfig, finished: list[tuple[list[str], Summary]]) -> int:
    """One job of the command line; a multirun has several. Added to `finished` if it ran."""
    hydra_cfg = HydraConfig.get()
    overrides = list(hydra_cfg.overrides.task)
    keep_given_keys(cfg, overrides)
    if not any(text.startswith("search._target_=") for text in overrides):
        cfg.name = cfg.name or hydra_cfg.runtime.choices.search
    summary = run(cfg)
    if hydra_cfg.mode == RunMode.MULTIRUN:
        print(f"\n{' '.join(overrides)}")
    print(summary.table())
    finished.append((overrides, summary))
    return complain("treeshare", summary.failure_line(), 1) if summary.failures else 0


def _open(setup: Setup) -> closing[RunDirectory]:
    with explained():
        return closing(RunDirectory(setup.directory))


def _unfinished(setup: Setup, directory: RunDirectory) -> list[Problem]:
    done = {row.problem for row in directory.results.rows}
    if strangers := done - {problem.id for problem in setup.problems}:
        raise SetupError(
            f"{directory.path}/results.jsonl holds {min(strangers)!r}, which is no problem of the "
            "task: its file has changed; move the directory away"
        )
    return [problem for problem in setup.problems if problem.id not in done]


def _work(setup: Setup, engine: Engine, directory: RunDirectory) -> Summary:
    """Search what is unfinished, and tell the logger."""
    directory.describe(setup.config)
    directory.failures.clear()
    with explained("logger"):
        setup.logger.start(directory.path, setup.title, setup.config)
    summary = None
    try:
        _search(setup, engine, directory)
        summary = _summary(setup, directory)
    finally:
        setup.logger.finish(summary)
    return summary


@rare_collections()
def _search(setup: Setup, engine: Engine, directory: RunDirectory) -> None:
    """Search what is unfinished. Whenever this is killed, every puzzle that ended is on disk."""
    todo = {problem.id: problem for problem in _unfinished(setup, directory)}
    scheduler = Scheduler(engine, max_live=setup.options.max_live)
    number = 1 + max((session.number for session in directory.sessions.rows), default=0)
    began = time.monotonic()

    def note_session() -> None:
        seconds = time.monotonic() - began
        stats = asdict(engine.stats())
        directory.sessions.append(
            Session(number, scheduler.requests, scheduler.rounds, seconds, stats, setup.memo_hits)
        )

    searches = ((setup.policy, setup.context(problem)) for problem in todo.values())
    with (
        _progress_bar(setup, len(directory.results.rows)) as bar,
        StartupStatus(bar) as status,
    ):
        try:
            for outcome in scheduler.run(searches):
                note_session()
                status.clear()
                if outcome.error is not None:
                    directory.failures.append(_failure(outcome.problem_id, outcome.error))
                    if setup.options.fail_fast:
                        return
                    continue
                row = _row(setup, todo[outcome.problem_id], outcome)
                if setup.options.save_trees:
                    ranked = [node.id for node in outcome.ranked]
                    about = {"problem": row.problem, "ranked": ranked, "answers": row.answers}
                    directory.save_tree(row.problem, outcome.graph.to_json(**about))
                directory.results.append(row)
                totals = Totals.of(directory.results.rows, directory.sessions.rows)
                setup.logger.puzzle(row, totals)
                _show(bar, totals)
        finally:
            note_session()


def _row(setup: Setup, problem: Problem, outcome: Outcome) -> Row:
    ranked = outcome.ranked[: setup.options.answers]
    answers = [setup.task.answer(node.state) if node.is_terminal else None for node in ranked]
    is_right = [answer is not None and setup.verifier.check(problem, answer) for answer in answers]
    return Row(
        problem=problem.id,
        correct_top1=any(is_right[:1]),
        correct_any=any(is_right),
        mean_accuracy=sum(is_right) / len(is_right) if is_right else 0.0,
        num_answers=sum(answer is not None for answer in answers),
        answers=answers,
        nodes=len(outcome.graph),
        calls=outcome.calls,
        rounds=outcome.rounds,
        **asdict(outcome.usage),
        parse_failures=outcome.parse_failures,
        budget_hit=outcome.budget_hit,
        seconds=outcome.seconds,
        oracle=setup.is_oracle,
        seed=setup.options.seed,
        grades=_grades(setup, problem, outcome),
    )


def _grades(setup: Setup, problem: Problem, outcome: Outcome) -> dict[str, float]:
    """Partial credit; none where the verifier gives none or nothing was ranked."""
    if not outcome.ranked or not isinstance(setup.verifier, HasGrades):
        return {}
    return dict(setup.verifier.grades(problem, outcome.ranked[0].state))


def _failure(problem_id: str, error: Exception) -> FailedSearch:
    return FailedSearch(
        problem=problem_id,
        error=type(error).__name__,
        message=next(iter(str(error).splitlines()), ""),
        traceback="".join(traceback.format_exception(error)),
    )


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
    trees = [directory.tree_path(row.problem) for row in rows]
    return Summary(
        title=setup.title,
        directory=directory.path,
        num_problems=len(setup.problems),
        num_answers=setup.options.answers,
        rows=rows,
        failures=directory.failures.rows,
        totals=Totals.of(rows, directory.sessions.rows),
        trees=[path for path in trees if path.exists()],
    )


if __name__ == "__main__":
    sys.exit(main())
