"""Show search trees as one HTML page: `treeshare-view RUN_DIRECTORY` or `treeshare-view TREE.json`.

The data of a run, or of one tree, are put into viewer.html, which draws them. The page needs no
network and no other file. A run is read without locks, so it can be viewed while it goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from treeshare.experiments.results.directory import read_rows, write_atomically
from treeshare.experiments.results.rows import Row, Session, check_results
from treeshare.experiments.results.summary import Totals
from treeshare.experiments.runs.command import print_error

TEMPLATE = Path(__file__).with_name("viewer.html")
"""The page without data."""


class ViewError(Exception):
    """A path that holds nothing to show. The message is one line for the user."""


def main() -> int:
    """Run the console command.

    Returns:
        0; 2 if there is nothing to show or the page cannot be written.
    """
    parser = argparse.ArgumentParser(prog="treeshare-view", description=(__doc__ or "").strip())
    parser.add_argument("path", type=Path, help="a run's directory, or one of its trees/*.json")
    parser.add_argument(
        "-o", "--output", type=Path, help="default: view.html in the run, or beside the tree"
    )
    arguments = parser.parse_args()
    path: Path = arguments.path
    beside = path / "view.html" if path.is_dir() else path.with_suffix(".html")
    output: Path = arguments.output or beside
    try:
        text = run_page(path) if path.is_dir() else tree_page(path)
    except ViewError as error:
        return print_error("treeshare-view", str(error), 2)
    try:
        write_atomically(output, text)
    except OSError as error:
        return print_error("treeshare-view", f"{output}: {error.strerror}", 2)
    print(output)
    return 0


def run_page(directory: Path) -> str:
    """Make the page of a run: its totals and its trees, each with its row of results.jsonl.

    Raises:
        ViewError: it is not a run's directory, it holds no tree, or a file in it cannot be read.
    """
    if not (directory / "results.jsonl").is_file():
        raise ViewError(f"{directory} is not a run's directory: it has no results.jsonl")
    paths = sorted((directory / "trees").glob("*.json"))
    if not paths:
        raise ViewError(
            f"{directory}/trees holds no tree; was the run started with save_trees=false, or were "
            "they removed?"
        )
    rows, sessions = _rows_of(directory)
    row_of = {row.problem: asdict(row) for row in rows}
    trees = {path: read_tree(path) for path in paths}
    problems = {path: problem_of(path, tree) for path, tree in trees.items()}
    num_missing = len(row_of.keys() - set(problems.values()))
    missing = f" ({num_missing} of {len(row_of)} trees are missing)" if num_missing else ""
    order = {problem: i for i, problem in enumerate(row_of)}
    paths.sort(key=lambda path: order.get(problems[path], len(order)))  # as they ended
    run = {
        "title": " / ".join(directory.resolve().parts[-4:]) + missing,  # task, policy, model, id
        "totals": asdict(Totals.of(rows, sessions)),
        "trees": [{"problem": problems[p], "row": row_of.get(problems[p])} for p in paths],
    }
    return page(run, [trees[path] for path in paths])


def tree_page(path: Path) -> str:
    """Make the page of one tree.

    Raises:
        ViewError: there is no such file, or it is not a tree.
    """
    tree = read_tree(path)
    entry = {"problem": problem_of(path, tree), "row": None}
    return page({"title": path.name, "totals": None, "trees": [entry]}, [tree])


def page(run: Mapping[str, Any], trees: Sequence[Mapping[str, Any]]) -> str:
    """Put data into the template.

    Args:
        run: `title`, `totals` (the fields of `Totals`, or None), and `trees` with a `problem` and a
            `row` for each.
        trees: node-link data, in the order of `run["trees"]`. The page parses a tree only when it
            is selected.
    """
    before, marker, after = TEMPLATE.read_text(encoding="utf-8").partition("<!-- data -->")
    assert marker, "the template has no place for the data"
    blocks = [_script("run", run)]
    blocks += [_script(f"tree-{i}", tree) for i, tree in enumerate(trees)]
    return before + "\n".join(blocks) + after


def read_tree(path: Path) -> dict[str, Any]:
    """Read node-link data as `SearchGraph.to_json` writes it.

    Raises:
        ViewError: there is no such file, or it is not a tree.
    """
    try:
        tree = json.loads(path.read_bytes())
    except OSError as error:
        raise ViewError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ViewError(f"{path} is not a tree: {error}") from None
    try:
        _check(tree)
    except (KeyError, TypeError) as error:
        missing = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise ViewError(f"{path} is not a tree: {missing}") from None
    except ValueError as error:
        raise ViewError(f"{path} is not a tree: {error}") from None
    assert isinstance(tree, dict)
    return tree


def problem_of(path: Path, tree: Mapping[str, Any]) -> str:
    """The id of a tree's problem, taken from the file's name if the tree does not hold it."""
    return str(tree["graph"].get("problem") or unquote(path.stem.replace("+", "/")))


def _check(tree: Any) -> None:
    """Check what the page relies on.

    Ids are in creation order, edges lead to later nodes only, and lists and numbers have these
    types. Types are compared strictly, because 1 equals true and 1.0 in Python but not in the page.

    Raises:
        KeyError: a key is missing.
        TypeError: a value is of a wrong type.
        ValueError: ids or edges are wrong.
    """
    if not isinstance(tree, dict) or not isinstance(tree["graph"], dict):
        raise TypeError("it is not node-link JSON")
    about, nodes, edges = tree["graph"], tree["nodes"], tree["edges"]
    if not isinstance(nodes, list) or not isinstance(edges, list):
        raise TypeError("its nodes and edges are not lists")
    ids = [node["id"] for node in nodes]
    if ids != list(range(len(ids))) or not ids or not _are_whole(ids):
        raise ValueError("its node ids are not 0, 1, 2, ...")
    reached = {0}
    for edge in edges:
        source, target = edge["source"], edge["target"]
        is_forward = _are_whole([source, target]) and 0 <= source < target < len(ids)
        if not is_forward:
            raise ValueError(f"edge {source!r} to {target!r} does not lead to a later node")
        reached.add(target)
    if len(reached) < len(ids):
        raise ValueError(f"node {min(set(ids) - reached)} has no parent")
    for key in ("ranked", "answers"):
        if not isinstance(about.get(key) or [], list):
            raise TypeError(f"its {key} are not a list")
    for node in about.get("ranked") or []:
        if not _are_whole([node]) or node not in range(len(ids)):
            raise ValueError(f"it ranks node {node!r} of {len(ids)}")


def _are_whole(numbers: Sequence[Any]) -> bool:
    return all(type(number) is int for number in numbers)


def _rows_of(directory: Path) -> tuple[list[Row], list[Session]]:
    """Read the complete lines of a run's files, which another process may extend.

    Raises:
        ViewError: a file cannot be read, or its rows cannot belong to one run.
    """
    results = directory / "results.jsonl"
    try:
        rows = read_rows(results, Row)
        check_results(results, rows)
        return rows, read_rows(directory / "sessions.jsonl", Session)
    except OSError as error:
        raise ViewError(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise ViewError(str(error)) from None


def _script(name: str, data: Any) -> str:
    """A script element of JSON data. Escaping `<` keeps any text from ending the element."""
    text = json.dumps(_with_named_numbers(data), separators=(",", ":"), allow_nan=False)
    escaped = text.replace("<", r"\u003c")
    return f'<script type="application/json" id="{name}">{escaped}</script>'


def _with_named_numbers(data: Any) -> Any:
    """Replace NaN and infinities, which JSON lacks, by the names that JavaScript gives them."""
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if isinstance(data, dict):
        return {key: _with_named_numbers(value) for key, value in data.items()}
    return [_with_named_numbers(value) for value in data] if isinstance(data, list) else data


if __name__ == "__main__":
    sys.exit(main())
