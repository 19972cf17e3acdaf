"""Read finished runs from disk: their rows, with the number of answers that counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from treeshare.experiments.results.directory import read_rows
from treeshare.experiments.results.rows import FailedSearch, Row, Session, check_results
from treeshare.experiments.results.summary import resource_kinds

from .configurations import RunConfig, read_configs, run_directories

_MOST_GRADES = 20  # kinds of partial credit in one run; each is a column


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One run as it is on disk. Some of its puzzles may be unfinished."""

    task: str
    name: str  # the policy's
    model: str
    identity: str  # equal for runs that differ only in their seed
    config: dict[str, Any]  # flat, such as `search.breadth` to 5; only keys that identify a run
    seed: int
    b: int  # answers that count
    rows: list[Row]
    seconds: float  # wall time of all its processes
    num_failed: int = 0  # puzzles that raised an error
    resources: Mapping[str, int] = field(default_factory=dict)  # rows by device and data type

    @property
    def is_oracle(self) -> bool:
        """Whether the evaluator was given the right answers."""
        return any(row.oracle for row in self.rows)

    @property
    def series(self) -> tuple[str, str, str, bool]:
        """What runs have in common that differ only in their parameters."""
        return self.task, self.model, self.name, self.is_oracle


def find_runs(paths: Iterable[Path], answers: int | None = None) -> list[FinishedRun]:
    """Read all runs at and below `paths` that have a finished puzzle.

    Args:
        paths: directories.
        answers: the number of answers that count; None takes that of each run.

    Returns:
        The runs in the order of their paths.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is no run, a run's file has other contents than a run writes, or
            `answers` is below 1, or a row does not say which of that number of answers are right.
    """
    if answers is not None and answers < 1:
        raise ValueError(f"answers={answers} must be at least 1")
    given = list(paths)
    rows_of = {path: _rows(path / "results.jsonl", Row) for path in run_directories(given)}
    found = {path: rows for path, rows in rows_of.items() if rows}
    if not found:
        raise ValueError(f"no results.jsonl with a finished puzzle in {', '.join(map(str, given))}")
    configs = read_configs(found)
    return [
        _run(path, config, rows, answers)
        for (path, rows), config in zip(found.items(), configs, strict=True)
    ]


def _run(path: Path, config: RunConfig, rows: list[Row], answers: int | None) -> FinishedRun:
    """Make a run of the contents of its directory.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file has other contents than a run writes, or a row cannot be recounted; the
            message names the file.
    """
    file = path / "results.jsonl"
    check_results(file, rows, seed=config.seed)
    if len({name for row in rows for name in row.grades}) > _MOST_GRADES:
        raise ValueError(f"{file} has more than {_MOST_GRADES} kinds of grades")
    sessions = _rows(path / "sessions.jsonl", Session)
    # a later session may have counted fewer answers than the first
    b = answers or min([config.answers, *(len(r.answers) for r in rows if _has_more(r))])
    return FinishedRun(
        task=config.task,
        name=config.name,
        model=config.model,
        identity=config.identity,
        config=config.values,
        seed=config.seed,
        b=b,
        rows=[_recounted(row, b, config.answers, file) for row in rows],
        seconds=sum({session.number: session.seconds for session in sessions}.values()),
        num_failed=len(_rows(path / "failures.jsonl", FailedSearch)),
        resources=resource_kinds(rows, sessions),
    )


def _recounted(row: Row, b: int, written: int, file: Path) -> Row:
    """The row with the first b answers.

    Args:
        row: as it is on disk.
        b: the number of answers that count.
        written: b in the run's first session.
        file: named in errors.

    Raises:
        ValueError: the row does not say which of the first b answers are right.
    """
    # version 0.1.0 kept neither the length of the ranking nor a mark for each answer
    is_recent = row.num_ranked > 0 and len(row.correct) == len(row.answers)
    if b < len(row.answers) and is_recent:
        correct = row.correct[:b]
        return replace(
            row,
            correct_any=any(correct),
            mean_accuracy=sum(correct) / b,
            num_answers=sum(answer is not None for answer in row.answers[:b]),
            answers=row.answers[:b],
            correct=correct,
        )
    is_all = not _has_more(row) if is_recent else b == written or not row.answers
    if b == len(row.answers) or is_all:
        return row
    raise ValueError(
        f"{file}: of {row.problem!r} only the first {len(row.answers)} answers are marked, not {b}"
    )


def _has_more(row: Row) -> bool:
    """Whether the ranking goes on after the answers that were marked."""
    return row.num_ranked > len(row.answers)


def _rows(path: Path, row_type: Any) -> list[Any]:
    return read_rows(path, row_type) if path.exists() else []
