"""Runs a policy over the puzzles of a task, from Python: `treeshare.solve`.

The parts are those of the command's configuration, and the same parts with the same seed grow the
same trees.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from os import PathLike, fspath
from typing import Any, Generic

from treeshare.experiments.loggers.logger import Logger, NoLogger, SafeLogger
from treeshare.experiments.results.digests import digest_of
from treeshare.experiments.results.directory import RunDirectory
from treeshare.experiments.results.meta import RunMeta
from treeshare.experiments.results.rows import FailedSearch, Row, Session
from treeshare.experiments.runs.config import (
    RunOptions,
    Setup,
    check_parts,
    meta_of,
    problems_of,
)
from treeshare.experiments.runs.failures import failing_line
from treeshare.experiments.runs.progress import Progress
from treeshare.experiments.runs.resumable_run import (
    RowType,
    counted_rows,
    resume,
    search_unfinished,
)
from treeshare.llm_backend.api import MOST_NUMBER, Engine, whole_number
from treeshare.search import (
    Budget,
    Choose,
    Evaluator,
    Expander,
    Heuristic,
    Policy,
    Propose,
    Sample,
    ValuePrompt,
)
from treeshare.search.parts import check_engine
from treeshare.search.scheduler import Outcome
from treeshare.tasks import HasMoves, HasValues, Problem, Task, Verifier, verifier_of

from .engines import LoadedEngine
from .identity import describe, plain
from .results import Interrupted, PuzzleResult, Run, Tree, read_tree


def solve(
    task: Task,
    *,
    engine: Engine,
    policy: Policy,
    expander: Expander | None = None,
    evaluator: Evaluator | None = None,
    verifier: Verifier | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    answers: int = 5,
    max_live: int | None = None,
    directory: str | PathLike[str] | None = None,
    name: str | None = None,
    record: bool = False,
    overwrite: bool = False,
    logger: Logger | None = None,
    progress: bool = True,
) -> Run:
    """Search every puzzle of a task, and mark the answers.

        import treeshare as ts

        run = ts.solve(
            ts.tasks.Game24(limit=20),
            engine=ts.load_engine("embedded"),
            policy=ts.search.ToTBFS(breadth=5),
        )
        print(run.table())
        run["game24/1-5-5-5"].graph

    An error that a puzzle raises ends that puzzle alone; `run.failures` holds it. The engine stays
    open, so that it can serve another run.

    Args:
        task: gives the problems, prompts and parsers.
        engine: serves the requests, such as that of `treeshare.load_engine`.
        policy: the search algorithm, such as one of `treeshare.search`.
        expander: asks for a node's next steps. None takes the command's choice for the task:
            `Choose` if the task lists the legal steps, `Propose` if it has a prompt for that,
            else `Sample`.
        evaluator: puts values on nodes. None takes `ValuePrompt`; `Heuristic` for a task whose
            states are not judged in words.
        verifier: marks the answers. None takes the task's own.
        budget: limits of each search; None has none.
        seed: fixes all random draws.
        answers: b, the number of nodes of a ranking that count, at least 1.
        max_live: the most searches at once, at least 1; None begins all together.
        directory: None keeps the results in memory alone. With a directory, the run is kept below
            it as the command keeps its runs, in `TASK/NAME/MODEL/HASH-seedSEED`: the same call
            again skips what is done, more puzzles extend the run, and `treeshare-report` and
            `treeshare-view` read it.
        name: the run's name in the directory; None takes that of the policy's class.
        record: keep every reply in the directory, so that an interrupted search goes on inside.
        overwrite: start the run again. The earlier one is renamed to `<its directory>.earlier-1`.
        logger: gets the figures of every puzzle, such as
            `treeshare.experiments.loggers.wandb_logger.WandbLogger`; it needs a directory.
        progress: show a progress bar on a terminal or in a notebook, and elsewhere a line every
            half minute.

    Returns:
        The run, with a result for every puzzle that has one.

    Raises:
        Interrupted: a KeyboardInterrupt, with the finished puzzles in its attribute `run`. The
            requests that are not answered are cancelled.
        SetupError: the directory holds another run, is in use, or cannot be written.
        TypeError: a part is of another kind, or the task lacks what another part needs, or has no
            verifier of its own.
        ValueError: an argument is out of its bound, the engine cannot serve a part, or a part
            cannot be described in a directory.
    """
    if directory is None and (record or overwrite or logger is not None):
        raise ValueError("record, logger and overwrite need a directory=... to write to")
    options = RunOptions(
        name=name,
        seed=whole_number("seed", seed, -MOST_NUMBER),
        answers=whole_number("answers", answers),
        output_dir="" if directory is None else fspath(directory),
        max_live=None if max_live is None else whole_number("max_live", max_live),
        record=record,
        fail_fast=False,
        save_trees=directory is not None,
        overwrite=overwrite,
        progress=progress,
    )
    _check_method("task", task, "problems")
    problems = problems_of(task)
    expander = default_expander(task) if expander is None else expander
    evaluator = default_evaluator(task) if evaluator is None else evaluator
    verifier = verifier_of(task) if verifier is None else verifier
    budget = Budget() if budget is None else budget
    if not isinstance(budget, Budget):
        raise TypeError(f"budget={budget!r} must be a treeshare.search.Budget")
    logger = NoLogger() if logger is None else SafeLogger(logger, failing_line)
    _check_method("engine", engine, "execute")
    _check_method("policy", policy, "search")
    if not inspect.iscoroutinefunction(policy.search):
        raise TypeError(f"policy={type(policy).__name__}: `search` must be an `async def`")
    _check_method("expander", expander, "expand")
    _check_method("evaluator", evaluator, "evaluate")
    _check_method("verifier", verifier, "check")
    config: dict[str, Any] = {}
    if directory is not None:
        config = asdict(options) | {
            "task": _describe_task(task, problems, verifier),
            "search": describe(policy, "policy"),
            "expander": describe(expander, "expander"),
            "evaluator": describe(evaluator, "evaluator"),
            "budget": describe(budget, "budget"),
            **_describe_engine(engine),
        }
    label = name or type(policy).__name__
    in_memory = RunMeta(task.name, label, "", {"seed": options.seed})
    setup = _Setup(
        config=config,
        options=options,
        meta=meta_of(config, task.name, label) if config else in_memory,
        task=task,
        problems=problems,
        verifier=verifier,
        policy=policy,
        expander=expander,
        evaluator=evaluator,
        budget=budget,
        logger=logger,
        engine=engine,
    )
    check_parts(setup)
    check_engine((policy, expander, evaluator), engine.capabilities)
    return _run(setup)


def _check_method(name: str, part: object, method: str) -> None:
    """Refuse a class in place of its object, and an object of another kind.

    Raises:
        TypeError: it is one.
    """
    if inspect.isclass(part):
        raise TypeError(f"{name}={part.__name__} is a class: write {part.__name__}(...)")
    if not callable(getattr(part, method, None)):
        raise TypeError(f"{name}={part!r:.80} has no method `{method}`")


def default_expander(task: Task) -> Expander:
    """Make the expander that the command takes for a task, unless another is chosen."""
    if isinstance(task, HasMoves):
        return Choose()
    return Propose() if "propose" in task.sampling else Sample()


def default_evaluator(task: Task) -> Evaluator:
    """Make the evaluator that the command takes for a task, unless another is chosen."""
    return ValuePrompt() if isinstance(task, HasValues) else Heuristic()


@dataclass(frozen=True, kw_only=True)
class _Setup(Setup):
    """A run on an engine of the caller's, which is not closed at the end of the run."""

    engine: Engine

    def load_engine(self) -> Engine:
        return _BorrowedEngine(self.engine, {})


