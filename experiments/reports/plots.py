"""Plots of accuracy against what it costs: one figure a task, by matplotlib (extra `report`).

Four panels: top-1 and any-of-b, each against tokens and against wall time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from .finished_runs import Setting
from .reference_results import PUBLISHED, Published

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


def draw(task: str, shown: Sequence[Setting], directory: Path) -> list[Path]:
    """Write the figure of one task as SVG and PNG.

    Returns:
        The files.

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
        models = dict.fromkeys(setting.model for setting in shown)
        looks = list(zip(cycle(colors), cycle(_MARKERS), _by_series(shown)))
        measures = {"top1": "top-1", "any_of_b": _any_of_b(shown)}
        for row, (measure, title) in zip(panels, measures.items(), strict=True):
            for panel, cost in zip(row, _COSTS, strict=True):
                panel.set(xscale="log", xlim=_limits(shown, cost), ylim=(-0.03, 1.03))
                for color, marker, members in looks:
                    label = _label(members, is_model_told=len(models) > 1)
                    _points(
                        panel, members, measure, cost, fmt=f"-{marker}", color=color, label=label
                    )
            row[0].set_ylabel(f"puzzles solved, {title}")
            _published(row, PUBLISHED.get(task, ()), measure)
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


def _costs(members: Sequence[Setting], cost: str) -> list[float]:
    return [s.tokens.value if cost == "tokens" else s.seconds for s in members]


def _limits(shown: Sequence[Setting], cost: str) -> tuple[float, float]:
    """Of a logarithmic axis: 12 % beyond the costs on either side, and half as much again at least,
    as one cost alone has no range. What costs nothing has no place on it."""
    costs = [value for value in _costs(shown, cost) if value > 0] or [1.0]
    low, high = min(costs), max(costs)
    room = max((high / low) ** 0.12, 1.5)
    return low / room, high * room


def _points(panel: Any, members: Sequence[Setting], measure: str, cost: str, **look: Any) -> None:
    """Points of one policy with their intervals, joined from the fewest tokens to the most; beside
    each the parameters that set it apart."""
    costs = _costs(members, cost)
    estimates = [getattr(setting, measure) for setting in members]
    values = [estimate.value for estimate in estimates]
    reach = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
    lines = {"capsize": 2, "elinewidth": 0.7, "linewidth": 1.2, "markersize": 5}
    panel.errorbar(costs, values, yerr=reach, **lines, **look)
    for x, y, setting in zip(costs, values, members, strict=True):
        note = panel.annotate(
            _literal(", ".join(setting.parameters.values())),
            (x, y),
            (4, 4),
            textcoords="offset points",
            fontsize=7,
            color=look["color"],
        )
        note.set_in_layout(False)  # the panel does not shrink to make room for it


def _by_series(shown: Sequence[Setting]) -> list[list[Setting]]:
    """Settings that differ in parameters alone, by tokens."""
    found: dict[tuple[str, str], list[Setting]] = {}
    for setting in sorted(shown, key=lambda setting: setting.tokens.value):
        found.setdefault((setting.series, setting.model), []).append(setting)
    return [found[key] for key in sorted(found)]


def _label(members: Sequence[Setting], *, is_model_told: bool) -> str:
    """The series, and the names of the parameters whose values stand beside its points."""
    names = ", ".join(dict.fromkeys(name for setting in members for name in setting.parameters))
    model = f" ({members[0].model})" if is_model_told else ""
    return _literal(f"{members[0].series}{model}{': ' if names else ''}{names}")


def _literal(text: str) -> str:
    """The text as matplotlib shows it letter by letter: between two `$` it would read a formula,
    and a label that begins with `_` it would leave out of the legend."""
    shown = text.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _published(row: Sequence[Any], figures: Sequence[Published], measure: str) -> None:
    """Published figures, whose cost is not known: lines across a row of panels, named at its end,
    the names 5 % apart at least."""
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


def _any_of_b(shown: Sequence[Setting]) -> str:
    return f"any-of-{'/'.join(map(str, sorted({setting.b for setting in shown})))}"
