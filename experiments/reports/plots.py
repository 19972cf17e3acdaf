"""Plot accuracy against cost: one figure per task, with matplotlib (extra `report`).

A figure has four panels: top-1 and any-of-b, each against tokens and against wall time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from .finished_runs import ConfigResult
from .reference_results import REFERENCE_RESULTS, ReferenceResult

_MARKERS = "osD^vPX*<>"
_COSTS = {
    "tokens": "tokens a puzzle, prompt + completion",
    "seconds": "seconds a puzzle, all puzzles together",
}
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


def draw(task: str, shown: Sequence[ConfigResult], directory: Path) -> list[Path]:
    """Write the figure of one task as SVG and as PNG.

    Args:
        task: the task's name, which is also the files'.
        shown: the results of this task.
        directory: where the files go; it must exist.

    Returns:
        The paths of the two files, SVG first.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need `pip install "treeshare[report]"`') from error
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 7), layout="constrained")
        panels = figure.subplots(2, 2, sharey=True, sharex="col")
        colors = [*matplotlib.color_sequences["tab10"], *matplotlib.color_sequences["Dark2"]]
        models = dict.fromkeys(result.model for result in shown)
        looks = list(zip(cycle(colors), cycle(_MARKERS), _by_series(shown)))
        measures = {"top1": "top-1", "any_of_b": _any_of_b(shown)}
        for row, (measure, title) in zip(panels, measures.items(), strict=True):
            for panel, cost in zip(row, _COSTS, strict=True):
                panel.set(xscale="log", xlim=_limits(shown, cost), ylim=(-0.03, 1.03))
                for color, marker, members in looks:
                    label = _label(members, with_model=len(models) > 1)
                    _points(
                        panel, members, measure, cost, fmt=f"-{marker}", color=color, label=label
                    )
            row[0].set_ylabel(f"puzzles solved, {title}")
            _published(row, REFERENCE_RESULTS.get(task, ()), measure)
        for panel, label in zip(panels[1], _COSTS.values(), strict=True):
            panel.set_xlabel(label)
        panels[0][0].yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        figure.suptitle(_literal(f"{task}: {', '.join(models)}"))
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        paths = [directory / f"{task}.{ending}" for ending in ("svg", "png")]
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=150)
    return paths


def _costs(members: Sequence[ConfigResult], cost: str) -> list[float]:
    return [s.tokens.value if cost == "tokens" else s.seconds for s in members]


def _limits(shown: Sequence[ConfigResult], cost: str) -> tuple[float, float]:
    """Limits of the logarithmic cost axis.

    The margin is 12 % of the range on each side, but at least a factor of 1.5, because a single
    cost has no range. Costs of 0 cannot be on a logarithmic axis and are ignored.
    """
    costs = [value for value in _costs(shown, cost) if value > 0] or [1.0]
    low, high = min(costs), max(costs)
    room = max((high / low) ** 0.12, 1.5)
    return low / room, high * room


def _points(
    panel: Any, members: Sequence[ConfigResult], measure: str, cost: str, **look: Any
) -> None:
    """Draw one policy's points with their intervals and parameters.

    A line joins the points from the fewest tokens to the most.
    """
    costs = _costs(members, cost)
    estimates = [getattr(result, measure) for result in members]
    values = [estimate.value for estimate in estimates]
    reach = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
    lines = {"capsize": 2, "elinewidth": 0.7, "linewidth": 1.2, "markersize": 5}
    panel.errorbar(costs, values, yerr=reach, **lines, **look)
    for x, y, result in zip(costs, values, members, strict=True):
        note = panel.annotate(
            _literal(", ".join(result.parameters.values())),
            (x, y),
            (4, 4),
            textcoords="offset points",
            fontsize=7,
            color=look["color"],
        )
        note.set_in_layout(False)  # the panel does not shrink to make room for it


def _by_series(shown: Sequence[ConfigResult]) -> list[list[ConfigResult]]:
    """Group the results that differ only in their parameters, each group ordered by tokens."""
    found: dict[tuple[str, str], list[ConfigResult]] = {}
    for result in sorted(shown, key=lambda result: result.tokens.value):
        found.setdefault((result.series, result.model), []).append(result)
    return [found[key] for key in sorted(found)]


def _label(members: Sequence[ConfigResult], *, with_model: bool) -> str:
    """The legend's text: the series and the names of the parameters shown at its points."""
    names = ", ".join(dict.fromkeys(name for result in members for name in result.parameters))
    model = f" ({members[0].model})" if with_model else ""
    return _literal(f"{members[0].series}{model}{': ' if names else ''}{names}")


def _literal(text: str) -> str:
    """Escape a text so that matplotlib shows it unchanged.

    matplotlib reads text between two `$` as a formula, and leaves a label that begins with `_` out
    of the legend.
    """
    shown = text.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _published(row: Sequence[Any], figures: Sequence[ReferenceResult], measure: str) -> None:
    """Draw published results as lines across a row of panels, because their cost is not known.

    The lines' names stand at the right end of the row, at least 5 % apart.
    """
    known = [(getattr(figure, measure), figure) for figure in figures]
    place = -1.0
    for value, figure in sorted((k for k in known if k[0] is not None), key=lambda k: k[0]):
        for panel in row:
            panel.axhline(value, color="#8f99a5", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        place = max(value, place + 0.05)
        text = f"{figure.name} ({figure.model})"
        look = {
            "xycoords": ("axes fraction", "data"),
            "va": "center",
            "fontsize": 8,
            "color": "#66707c",
        }
        row[-1].annotate(text, (1.0, place), (4, 0), textcoords="offset points", **look)


def _any_of_b(shown: Sequence[ConfigResult]) -> str:
    return f"any-of-{'/'.join(map(str, sorted({result.b for result in shown})))}"
