"""Read what a page shows: runs with their puzzles, failures and trees.

The directories may come from another machine, so their contents are not trusted: they are checked,
and their size is limited.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from treeshare.experiments.reports.configurations import (
    RunConfig,
    differences,
    read_configs,
    run_directories,
)
from treeshare.experiments.results.directory import read_rows
from treeshare.experiments.results.rows import FailedSearch, Row, Session, check_results
from treeshare.experiments.results.summary import Totals

MOST_BYTES = 256 * 2**20
"""The most that the files of a page may have in all. Browsers fail on much larger pages."""


class ViewError(Exception):
    """A path that holds nothing to show. The message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One puzzle of a run."""

    problem: str
    row: Row | None = None  # None if it is not finished
    failure: FailedSearch | None = None
    tree: str | None = None  # node-link JSON for the page; None if it was not saved


@dataclass(frozen=True, slots=True)
class ShownRun:
    """A run as the page shows it. A tree without its run has no totals."""

    title: str
    name: str  # shorter: what distinguishes it from the other runs of the page
    entries: Sequence[Entry]
    totals: Totals | None = None


def read_runs(paths: Sequence[Path], most_bytes: int = MOST_BYTES) -> list[ShownRun]:
    """Read all that a page is to show.

    Args:
        paths: directories of runs, directories above them, or files of trees.
        most_bytes: the most that the files may have in all.

    Raises:
        ViewError: a path holds nothing to show, a file cannot be read, or the files are larger.
    """
    reader = _Reader(most_bytes)
    folders = [path for path in paths if path.is_dir()]
    try:
        directories = run_directories(folders)
        configs = read_configs(directories)
        runs = [
            reader.run(directory, config, name)
            for name, directory, config in sorted(
                zip(_names(configs), directories, configs, strict=True), key=lambda run: run[0]
            )
        ]
    except OSError as error:
        raise ViewError(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise ViewError(str(error)) from None
    for folder in folders:
        if not any(directory.is_relative_to(folder.resolve()) for directory in directories):
            raise ViewError(f"{folder} holds no run: no results.jsonl next to a config.yaml")
    if runs and not any(entry.tree or entry.failure for run in runs for entry in run.entries):
        raise ViewError(
            f"{directories[0]}/trees holds no tree; was the run started with save_trees=false, or "
            "were they removed?"
        )
    trees = [path for path in paths if path not in folders]
    return runs + [ShownRun(path.name, path.name, [reader.tree(path)]) for path in trees]


class _Reader:
    """Reads files as long as they do not have too many bytes in all."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._num_bytes = 0

    def run(self, directory: Path, config: RunConfig, name: str) -> ShownRun:
        """Read a run's directory.

        Raises:
            OSError: a file cannot be read.
            ValueError: the rows cannot belong to one run.
            ViewError: a tree cannot be read, or the files are too large.
        """
        rows: list[Row] = self._rows(directory / "results.jsonl", Row)
        check_results(directory / "results.jsonl", rows)
        failed: list[FailedSearch] = self._rows(directory / "failures.jsonl", FailedSearch)
        sessions: list[Session] = self._rows(directory / "sessions.jsonl", Session)
        trees = [self.tree(path) for path in sorted((directory / "trees").glob("*.json"))]
        tree_of = {entry.problem: entry.tree for entry in trees}
        row_of = {row.problem: row for row in rows}
        failure_of = {failure.problem: failure for failure in failed}
        num_missing = len(row_of.keys() - tree_of) if trees else 0
        missing = f" ({num_missing} of {len(rows)} trees are missing)" if num_missing else ""
        parts = (config.task, config.name, config.model, _own_name(directory))
        return ShownRun(
            title=f"{' / '.join(parts)}{missing}",
            name=name,
            entries=[
                Entry(problem, row_of.get(problem), failure_of.get(problem), tree_of.get(problem))
                for problem in {**row_of, **failure_of, **tree_of}  # finished ones as they ended
            ],
            totals=Totals.of(rows, sessions),
        )

    def tree(self, path: Path) -> Entry:
        """Read a tree as `SearchGraph.to_json` writes it.

        Raises:
            ViewError: there is no such file, it is not a tree, or it is too large.
        """
        try:
            self._count(path)
            tree = json.loads(path.read_bytes())
        except OSError as error:
            raise ViewError(f"{path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise ViewError(f"{path} is not a tree: {error}") from None
        try:
            check_tree(tree)
            text = json_text(tree)
        except (KeyError, TypeError) as error:
            missing = f"no key {error}" if isinstance(error, KeyError) else str(error)
            raise ViewError(f"{path} is not a tree: {missing}") from None
        except ValueError as error:
            raise ViewError(f"{path} is not a tree: {error}") from None
        return Entry(_problem_of(path, tree), tree=text)

    def _rows(self, path: Path, row_type: Any) -> list[Any]:
        if not path.exists():
            return []
        self._count(path)
        return read_rows(path, row_type)

    def _count(self, path: Path) -> None:
        """Count a file's bytes before it is read.

        Raises:
            OSError: there is no such file.
            ViewError: it is no regular file, or there are too many bytes.
        """
        size = path.stat().st_size
        if not path.is_file():
            raise ViewError(f"{path} is not a file")
        self._num_bytes += size
        if self._num_bytes > self._most_bytes:
            raise ViewError(
                f"{path}: the files of a page may have {self._most_bytes:,} bytes in all; name "
                "fewer runs, or single trees"
            )


def json_text(data: Any) -> str:
    """JSON for a script element of the page.

    Escaping `<` keeps any text from ending the element. NaN and infinities, which JSON lacks, are
    replaced by the names that JavaScript gives them.
    """
    text = json.dumps(_with_named_numbers(data), separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c")


def _with_named_numbers(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if isinstance(data, dict):
        return {key: _with_named_numbers(value) for key, value in data.items()}
    return [_with_named_numbers(value) for value in data] if isinstance(data, list) else data


def _problem_of(path: Path, tree: Mapping[str, Any]) -> str:
    """The id of a tree's problem, taken from the file's name if the tree does not hold it."""
    return str(tree["graph"].get("problem") or unquote(path.stem.replace("+", "/")))


def _own_name(directory: Path) -> str:
    is_shard = directory.parent.name == "shards"
    return f"{directory.parents[1].name}, shard {directory.name}" if is_shard else directory.name


def _names(configs: Sequence[RunConfig]) -> list[str]:
    """Short names of runs: the policy's, and whatever distinguishes it from the others."""
    parameters: dict[int, dict[str, str]] = {}
    series: dict[tuple[str, str, str], list[int]] = {}
    for i, config in enumerate(configs):
        series.setdefault((config.task, config.model, config.name), []).append(i)
    for alike in series.values():
        parameters |= zip(alike, differences([configs[i].values for i in alike]), strict=True)
    several = {
        part: len({getattr(config, part) for config in configs}) > 1
        for part in ("task", "model", "seed")
    }
    names: list[str] = []
    for i, config in enumerate(configs):
        words = [
            config.task if several["task"] else "",
            config.name,
            " ".join(f"{key}={value}" for key, value in parameters[i].items()),
            config.model if several["model"] else "",
            f"seed {config.seed}" if several["seed"] else "",
        ]
        name = " ".join(word for word in words if word)
        names.append(name if name not in names else f"{name} #{i + 1}")
    return names


def check_tree(tree: Any) -> None:
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
