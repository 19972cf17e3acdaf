"""Write training data made of finished runs: `treeshare-export RUN... --format FORMAT`.

Each line is a JSON object; `datasets.load_dataset("json", data_files=...)` loads them. They are
solutions with a right answer (sft), pairs of steps that follow one node (preferences), or solutions
with the Monte-Carlo value of each step (steps), in the forms that TRL's trainers read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from treeshare.experiments.reports.configurations import run_directories
from treeshare.experiments.runs.command import prepare_process, print_error
from treeshare.experiments.runs.config import SetupError, explained

from .exported_runs import Counts, ExportedRun, lines_of_run, read_run
from .lines import LineOptions

FORMATS = {"sft": "paths", "preferences": "pairs", "steps": "solutions"}
"""The formats, each with the name of its lines."""


def main() -> int:
    """Run the console command.

    Returns:
        0; 2 if nothing can be exported.
    """
    given = _parser().parse_args()
    counts = Counts()
    try:
        with explained():
            most = 4 if given.most is None and given.format == "preferences" else given.most
            options = LineOptions(given.format, given.style, given.value, given.margin, most)
            if given.trust:
                prepare_process()  # the user's modules are found in the working directory
            runs = [
                read_run(path, trust=given.trust, allow_test=given.allow_test)
                for path in run_directories(given.runs)
            ]
            if not runs:
                raise ValueError(f"no run in {', '.join(map(str, given.runs))}")
            with _output(given.output) as file:
                _write(file, runs, options, counts)
    except SetupError as error:
        code = print_error("treeshare-export", str(error), 2)
    else:
        code = 0
    if counts.lines or counts.skipped:
        print(_summary(counts, FORMATS[given.format], len(runs)), file=sys.stderr)
    return code


def _write(file: TextIO, runs: list[ExportedRun], options: LineOptions, counts: Counts) -> None:
    for run in runs:
        for line in lines_of_run(run, options, counts):
            # a lone surrogate, which no other program reads, becomes a question mark
            text = json.dumps(line, ensure_ascii=False, allow_nan=False)
            file.write(text.encode(errors="replace").decode() + "\n")
    if not counts.lines:
        raise ValueError(f"there are no {FORMATS[options.format]} to export")


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """A file that appears complete or not at all; standard output without a path.

    Raises:
        OSError: it cannot be written.
    """
    if path is None:
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError as error:
            # Python would write the rest of the buffer when it ends, and would fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise OSError("standard output: its reader has ended") from error
        return
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _summary(counts: Counts, kind: str, num_runs: int) -> str:
    rows = [("runs", num_runs), ("puzzles", counts.puzzles), (kind, counts.lines)]
    if counts.steps:
        rows.append(("steps", counts.steps))
    lines = [f"{name:<10} {count:,}" for name, count in rows]
    for reason, count in counts.skipped.most_common():
        lines.append(f"{'skipped':<10} {count:,}: {reason}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="treeshare-export", description=(__doc__ or "").strip())
    add = parser.add_argument
    add("runs", type=Path, nargs="+", help="runs' directories, or any above them")
    add("--format", choices=FORMATS, required=True)
    add(*("-o", "--output"), type=Path, help="a file of JSON lines; default: standard output")
    add(
        "--style",
        choices=("chat", "text"),
        default="chat",
        help="of sft: messages, or prompt and completion; default: chat",
    )
    add(
        "--most",
        type=int,
        help="the most lines of a puzzle, best first, or of preferences the most pairs of a node; "
        "default: all, and 4 pairs",
    )
    add(
        "--margin",
        type=float,
        default=0.0,
        help="of preferences: the least difference of the two values; default: any above 0",
    )
    add(
        "--value",
        choices=("search", "solved"),
        default="search",
        help="of preferences: the search's own values, or the shares of right answers below the "
        "steps; default: search",
    )
    add("--allow-test", action="store_true", help="export test splits as well")
    add("--trust", action="store_true", help="run code that the runs' config.yaml names")
    return parser


if __name__ == "__main__":
    sys.exit(main())
