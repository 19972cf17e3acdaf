"""Search trees as one HTML page: `treeshare-view RUN_DIRECTORY` or `treeshare-view TREE.json`.

Puts the data of a run, or of one tree, into viewer.html. The page needs no network and no other
file; what it looks like and how it behaves is that template's affair. Reads a run without its
locks, so one that is under way can be looked at.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .record import Row, RowType, Session, read_rows, write_atomically
from .report import Totals

TEMPLATE = Path(__file__).with_name("viewer.html")


class ViewError(Exception):
    """There is nothing to show at that path. The message is one line for the user."""


def main() -> int:
    """The console command.

    Returns:
        0; 2 if there is nothing to show, or no place to write it.
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
        return _complain(str(error))
    try:
        write_atomically(output, text)
    except OSError as error:
        return _complain(f"{output}: {error.strerror}")
    print(output)
    return 0


def run_page(directory: Path) -> str:
    """All trees of a run, each with its row of results.jsonl, and the run's totals.

    Raises:
        ViewError: it is no run's directory, it holds no tree, or a file in it cannot be read.
    """
    if not (directory / "results.jsonl").is_file():
        raise ViewError(f"{directory} is not a run's directory: it has no results.jsonl")
    paths = sorted((directory / "trees").glob("*.json"))
    if not paths:
        raise ViewError(
            f"{directory}/trees holds no tree; was the run started with save_trees=false?"
        )
    rows = _read_rows(directory / "results.jsonl", Row)
    sessions = _read_rows(directory / "sessions.jsonl", Session)
    row_of = {row.problem: asdict(row) for row in rows}
    trees = {path: read_tree(path) for path in paths}
    problems = {path: problem_of(path, tree) for path, tree in trees.items()}
    order = {problem: i for i, problem in enumerate(row_of)}
    paths.sort(key=lambda path: order.get(problems[path], len(order)))  # as they ended
    run = {
        "title": " / ".join(directory.resolve().parts[-4:]),  # task, policy, model, id
        "totals": asdict(Totals.of(rows, sessions)),
        "trees": [{"problem": problems[p], "row": row_of.get(problems[p])} for p in paths],
    }
    return page(run, [trees[path] for path in paths])


def tree_page(path: Path) -> str:
    """One tree.

    Raises:
        ViewError: there is no such file, or it is not a tree.
    """
    tree = read_tree(path)
    entry = {"problem": problem_of(path, tree), "row": None}
    return page({"title": path.name, "totals": None, "trees": [entry]}, [tree])


def page(run: Mapping[str, Any], trees: Sequence[Mapping[str, Any]]) -> str:
    """The template with the data in it.

    Args:
        run: `title`, `totals` (of `Totals`, or None), and `trees`: `problem` and `row` for each.
        trees: node-link data, in the order of `run["trees"]`. The page reads a tree when it is
            selected.
    """
    before, marker, after = TEMPLATE.read_text(encoding="utf-8").partition("<!-- data -->")
    assert marker, "the template has no place for the data"
    blocks = [_script("run", run)]
    blocks += [_script(f"tree-{i}", tree) for i, tree in enumerate(trees)]
    return before + "\n".join(blocks) + after


def read_tree(path: Path) -> dict[str, Any]:
    """Node-link data as `SearchGraph.to_json` writes it.

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
    """The problem a tree belongs to; one without a note of it has it in its name."""
    return str(tree["graph"].get("problem") or unquote(path.stem.replace("+", "/")))


def _check(tree: Any) -> None:
    """What the page relies on: ids in creation order, and edges to later nodes only."""
    if not isinstance(tree, dict) or not isinstance(tree["graph"], dict):
        raise TypeError("it is not node-link JSON")
    ids = [node["id"] for node in tree["nodes"]]
    if ids != list(range(len(ids))) or not ids:
        raise ValueError("its node ids are not 0, 1, 2, ...")
    reached = {0}
    for edge in tree["edges"]:
        source, target = edge["source"], edge["target"]
        if not (source in range(len(ids)) and target in range(source + 1, len(ids))):
            raise ValueError(f"edge {source!r} to {target!r} does not lead to a later node")
        reached.add(target)
    if len(reached) < len(ids):
        raise ValueError(f"node {min(set(ids) - reached)} has no parent")
    for node in tree["graph"].get("ranked") or []:
        if node not in range(len(ids)):
            raise ValueError(f"it ranks node {node!r} of {len(ids)}")


def _read_rows(path: Path, row_type: Callable[..., RowType]) -> list[RowType]:
    """The finished lines of a file that may still grow."""
    try:
        return read_rows(path, row_type)
    except OSError as error:
        raise ViewError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ViewError(str(error)) from None


def _script(name: str, data: Any) -> str:
    """Inert data: no text in it can end the element, as `<` occurs in JSON's strings only."""
    text = json.dumps(_spelled(data), separators=(",", ":"), allow_nan=False)
    escaped = text.replace("<", r"\u003c")
    return f'<script type="application/json" id="{name}">{escaped}</script>'


def _spelled(data: Any) -> Any:
    """Numbers that JSON has not, by the names JavaScript gives them."""
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if isinstance(data, dict):
        return {key: _spelled(value) for key, value in data.items()}
    return [_spelled(value) for value in data] if isinstance(data, list) else data


def _complain(message: str) -> int:
    print(f"treeshare-view: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
