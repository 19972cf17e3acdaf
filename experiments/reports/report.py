"""Write a report on finished runs: `treeshare-report RUN_DIRECTORY... --out DIRECTORY`.

The report is one page for all runs. For each task it has a figure of accuracy against cost, a table
with published results next to ours, and paired tests. Runs are read without locks, so a run that is
still going on is included with its finished puzzles.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from treeshare.experiments.results.directory import write_atomically
from treeshare.experiments.runs.command import print_error

from .config_results import ConfigResult, config_results
from .finished_runs import find_runs
from .paired_tests import paired_comparisons
from .plots import COSTS, figure_files
from .tables import pairs_table, results_table
from .writers import Section, csv_table, data_address, html_page, latex_page, markdown_page

FORMATS = ("md", "csv", "tex", "html")
"""The endings of the pages that can be written."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the report is to hold."""

    formats: Sequence[str] = ("md",)
    costs: Sequence[str] = tuple(COSTS)  # what accuracy is plotted against
    columns: Sequence[str] = ()  # keys of the columns of the results; none stand for all
    baseline: str | None = None  # label of the run that all others are compared with
    answers: int | None = None  # answers that count; None takes the number of each run


def main() -> int:
    """Run the console command.

    Returns:
        0; 2 if there is nothing to report or the report cannot be written.
    """
    parser = argparse.ArgumentParser(prog="treeshare-report", description=(__doc__ or "").strip())
    add = parser.add_argument
    add("runs", type=Path, nargs="+", help="runs' directories, or any above them")
    add(
        *("-o", "--out"),
        type=Path,
        default=Path("report"),
        help="a directory, or a file whose ending is a format; default: report",
    )
    add(
        "--format",
        type=_several(FORMATS),
        default=("md",),
        help=f"one or more of {', '.join(FORMATS)}; default: md",
    )
    add(
        "--x",
        type=_several(COSTS),
        default=tuple(COSTS),
        help=f"what to plot accuracy against; default: {','.join(COSTS)}",
    )
    add(
        "--columns",
        type=_several(),
        default=(),
        help="columns of the results, such as run,top1,tokens; default: all",
    )
    add("--baseline", help="compare all others with this run, named as in the table")
    add("--answers", type=int, help="how many answers count; default: the number of each run")
    given = parser.parse_args()
    options = Options(given.format, given.x, given.columns, given.baseline, given.answers)
    try:
        pages = write_report(given.runs, given.out, options)
    except (ImportError, OSError, ValueError) as error:
        return print_error("treeshare-report", str(error), 2)
    print(*pages, sep="\n")
    return 0


def write_report(paths: Sequence[Path], out: Path, options: Options) -> list[Path]:
    """Write the pages and their figures.

    Args:
        paths: directories of runs, or any directories above them.
        out: a file, if its ending is that of a format, which is then the only one. Otherwise a
            directory to write into; it is made if it does not exist.
        options: what to write.

    Returns:
        The paths of the pages.

    Raises:
        ImportError: matplotlib or scipy is not installed.
        OSError: a file cannot be read or written.
        ValueError: there is no finished run, or the options name a run or a column that does not
            exist.
    """
    is_file = out.suffix[1:] in FORMATS and not out.is_dir()
    folder, stem = (out.parent, out.stem) if is_file else (out, "report")
    formats = [out.suffix[1:]] if is_file else options.formats
    found = config_results(find_runs(paths, answers=options.answers))
    labels = dict.fromkeys(result.label for result in found)
    if options.baseline is not None and options.baseline not in labels:
        raise ValueError(f"no run is named {options.baseline!r}; there are {', '.join(labels)}")
    by_task: dict[str, list[ConfigResult]] = {}
    for result in found:
        by_task.setdefault(result.task, []).append(result)
    sections = [_section(task, shown, options) for task, shown in by_task.items()]

    def figures(task: str, *kinds: str) -> list[bytes]:
        return figure_files(task, by_task[task], options.costs, kinds)

    folder.mkdir(parents=True, exist_ok=True)
    pages = [folder / f"{stem}.{kind}" for kind in formats]
    for page in pages:
        _WRITERS[page.suffix[1:]](page, sections, figures)
    return pages


def _section(task: str, shown: Sequence[ConfigResult], options: Options) -> Section:
    results = results_table(task, shown)
    if options.columns:
        results = results.with_columns(options.columns)
    pairs, num_without = paired_comparisons(shown, options.baseline)
    return Section(task, results, pairs_table(pairs, num_without) if pairs else None)


Figures = Callable[..., list[bytes]]
"""Draws the figure of a task and returns it as files of the given kinds."""


def _write_markdown(page: Path, sections: Sequence[Section], figures: Figures) -> None:
    shown = []
    for section in sections:
        name = _file_name(section.task)
        for kind, data in zip(("svg", "png"), figures(section.task, "svg", "png"), strict=True):
            (page.parent / f"{name}.{kind}").write_bytes(data)
        shown.append(replace(section, image=quote(f"{name}.svg")))
    write_atomically(page, markdown_page(shown))


def _write_latex(page: Path, sections: Sequence[Section], figures: Figures) -> None:
    for section in sections:
        (data,) = figures(section.task, "pdf")
        (page.parent / f"{_file_name(section.task)}.pdf").write_bytes(data)
    write_atomically(page, latex_page(sections))


def _write_html(page: Path, sections: Sequence[Section], figures: Figures) -> None:
    images = [data_address(*figures(section.task, "svg")) for section in sections]
    shown = [replace(section, image=image) for section, image in zip(sections, images, strict=True)]
    write_atomically(page, html_page(shown))


def _write_csv(page: Path, sections: Sequence[Section], figures: Figures) -> None:
    """Write the results, and the paired tests to a second file; neither has a figure."""
    pairs = [(section.task, section.pairs) for section in sections if section.pairs is not None]
    if pairs:
        write_atomically(page.with_suffix(".pairs.csv"), csv_table(pairs))
    write_atomically(page, csv_table([(section.task, section.results) for section in sections]))


_WRITERS = {"md": _write_markdown, "csv": _write_csv, "tex": _write_latex, "html": _write_html}


def _file_name(task: str) -> str:
    """A file's name for a task: the task's name, escaped, and cut if it is long."""
    name = quote(task, safe=" ")
    digest = sha256(task.encode(errors="surrogatepass")).hexdigest()[:8]
    return name if len(name) <= 100 else f"{name[:100]}-{digest}"


def _several(known: Collection[str] = ()) -> Callable[[str], tuple[str, ...]]:
    """A parser of an option whose value is a list with commas, of known words if there are any."""

    def parse(text: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(text.split(",")))
        for word in words:
            if known and word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return words

    return parse


if __name__ == "__main__":
    sys.exit(main())
