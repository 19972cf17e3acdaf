"""Tables of figures: text in a terminal, HTML in a notebook, a pandas DataFrame on request."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from treeshare.experiments.reports.finished_runs import FinishedRun, find_runs

if TYPE_CHECKING:
    import pandas

Cells = Mapping[str, Any]
"""One row of a table: values by the names of their columns."""


class Table(Sequence[Cells]):
    """Rows with the same columns. It prints as text, and a notebook shows it as HTML.

    Args:
        rows: each maps the names of columns to values. The columns are those of all rows, in the
            order in which they first appear.
    """

    def __init__(self, rows: Iterable[Cells]) -> None:
        self._rows = [dict(row) for row in rows]
        self.columns = list(dict.fromkeys(name for row in self._rows for name in row))

    @overload
    def __getitem__(self, index: int) -> Cells: ...

    @overload
    def __getitem__(self, index: slice) -> Table: ...

    def __getitem__(self, index: int | slice) -> Cells | Table:
        if isinstance(index, slice):
            return Table(self._rows[index])
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Cells]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        texts = [self.columns, *self._texts()]
        widths = [max(len(row[i]) for row in texts) for i in range(len(self.columns))]
        is_number = [self._is_number(name) for name in self.columns]
        lines = [
            "  ".join(
                text.rjust(width) if right else text.ljust(width)
                for text, width, right in zip(row, widths, is_number, strict=True)
            )
            for row in texts
        ]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        def line(cells: Iterable[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

        head = line(self.columns, "th")
        return f"<table>{head}{''.join(line(row, 'td') for row in self._texts())}</table>"

    def to_pandas(self) -> pandas.DataFrame:
        """Return the rows as a pandas DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

        return pandas.DataFrame(self._rows, columns=self.columns)

    def _texts(self) -> list[list[str]]:
        return [[_text(row.get(name)) for name in self.columns] for row in self._rows]

    def _is_number(self, name: str) -> bool:
        values = [row.get(name) for row in self._rows]
        return all(
            value is None or (isinstance(value, int | float) and not isinstance(value, bool))
            for value in values
        )


def load_runs(*paths: str | PathLike[str]) -> Table:
    """Read the finished puzzles of all runs below some directories into a table, a run a row.

        treeshare.load_runs("outputs").to_pandas().sort_values("top1")

    A run that has not ended counts with the puzzles that it has finished so far.

    Args:
        paths: directories of runs, or directories above them. Without a path, it is `outputs`.

    Returns:
        A table with one row for each run, sorted by path: its task, policy, model and seed, the
        number of puzzles, the accuracies in [0, 1], the sums of requests, tokens and seconds,
        whether the evaluator was the oracle, and those keys of the configuration in which the runs
        differ.

    Raises:
        OSError: a file cannot be read.
        ValueError: a path is not a directory, no run is found, or a file of a run is damaged.
    """
    runs = find_runs([Path(path) for path in paths or ("outputs",)])
    keys = dict.fromkeys(key for run in runs for key in run.config)
    differing = [key for key in keys if len({str(run.config.get(key)) for run in runs}) > 1]
    return Table(_cells(run, differing) for run in runs)


def _cells(run: FinishedRun, keys: Iterable[str]) -> dict[str, Any]:
    rows = run.rows

    def mean(name: str) -> float:
        return float(sum(getattr(row, name) for row in rows) / len(rows))

    def total(name: str) -> int:
        return int(sum(getattr(row, name) for row in rows))

    return {
        "task": run.task,
        "policy": run.name,
        "model": run.model,
        "seed": run.seed,
        "puzzles": len(rows),
        "top1": mean("correct_top1"),
        "any_of_b": mean("correct_any"),
        "b": run.b,
        "mean_accuracy": mean("mean_accuracy"),
        "requests": total("requests"),
        "prompt_tokens": total("prompt_tokens"),
        "completion_tokens": total("completion_tokens"),
        "unique_kv_tokens": total("unique_kv_tokens"),
        "logical_kv_tokens": total("logical_kv_tokens"),
        "seconds": run.seconds,
        "oracle": run.is_oracle,
        **{key: run.config.get(key) for key in keys},
    }


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"
        case _:
            return " ".join(str(value).split())