class _BorrowedEngine(LoadedEngine):
    def close(self) -> None:
        """Leave the engine open: it is the caller's."""


@dataclass(slots=True)
class _Rows(Generic[RowType]):
    """Rows in memory, where a run's directory has a file."""

    rows: list[RowType] = field(default_factory=list)

    def append(self, row: RowType) -> None:
        self.rows.append(row)


@dataclass(slots=True)
class _MemoryRecord:
    """The record of a run that is kept in memory alone."""

    results: _Rows[Row] = field(default_factory=lambda: _Rows[Row]())
    failures: _Rows[FailedSearch] = field(default_factory=lambda: _Rows[FailedSearch]())
    sessions: _Rows[Session] = field(default_factory=lambda: _Rows[Session]())

    def save_tree(self, problem_id: str, tree: str) -> None:
        """Do nothing: the run holds the graphs themselves."""


def _run(setup: _Setup) -> Run:
    is_kept = setup.options.save_trees  # in a directory
    memory = _MemoryRecord()
    trees: dict[str, Tree] = {}  # of this call; those of earlier calls are on disk

    def keep(row: Row, outcome: Outcome) -> None:
        trees[row.problem] = (outcome.graph, outcome.ranked)

    def tree(problem: str) -> Tree:
        if problem in trees or not is_kept:
            return trees[problem]
        return read_tree(RunDirectory(setup.directory, writable=False).tree_path(problem))

    asked = {problem.id for problem in setup.problems}

    def results() -> Run:
        record = RunDirectory(setup.directory, writable=False) if is_kept else memory
        return Run(
            results={
                row.problem: PuzzleResult(row, partial(tree, row.problem))
                for row in counted_rows(setup, record.results.rows)
            },
            failures=[row for row in record.failures.rows if row.problem in asked],
            sessions=record.sessions.rows,
            num_problems=len(setup.problems),
            num_answers=setup.options.answers,
            directory=setup.directory if is_kept else None,
        )

    try:
        if is_kept:
            resume(setup, keep)
        else:
            with Progress(setup, 0) as progress:
                search_unfinished(setup, setup.engine, memory, progress, keep, [])
    except KeyboardInterrupt as error:
        raise Interrupted(results()) from error
    return results()


def _describe_task(task: Task, problems: Sequence[Problem], verifier: Verifier) -> dict[str, Any]:
    """Describe a task by its parameters; one that does not keep them, by its problems."""
    try:
        described = describe(task, "task")
    except ValueError:
        kind = type(task)
        described = {
            "_target_": f"{kind.__module__}.{kind.__qualname__}",
            "sampling": plain(task.sampling, "task.sampling"),
            "problems": digest_of([(problem.id, problem.data) for problem in problems]),
        }
    return described | {"verifier": describe(verifier, "verifier")}


def _describe_engine(engine: Engine) -> dict[str, Any]:
    if isinstance(engine, LoadedEngine):
        if "_target_" not in engine.config:
            raise ValueError(f"engine.config={engine.config} has no `_target_`, the engine's class")
        return {"engine": engine.config, "reward_model": engine.reward_model}
    try:
        return {"engine": describe(engine, "engine"), "reward_model": None}
    except ValueError as error:
        raise ValueError(
            f"{error}; or give the engine a description: treeshare.LoadedEngine(engine, config)"
        ) from None
