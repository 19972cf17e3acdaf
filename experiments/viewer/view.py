"""Show search trees as one HTML page: `treeshare-view PATH...`.

A path is a run's directory, a directory above several runs, or one of a run's trees/*.json. The
page needs no network and no other file. A run is read without locks, so it can be viewed while it
goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from treeshare.experiments.results.directory import write_atomically
from treeshare.experiments.runs.command import print_error

from .page import page
from .shown_runs import ViewError, read_runs


def main() -> int:
    """Run the console command.

    Returns:
        0; 2 if there is nothing to show or the page cannot be written.
    """
    parser = argparse.ArgumentParser(prog="treeshare-view", description=(__doc__ or "").strip())
    parser.add_argument(
        "paths", type=Path, nargs="+", help="runs' directories, any above them, or trees/*.json"
    )
    parser.add_argument(
        *("-o", "--output"),
        type=Path,
        help="default: view.html in the directory, or a page next to the tree; "
        "for several paths view.html here",
    )
    arguments = parser.parse_args()
    output: Path = arguments.output or _default_output(arguments.paths)
    try:
        text = page(read_runs(arguments.paths))
    except ViewError as error:
        return print_error("treeshare-view", str(error), 2)
    try:
        write_atomically(output, text)
    except OSError as error:
        return print_error("treeshare-view", f"{output}: {error.strerror}", 2)
    print(output)
    return 0


def tree_page(path: Path) -> str:
    """The page of one tree's file.

    Raises:
        ViewError: there is no such file, or it is not a tree.
    """
    return page(read_runs([path]))


def _default_output(paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        return Path("view.html")
    return paths[0] / "view.html" if paths[0].is_dir() else paths[0].with_suffix(".html")


if __name__ == "__main__":
    sys.exit(main())
