"""Read finished runs from disk, and combine the seeds of one configuration.

Run directories are laid out by `results/directory.py` and `runs/config.py`. They may come from
another machine, so their contents are not trusted: what is read is bounded, and texts are made
printable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from treeshare.experiments.results.config_file import read_config
from treeshare.experiments.results.directory import read_rows
from treeshare.experiments.results.rows import Row, Session, check_results
from treeshare.experiments.runs.config import UNHASHED

from .intervals import Estimate, bootstrap, wilson


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One run as it is on disk. Some of its puzzles may be unfinished."""

    task: str
    name: str  # the policy's
    model: str
    config: dict[str, Any]  # flat, such as `search.breadth` to 5; only keys that identify the run
    seed: int
    b: int  # answers that count
    rows: list[Row]
    seconds: float  # wall time of all its processes

    @property
    def is_oracle(self) -> bool:
        """Whether the evaluator was given the right answers."""
        return any(row.oracle for row in self.rows)

    @property
    def series(self) -> tuple[str, str, str, bool]:
        """What runs have in common that differ only in their parameters."""
        return self.task, self.model, self.name, self.is_oracle


@dataclass(frozen=True, slots=True)
class ConfigResult:
    """The results of one configuration over all its seeds.

    A puzzle's value is its mean over the seeds.
    """

    task: str
    name: str
    model: str
    parameters: dict[str, str]  # those that differ within its series, such as `breadth` to `5`
    seeds: int
    b: int
    puzzles: frozenset[str]
    is_oracle: bool
    top1: Estimate
    any_of_b: Estimate
    mean_accuracy: Estimate
    tokens: Estimate  # prompt and completion tokens per puzzle
    kv_tokens: float  # KV entries computed per puzzle
    seconds: float  # wall time of a run divided by its puzzles
    requests: float  # per puzzle
    grades: dict[str, float]  # partial credit in [0, 1] by name

    @property
    def series(self) -> str:
        """The policy's name, marked if the evaluator was given the right answers."""
        return f"{self.name} (oracle)" if self.is_oracle else self.name


def find_runs(paths: Iterable[Path]) -> list[FinishedRun]:
    """Read all runs at and below `paths` that have a finished puzzle.

    Returns:
        The runs in the order of their paths.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is no run, or a run's file has other contents than a run writes.
    """
    given = list(paths)
    for path in given:
        if not path.is_dir():
            raise ValueError(f"{path} is not a directory")
    found = {file.parent.resolve() for path in given for file in path.rglob("results.jsonl")}
    runs = [run for path in sorted(found) if (run := _read(path)) is not None]
    if not runs:
        raise ValueError(f"no results.jsonl with a finished puzzle in {', '.join(map(str, given))}")
    return runs


def config_results(runs: Sequence[FinishedRun]) -> list[ConfigResult]:
    """Combine the seeds of each configuration.

    Returns:
        One result per configuration, ordered by task, model, policy and tokens.
    """
    groups: dict[tuple[Any, ...], list[FinishedRun]] = defaultdict(list)
    for run in runs:
        key = tuple(sorted((name, str(value)) for name, value in run.config.items()))
        groups[*run.series, key].append(run)
    alike: dict[tuple[Any, ...], list[FinishedRun]] = defaultdict(list)
    for first, *_ in groups.values():
        alike[first.series].append(first)
    made = [
        _setting(group, _difference(group[0], alike[group[0].series])) for group in groups.values()
    ]
    return sorted(made, key=lambda s: (s.task, s.model, s.name, s.tokens.value))


def _read(path: Path) -> FinishedRun | None:
    """Read one run's directory.

    Returns:
        None for another program's results.jsonl, or if no puzzle is finished yet.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file has other contents than a run writes; the message names the file.
    """
    if not (path / "config.yaml").exists():
        return None
    rows = read_rows(path / "results.jsonl", Row)
    if not rows:
        return None
    if len(path.parts) < 5:
        raise ValueError(f"{path} is not in folders named by its task, policy and model")
    config = read_config(path / "config.yaml")
    seed, answers = config.get("seed"), config.get("answers")
    if type(seed) is not int or type(answers) is not int or answers < 1:
        raise ValueError(
            f"{path}/config.yaml: seed={seed!r} and answers={answers!r} must be whole numbers"
        )
    check_results(path / "results.jsonl", rows, seed=seed)
    has_sessions = (path / "sessions.jsonl").exists()
    lines = read_rows(path / "sessions.jsonl", Session) if has_sessions else []
    sessions = {session.number: session for session in lines}
    task, name, model, _ = map(_printable, path.parts[-4:])
    identity = {k: v for k, v in config.items() if k not in {*UNHASHED, "seed"}}
    return FinishedRun(
        task=task,
        name=name,
        model=model,
        config={_printable(key): value for key, value in _flat(identity)},
        seed=seed,
        b=answers,
        rows=rows,
        seconds=sum(session.seconds for session in sessions.values()),
    )


def _printable(text: str) -> str:
    """The text with control characters and lone surrogates replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _setting(runs: Sequence[FinishedRun], parameters: dict[str, str]) -> ConfigResult:
    first = runs[0]
    by_puzzle: dict[str, list[Row]] = defaultdict(list)
    for run in runs:
        for row in run.rows:
            by_puzzle[row.problem].append(row)
    rows = [row for run in runs for row in run.rows]

    def each(*names: str) -> list[float]:
        """For each puzzle: the sum of these fields, averaged over the seeds."""
        return [
            sum(getattr(row, name) for row in same for name in names) / len(same)
            for same in by_puzzle.values()
        ]

    grades = dict.fromkeys(name for row in rows for name in row.grades)
    return ConfigResult(
        task=first.task,
        name=first.name,
        model=first.model,
        parameters=parameters,
        seeds=len({run.seed for run in runs}),
        b=first.b,
        puzzles=frozenset(by_puzzle),
        is_oracle=first.is_oracle,
        top1=wilson(sum(each("correct_top1")), len(by_puzzle)),
        any_of_b=wilson(sum(each("correct_any")), len(by_puzzle)),
        mean_accuracy=bootstrap(each("mean_accuracy")),
        tokens=bootstrap(each("prompt_tokens", "completion_tokens")),
        kv_tokens=fmean(each("unique_kv_tokens")),
        seconds=sum(run.seconds for run in runs) / len(rows),
        requests=fmean(each("requests")),
        grades={
            name: sum(row.grades.get(name, 0.0) for row in rows) / len(rows) for name in grades
        },
    )


def _difference(run: FinishedRun, alike: Sequence[FinishedRun]) -> dict[str, str]:
    """The keys in which the runs of one series differ, shortened, with this run's values."""
    differing: dict[str, str] = {}
    for key, value in run.config.items():
        if len({str(other.config.get(key)) for other in alike}) > 1:
            parent, _, leaf = key.rpartition(".")
            is_class = leaf == "_target_"
            name = parent if is_class else leaf
            shown = _printable(str(value).rpartition(".")[2] if is_class else str(value))
            differing[key if name in differing else name] = shown
    return differing


def _flat(node: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
