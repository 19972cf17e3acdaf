"""The tables of the report as data: columns, lines and notes, before any format is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .config_results import ConfigResult
from .intervals import Estimate
from .paired_tests import PairedComparison
from .reference_results import REFERENCE_RESULTS

Value = str | float | Estimate | None
"""What a cell holds; None is an empty cell."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column and the form in which its values are shown."""

    name: str  # in the head of the table
    key: str  # in the head of a CSV file
    spec: str = ""  # format of a number, such as `.1f`; a column of text has none
    scale: float = 1.0  # numbers are shown multiplied by it
    unit: str = ""  # shown behind a number

    def text(self, value: float | Estimate | None) -> str:
        """A number as text, with its unit and then its interval in brackets."""
        if value is None:
            return ""
        if isinstance(value, Estimate):
            low, high = self._number(value.low), self._number(value.high)
            return f"{self._number(value.value)}{self.unit} [{low}, {high}]"
        return f"{self._number(value)}{self.unit}"

    def _number(self, value: float) -> str:
        return format(self.scale * value, self.spec).replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a table."""

    cells: Sequence[Value]
    note: str = ""
    mark: str = ""  # in front of the note, and behind the first cell
    is_published: bool = False  # the figures are other authors'


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, lines, and what must be said about them. No text is escaped for a format yet."""

    columns: Sequence[Column]
    lines: Sequence[Line]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()

    def with_columns(self, keys: Sequence[str]) -> Table:
        """The table with the columns of these keys alone.

        Raises:
            ValueError: there is no column of a key.
        """
        known = [column.key for column in self.columns]
        for key in keys:
            if key not in known:
                raise ValueError(f"there is no column {key!r}; there are {', '.join(known)}")
        kept = [i for i, key in enumerate(known) if key in keys]
        lines = [replace(line, cells=[line.cells[i] for i in kept]) for line in self.lines]
        return replace(self, columns=[self.columns[i] for i in kept], lines=lines)

    @property
    def all_notes(self) -> list[str]:
        """The notes on the table, then those on marked lines."""
        marked = dict.fromkeys(f"{line.mark} {line.note}" for line in self.lines if line.mark)
        return [*self.notes, *marked]


def _share(name: str, key: str) -> Column:
    return Column(name, key, ".1f", 100.0, "%")


def results_table(task: str, shown: Sequence[ConfigResult]) -> Table:
    """The table of one task: our results, then the published ones.

    Args:
        task: the task's name.
        shown: the results of this task.
    """
    grades = list(dict.fromkeys(name for result in shown for name in result.grades))
    has_seeds = any(result.seeds > 1 for result in shown)
    has_failures = any(result.failed for result in shown)
    columns = [
        Column("run", "run"),
        Column("model", "model"),
        Column("puzzles", "puzzles", ",.0f"),
        *([Column("seeds", "seeds", ".0f")] if has_seeds else []),
        *([Column("failed", "failed", ",.0f")] if has_failures else []),
        _share("top-1", "top1"),
        _share("any-of-b", "any_of_b"),
        Column("b", "b", ".0f"),
        _share("mean accuracy", "mean_accuracy"),
        *(_share(name, f"grade_{name}") for name in grades),
        Column("tokens", "tokens", ",.0f"),
        Column("KV computed", "kv_tokens", ",.0f"),
        Column("nodes", "nodes", ",.1f"),
        Column("requests", "requests", ",.1f"),
        Column("seconds", "seconds", ".3g"),
    ]
    lines = []
    for result in shown:
        note = _resources(result)
        ours: dict[str, Value] = {
            "run": result.label,
            "model": result.model,
            "puzzles": len(result.puzzles),
            "seeds": result.seeds,
            "failed": result.failed,
            "top1": result.top1,
            "any_of_b": result.any_of_b,
            "b": result.b,
            "mean_accuracy": result.mean_accuracy,
            **{f"grade_{name}": result.grades.get(name, 0.0) for name in grades},
            "tokens": result.tokens,
            "kv_tokens": result.kv_tokens,
            "nodes": result.nodes,
            "requests": result.requests,
            "seconds": result.seconds,
        }
        lines.append(Line([ours[column.key] for column in columns], note, "†" if note else ""))
    published = REFERENCE_RESULTS.get(task, ())
    for figure in published:
        known: dict[str, Value] = {
            "run": figure.name,
            "model": figure.model,
            "puzzles": 100,
            "top1": figure.top1,
            "any_of_b": figure.any_of_b,
            "b": figure.b,
        }
        cells = [known.get(column.key) for column in columns]
        lines.append(Line(cells, figure.source, is_published=True))
    notes = [
        "Brackets hold 95 % intervals over puzzles: Wilson's, for means a bootstrap's; with "
        "several seeds a puzzle counts once, with its mean. Tokens (prompt and completion), KV "
        "entries computed, nodes, requests and seconds are a puzzle's; seconds are of a run over "
        "all its puzzles together."
    ]
    if any(result.is_oracle for result in shown):
        notes.append("In runs marked oracle the evaluator knew the answers.")
    if published:
        sources = dict.fromkeys(f"{figure.name}: {figure.source}" for figure in published)
        notes.append("Published figures. " + ". ".join(sources) + ".")
    return Table(columns, lines, _warnings(shown, has_failures=has_failures), notes)


