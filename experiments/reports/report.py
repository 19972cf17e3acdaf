"""Write a report on finished runs: `treeshare-report RUN_DIRECTORY... --out DIRECTORY`.

The report is a Markdown page with a table for each task and a figure of accuracy against tokens and
wall time. Published results stand in both. Runs are read without locks, so a run that is still
going on is included with its finished puzzles.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from treeshare.experiments.results.directory import write_atomically
from treeshare.experiments.results.markdown import markdown_table
from treeshare.experiments.runs.command import print_error

from .finished_runs import ConfigResult, config_results, find_runs
from .intervals import Estimate
from .plots import draw
from .reference_results import REFERENCE_RESULTS, ReferenceResult


def main() -> int:
    """Run the console command.

    Returns:
        0; 2 if there is nothing to report or the report cannot be written.
    """
    parser = argparse.ArgumentParser(prog="treeshare-report", description=(__doc__ or "").strip())
    parser.add_argument("runs", type=Path, nargs="+", help="runs' directories, or any above them")
    parser.add_argument("--out", type=Path, default=Path("report"), help="default: report")
    arguments = parser.parse_args()
    try:
        page = write_report(arguments.runs, arguments.out)
    except (ImportError, OSError, ValueError) as error:
        return print_error("treeshare-report", str(error), 2)
    print(page)
    return 0


def write_report(paths: Sequence[Path], out: Path) -> Path:
    """Write the page and its figures into `out`.

    Args:
        paths: directories of runs, or any directories above them.
        out: the directory to write into; it is made if it does not exist.

    Returns:
        The path of the page.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: a file cannot be read or written.
        ValueError: there is no finished run.
    """
    found = config_results(find_runs(paths))
    out.mkdir(parents=True, exist_ok=True)
    sections = ["# Accuracy and what it costs"]
    for task in dict.fromkeys(result.task for result in found):
        shown = [result for result in found if result.task == task]
        vector, _ = draw(task, shown, out)
        title, image = escaped(task), quote(vector.name)
        sections.append(f"## {title}\n\n![{title}]({image})\n\n{section(task, shown)}")
    page = out / "report.md"
    write_atomically(page, "\n\n".join(sections) + "\n")
    return page


def section(task: str, shown: Sequence[ConfigResult]) -> str:
    """The section on one task: a table of our results and the published ones, and notes on both.

    Args:
        task: the task's name.
        shown: the results of this task.
    """
    grades = list(dict.fromkeys(name for result in shown for name in result.grades))
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
    rows = [_cells(result, grades) for result in shown]
    if task in REFERENCE_RESULTS:
        rows += [_published_cells(figure, len(head)) for figure in REFERENCE_RESULTS[task]]
    notes = [
        "Brackets hold 95 % intervals over puzzles: Wilson's, for means a bootstrap's; with "
        "several seeds a puzzle counts once, with its mean. Tokens (prompt and completion), KV "
        "entries computed, requests and seconds are a puzzle's; seconds are of a run over all its "
        "puzzles together."
    ]
    if len({result.puzzles for result in shown}) > 1:
        notes.append("**The runs are not all over the same puzzles.**")
    if any(result.is_oracle for result in shown):
        notes.append("In runs marked oracle the evaluator knew the answers.")
    if task in REFERENCE_RESULTS:
        sources = dict.fromkeys(f"{f.name}: {f.source}" for f in REFERENCE_RESULTS[task])
        notes.append("Published figures. " + ". ".join(sources) + ".")
    return "\n\n".join([markdown_table(head, rows, num_text_columns=2), *notes])


def _cells(result: ConfigResult, grades: Sequence[str]) -> list[str]:
    parameters = ", ".join(f"{name}={value}" for name, value in result.parameters.items())
    seeds = f" x {result.seeds} seeds" if result.seeds > 1 else ""
    return [
        escaped(f"{result.series} {parameters}".strip()),
        escaped(result.model),
        f"{len(result.puzzles):,}{seeds}",
        _percent(result.top1),
        _percent(result.any_of_b),
        str(result.b),
        _percent(result.mean_accuracy),
        *(f"{result.grades.get(name, 0.0):.1%}" for name in grades),
        f"{result.tokens.value:,.0f} [{result.tokens.low:,.0f}, {result.tokens.high:,.0f}]",
        f"{result.kv_tokens:,.0f}",
        f"{result.requests:,.1f}",
        f"{result.seconds:.3g}",
    ]


def _published_cells(figure: ReferenceResult, width: int) -> list[str]:
    accuracies = ("" if x is None else f"{x:.1%}" for x in (figure.top1, figure.any_of_b))
    cells = [f"*{figure.name}*", f"*{figure.model}*", "100", *accuracies, str(figure.b)]
    return cells + [""] * (width - len(cells))


def escaped(text: str) -> str:
    """Escape a name, so that it begins no HTML, table cell, link or image in Markdown."""
    return re.sub(r"[][&<>|`*~\\$]", lambda match: f"&#{ord(match[0])};", text)


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


if __name__ == "__main__":
    sys.exit(main())
