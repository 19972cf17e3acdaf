"""The report on finished runs: `treeshare-report RUN_DIRECTORY... --out DIRECTORY`.

A Markdown page with a table for each task and a figure of accuracy against tokens and wall time,
published figures beside ours. Reads runs without their locks, so that those under way count too.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from treeshare.experiments.results.directory import write_atomically
from treeshare.experiments.runs.command import complain

from .finished_runs import Setting, find_runs, settings
from .intervals import Estimate
from .plots import draw
from .reference_results import PUBLISHED, Published


def main() -> int:
    """The console command.

    Returns:
        0; 2 if there is nothing to report, or no place to write it.
    """
    parser = argparse.ArgumentParser(prog="treeshare-report", description=(__doc__ or "").strip())
    parser.add_argument("runs", type=Path, nargs="+", help="runs' directories, or any above them")
    parser.add_argument("--out", type=Path, default=Path("report"), help="default: report")
    arguments = parser.parse_args()
    try:
        page = write_report(arguments.runs, arguments.out)
    except (ImportError, OSError, ValueError) as error:
        return complain("treeshare-report", str(error), 2)
    print(page)
    return 0


def write_report(paths: Sequence[Path], out: Path) -> Path:
    """Write the page and its figures into `out`.

    Returns:
        The page.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: a file cannot be read or written.
        ValueError: there is no finished run.
    """
    found = settings(find_runs(paths))
    out.mkdir(parents=True, exist_ok=True)
    sections = ["# Accuracy and what it costs"]
    for task in dict.fromkeys(setting.task for setting in found):
        shown = [setting for setting in found if setting.task == task]
        vector, _ = draw(task, shown, out)
        title, image = escaped(task), quote(vector.name)
        sections.append(f"## {title}\n\n![{title}]({image})\n\n{section(task, shown)}")
    page = out / "report.md"
    write_atomically(page, "\n\n".join(sections) + "\n")
    return page


def section(task: str, shown: Sequence[Setting]) -> str:
    """The table of one task, the published figures and what to know of both."""
    grades = list(dict.fromkeys(name for setting in shown for name in setting.grades))
    head = [
        "run",
        "model",
        "puzzles",
        "top-1",
        "any-of-b",
        "b",
        "mean accuracy",
        *map(escaped, grades),
    ]
    head += ["tokens", "KV computed", "requests", "seconds"]
    rows = [_cells(setting, grades) for setting in shown]
    if task in PUBLISHED:
        rows += [_published_cells(figure, len(head)) for figure in PUBLISHED[task]]
    notes = [
        "Brackets hold 95 % intervals over puzzles: Wilson's, for means a bootstrap's; with "
        "several seeds a puzzle counts once, with its mean. Tokens (prompt and completion), KV "
        "entries computed, requests and seconds are a puzzle's; seconds are of a run over all its "
        "puzzles together."
    ]
    if len({setting.puzzles for setting in shown}) > 1:
        notes.append("**The runs are not all over the same puzzles.**")
    if any(setting.is_oracle for setting in shown):
        notes.append("Runs marked oracle were told the answers.")
    if task in PUBLISHED:
        sources = dict.fromkeys(f"{f.name}: {f.source}" for f in PUBLISHED[task])
        notes.append("Published figures. " + ". ".join(sources) + ".")
    return "\n\n".join([_table(head, rows), *notes])


def _cells(setting: Setting, grades: Sequence[str]) -> list[str]:
    parameters = ", ".join(f"{name}={value}" for name, value in setting.parameters.items())
    seeds = f" x {setting.seeds} seeds" if setting.seeds > 1 else ""
    return [
        escaped(f"{setting.series} {parameters}".strip()),
        escaped(setting.model),
        f"{len(setting.puzzles):,}{seeds}",
        _percent(setting.top1),
        _percent(setting.any_of_b),
        str(setting.b),
        _percent(setting.mean_accuracy),
        *(f"{setting.grades.get(name, 0.0):.1%}" for name in grades),
        f"{setting.tokens.value:,.0f} [{setting.tokens.low:,.0f}, {setting.tokens.high:,.0f}]",
        f"{setting.kv_tokens:,.0f}",
        f"{setting.calls:,.1f}",
        f"{setting.seconds:.3g}",
    ]


def _published_cells(figure: Published, width: int) -> list[str]:
    accuracies = ("" if x is None else f"{x:.1%}" for x in (figure.top1, figure.any_of_b))
    cells = [f"*{figure.name}*", f"*{figure.model}*", "100", *accuracies, str(figure.b)]
    return cells + [""] * (width - len(cells))


def escaped(text: str) -> str:
    """A name as Markdown that shows it: no HTML, cell of a table, link or image begins in it."""
    return re.sub(r"[][&<>|`*~\\$]", lambda match: f"&#{ord(match[0])};", text)


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", "---"] + ["--:"] * (len(head) - 2)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


if __name__ == "__main__":
    sys.exit(main())