def _warnings(shown: Sequence[ConfigResult], *, has_failures: bool) -> list[str]:
    warnings = []
    if not all(_has_puzzles_of(result, shown[0]) for result in shown):
        warnings.append("The runs are not all over the same puzzles.")
    if has_failures:
        warnings.append("Puzzles that failed with an error are counted as failed and nowhere else.")
    if repeated := sum(result.repeated for result in shown):
        warnings.append(
            f"{repeated:,} rows are left out: another run of the same configuration and seed has "
            "the same puzzle."
        )
    return warnings


def _has_puzzles_of(result: ConfigResult, other: ConfigResult) -> bool:
    return result.puzzles.keys() == other.puzzles.keys() and all(
        means.is_of(other.puzzles[puzzle]) for puzzle, means in result.puzzles.items()
    )


def _resources(result: ConfigResult) -> str:
    """A note on rows that were computed on different devices or in different data types."""
    if len(result.resources) < 2:
        return ""
    counts = ", ".join(f"{n:,} on {kind}" for kind, n in result.resources.items())
    return f"{result.label}: rows of different devices or data types, {counts}."


def pairs_table(pairs: Sequence[PairedComparison], num_without: int) -> Table:
    """The table of the paired tests.

    Args:
        pairs: the comparisons.
        num_without: the number of pairs of configurations that have no puzzle in common.
    """
    columns = [
        Column("first", "first"),
        Column("second", "second"),
        Column("model", "model"),
        Column("test", "test"),
        Column("common puzzles", "puzzles", ",.0f"),
        Column("first better", "first_better", ",.0f"),
        Column("second better", "second_better", ",.0f"),
        Column("top-1 difference", "top1_difference", "+.1f", 100.0),
        Column("p", "p", ".2g"),
        Column("p (Holm)", "p_holm", ".2g"),
        Column("mean accuracy difference", "mean_accuracy_difference", "+.1f", 100.0),
    ]
    lines = [
        Line(
            [
                *(pair.first.label, pair.second.label, pair.first.model, pair.test),
                *(pair.puzzles, pair.first_better, pair.second_better, pair.top1),
                *(pair.p_value, pair.p_holm, pair.mean_accuracy),
            ]
        )
        for pair in pairs
    ]
    notes = [
        "Paired tests over the puzzles that both have finished. A difference is the first's minus "
        "the second's, in percentage points, with a 95 % interval by a bootstrap over puzzles. "
        "First better and second better count the puzzles on which the top-1 of one is higher "
        "(discordant pairs). p is for the hypothesis that top-1 does not differ: McNemar's exact "
        "test, or with several seeds the sign-flip test on each puzzle's mean over seeds. "
        f"p (Holm) is corrected for {len(pairs)} comparisons."
    ]
    if num_without:
        notes.append(f"{num_without:,} pairs have no puzzle in common and are not compared.")
    return Table(columns, lines, (), notes)
