"""Plot accuracy against cost: one figure per task, with matplotlib (extra `report`).

A figure has a column of two panels for each cost: top-1 above any-of-b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from .config_results import ConfigResult
from .reference_results import REFERENCE_RESULTS, ReferenceResult

COSTS = {
    "tokens": "tokens a puzzle, prompt + completion",
    "seconds": "seconds a puzzle, all puzzles together",
    "nodes": "nodes a puzzle",
}
"""What accuracy can be plotted against, with the axis's label."""

_MARKERS = "osD^v<>*PX"
_FILLS = ("full", "none", "left", "right", "top", "bottom")  # of a series' next ten markers
_MOST_CHARACTERS = 80  # of a name in the legend
_PANEL = (3.6, 2.6)  # inches
_STYLE = {
    "axes.edgecolor": "#66707c",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 9,
    "grid.color": "#e1e5ea",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "treeshare",  # the same file for the same figures
}


def figure_files(
    task: str, shown: Sequence[ConfigResult], costs: Sequence[str], kinds: Sequence[str]
) -> list[bytes]:
    """Draw the figure of one task as files, which are the same bytes for the same results.

    Args:
        task: the task's name.
        shown: the results of this task.
        costs: keys of `COSTS`, one for each column of panels.
        kinds: `svg`, `png` or `pdf` for each file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError('plots need `pip install "treeshare[report]"`') from error
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    files = []
    with matplotlib.rc_context(_STYLE):
        figure = draw(task, shown, costs)
        for kind in kinds:
            file = BytesIO()
            figure.savefig(file, format=kind, dpi=150, metadata=undated.get(kind))
            files.append(file.getvalue())
    return files


def draw(task: str, shown: Sequence[ConfigResult], costs: Sequence[str]) -> Any:
    """Draw the figure of one task.

    Names are in the legend alone, because points may be close to each other. Results that differ
    only in their parameters have one colour and are joined by a line, from the fewest tokens to the
    most; each has a marker of its own.

    Args:
        task: the task's name.
        shown: the results of this task.
        costs: keys of `COSTS`, one for each column of panels.

    Returns:
        A matplotlib figure.
    """
    import matplotlib
    from matplotlib.figure import Figure

    groups = _by_series(shown)
    labels = [_literal(_cut(text)) for text in _labels(groups)]
    longest = max(map(len, labels))
    width = 2.2 + _PANEL[0] * len(costs)
    num_columns = max(1, int(15 * width / (longest + 8)))  # 15 characters an inch
    num_lines = math.ceil(len(labels) / num_columns)
    figure = Figure(figsize=(width, 1 + 2 * _PANEL[1] + 0.18 * num_lines), layout="constrained")
    panels = figure.subplots(2, len(costs), sharey=True, sharex="col", squeeze=False)
    colors = [*matplotlib.color_sequences["tab10"], *matplotlib.color_sequences["Dark2"]]
    measures = {"top1": "top-1", "any_of_b": _any_of_b(shown)}
    for row, (measure, title) in zip(panels, measures.items(), strict=True):
        for panel, cost in zip(row, costs, strict=True):
            panel.set(xscale="log", xlim=_limits(shown, cost), ylim=(-0.03, 1.03))
            _set_ticks(panel.xaxis, panel.get_xlim())
            for i, members in enumerate(groups):
                _points(panel, members, measure, cost, colors[i % len(colors)], i)
        row[0].set_ylabel(f"puzzles solved, {title}")
        _published(row, REFERENCE_RESULTS.get(task, ()), measure)
    for panel, cost in zip(panels[1], costs, strict=True):
        panel.set_xlabel(COSTS[cost])
    panels[0][0].yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    models = {result.model for result in shown}
    title = f"{task}: {models.pop()}" if len(models) == 1 else task  # else they are in the legend
    figure.suptitle(_literal(_cut(title, int(9 * width))))
    handles, _ = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=num_columns, fontsize=8)
    return figure


def _by_series(shown: Sequence[ConfigResult]) -> list[list[ConfigResult]]:
    """Group the results that differ only in their parameters, each group ordered by tokens."""
    found: dict[tuple[str, str], list[ConfigResult]] = {}
    for result in sorted(shown, key=lambda result: result.tokens.value):
        found.setdefault((result.series, result.model), []).append(result)
    return [found[key] for key in sorted(found)]


def _labels(groups: Sequence[Sequence[ConfigResult]]) -> list[str]:
    """The names of all results for the legend, in the order in which they are drawn."""
    results = [result for members in groups for result in members]
    has_models = len({result.model for result in results}) > 1
    return [f"{r.label} ({r.model})" if has_models else r.label for r in results]


def _costs(members: Sequence[ConfigResult], cost: str) -> list[float]:
    return [s.tokens.value if cost == "tokens" else getattr(s, cost) for s in members]


def _limits(shown: Sequence[ConfigResult], cost: str) -> tuple[float, float]:
    """Limits of the logarithmic cost axis.

    The margin is 8 % of the range on each side, but at least a factor of 2.3: then at least two of
    the numbers 1, 2, 5, 10, 20, ... are on the axis even if all costs are equal. Costs of 0 cannot
    be on a logarithmic axis and are ignored.
    """
    costs = [value for value in _costs(shown, cost) if value > 0] or [1.0]
    low, high = min(costs), max(costs)
    room = max((high / low) ** 0.08, 2.3)
    return low / room, high * room


def _set_ticks(axis: Any, limits: tuple[float, float]) -> None:
    """Put labels that do not overlap at 1, 2, 5, 10, ... or, for a long axis, at powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    is_short = limits[1] / limits[0] < 250
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_short else (1,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.set_minor_formatter(NullFormatter())


def _short(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def _points(
    panel: Any, members: Sequence[ConfigResult], measure: str, cost: str, color: str, first: int
) -> None:
    """Draw one series: a point with its interval for each result, and a line that joins them."""
    costs = _costs(members, cost)
    estimates = [getattr(result, measure) for result in members]
    panel.plot(costs, [e.value for e in estimates], color=color, linewidth=0.8, alpha=0.6)
    for i, (x, e) in enumerate(zip(costs, estimates, strict=True)):
        panel.errorbar(
            x,
            e.value,
            yerr=[[e.value - e.low], [e.high - e.value]],
            color=color,
            capsize=2,
            elinewidth=0.7,
            marker=_MARKERS[(first + i) % len(_MARKERS)],
            fillstyle=_FILLS[i // len(_MARKERS) % len(_FILLS)],
            markersize=5.5,
            linestyle="",
            label=str(i),
        )


def _cut(text: str, most: int = _MOST_CHARACTERS) -> str:
    """The text with its middle left out if it is long; names often differ at their end."""
    return text if len(text) <= most else f"{text[: most - most // 3 - 3]}...{text[-(most // 3) :]}"


def _literal(text: str) -> str:
    """Escape a text so that matplotlib shows it unchanged.

    matplotlib reads text between two `$` as a formula, and leaves a label that begins with `_` out
    of the legend.
    """
    shown = text.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _published(row: Sequence[Any], figures: Sequence[ReferenceResult], measure: str) -> None:
    """Draw published results as lines across a row of panels, because their cost is not known.

    The lines' names stand at the right end of the row, at least 6 % apart.
    """
    known = [(getattr(figure, measure), figure) for figure in figures]
    place = -1.0
    for value, figure in sorted((k for k in known if k[0] is not None), key=lambda k: k[0]):
        for panel in row:
            panel.axhline(value, color="#8f99a5", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        place = max(value, place + 0.06)
        row[-1].annotate(
            f"{figure.name} ({figure.model})",
            (1.0, place),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color="#66707c",
        )


def _any_of_b(shown: Sequence[ConfigResult]) -> str:
    return f"any-of-{'/'.join(map(str, sorted({result.b for result in shown})))}"
