"""Combine the seeds of each configuration, and name the configurations by what differs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from treeshare.experiments.results.rows import Row

from .configurations import differences, printable
from .finished_runs import FinishedRun
from .intervals import Estimate, bootstrap, wilson


@dataclass(frozen=True, slots=True)
class PuzzleMeans:
    """One puzzle of one configuration, averaged over the seeds."""

    top1: float  # share of the seeds whose first answer is right
    mean_accuracy: float
    digests: frozenset[str] = frozenset()  # of the puzzle's data; empty if they are not known

    def is_of(self, other: PuzzleMeans) -> bool:
        """Whether both are of the same puzzle, as far as the digests of its data are known."""
        return not self.digests or not other.digests or self.digests == other.digests


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
    puzzles: Mapping[str, PuzzleMeans]
    is_oracle: bool
    top1: Estimate
    any_of_b: Estimate
    mean_accuracy: Estimate
    tokens: Estimate  # prompt and completion tokens per puzzle
    kv_tokens: float  # KV entries computed per puzzle
    seconds: float  # wall time of a run divided by its puzzles
    nodes: float  # per puzzle
    requests: float  # per puzzle
    grades: Mapping[str, float]  # partial credit in [0, 1] by name
    failed: int = 0  # puzzles that raised an error, summed over the seeds; in no other figure
    repeated: int = 0  # rows left out, because another run has the same puzzle and seed
    resources: Mapping[str, int] = field(default_factory=dict)  # rows by device and data type

    @property
    def series(self) -> str:
        """The policy's name, marked if the evaluator was given the right answers."""
        return f"{self.name} (oracle)" if self.is_oracle else self.name

    @property
    def label(self) -> str:
        """The series and the parameters that differ within it."""
        parameters = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.series} {parameters}".strip()


def config_results(runs: Sequence[FinishedRun]) -> list[ConfigResult]:
    """Combine the seeds of each configuration.

    Returns:
        One result per configuration, ordered by task, model, policy and tokens.
    """
    series: dict[tuple[Any, ...], dict[tuple[str, int], list[FinishedRun]]] = {}
    for run in runs:
        groups = series.setdefault(run.series, {})
        groups.setdefault((run.identity, run.b), []).append(run)
    made = []
    for groups in series.values():
        configs = [group[0].config | {"answers": group[0].b} for group in groups.values()]
        for group, parameters in zip(groups.values(), differences(configs), strict=True):
            made.append(_combined(group, parameters))
    return sorted(made, key=lambda s: (s.task, s.model, s.name, s.tokens.value))


def _combined(runs: Sequence[FinishedRun], parameters: dict[str, str]) -> ConfigResult:
    first = runs[0]
    by_puzzle: dict[str, list[Row]] = defaultdict(list)
    known = set()
    for run in runs:
        for row in run.rows:
            if (row.problem, row.seed) not in known:
                known.add((row.problem, row.seed))
                by_puzzle[row.problem].append(row)
    rows = [row for same in by_puzzle.values() for row in same]

    def each(*names: str) -> list[float]:
        """For each puzzle: the sum of these fields, averaged over the seeds."""
        return [
            sum(getattr(row, name) for row in same for name in names) / len(same)
            for same in by_puzzle.values()
        ]

    top1, mean_accuracy = each("correct_top1"), each("mean_accuracy")
    digests = [frozenset(row.digest for row in same) - {""} for same in by_puzzle.values()]
    grades = dict.fromkeys(name for row in rows for name in row.grades)
    resources: Counter[str] = Counter()
    for run in runs:
        resources.update({printable(kind): n for kind, n in run.resources.items() if kind})
    return ConfigResult(
        task=first.task,
        name=first.name,
        model=first.model,
        parameters=parameters,
        seeds=len({run.seed for run in runs}),
        b=first.b,
        puzzles=dict(zip(by_puzzle, map(PuzzleMeans, top1, mean_accuracy, digests), strict=True)),
        is_oracle=first.is_oracle,
        top1=wilson(sum(top1), len(by_puzzle)),
        any_of_b=wilson(sum(each("correct_any")), len(by_puzzle)),
        mean_accuracy=bootstrap(mean_accuracy),
        tokens=bootstrap(each("prompt_tokens", "completion_tokens")),
        kv_tokens=fmean(each("unique_kv_tokens")),
        seconds=sum(run.seconds for run in runs) / sum(len(run.rows) for run in runs),
        nodes=fmean(each("nodes")),
        requests=fmean(each("requests")),
        grades={
            printable(name): sum(row.grades.get(name, 0.0) for row in rows) / len(rows)
            for name in grades
        },
        failed=sum(run.num_failed for run in runs),
        repeated=sum(len(run.rows) for run in runs) - len(rows),
        resources=resources,
    )
