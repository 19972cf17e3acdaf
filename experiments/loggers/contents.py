"""What the loggers send in addition to metrics: the configuration, the puzzles, their trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from treeshare.experiments.results.directory import RunDirectory
from treeshare.experiments.results.meta import read_about
from treeshare.experiments.results.rows import FailedSearch, Row
from treeshare.experiments.results.summary import Summary

TreePage = Callable[[Path], str]
"""Makes an HTML page of a tree's file, such as `treeshare.experiments.viewer.view.tree_page`."""

MOST_PAGES = 100
"""The most trees of a run that are sent as pages: those of its first puzzles."""

MOST_PAGE_BYTES = 200_000
"""The size above which a tree is not sent as a page."""

_OF_THIS_SESSION = {
    *("fail_fast", "logger", "optimize", "output_dir", "overwrite", "progress", "record"),
    *("save_trees", "verbose"),
}


def logged_config(config: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The configuration without what stands in it twice and without what changes no result.

    The model is what the engine runs. It is at the top, as `model`, and absent if the engine runs
    none. A key of the verifier that the task has as well, with the same value, is the task's alone.

    Args:
        config: the whole configuration, interpolations resolved.
        directory: the run's directory; its path is added.
    """
    kept = {key: value for key, value in config.items() if key not in _OF_THIS_SESSION}
    kept.pop("model", None)
    task, engine, evaluator = (dict(kept.get(key) or {}) for key in ("task", "engine", "evaluator"))
    if "model" in engine:
        kept["model"] = engine.pop("model")
    verifier = task.get("verifier")
    if evaluator.get("verifier") == verifier:
        evaluator.pop("verifier", None)
    if isinstance(verifier, Mapping):
        task["verifier"] = {key: v for key, v in verifier.items() if task.get(key, ...) != v}
    groups = {"task": task, "engine": engine, "evaluator": evaluator}
    kept |= {key: group for key, group in groups.items() if key in config}
    return kept | {"directory": str(directory.absolute())}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a nested configuration by their dotted keys, such as `search.width`."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def run_key(directory: Path) -> str:
    """A name of the run that no other has: the directory's, and a digest of when the run began.

    A run that was begun again in a directory of the same name, after `overwrite=true` or in another
    place, is another run.

    Raises:
        OSError: meta.json cannot be read.
        ValueError: meta.json holds no JSON object.
    """
    path = directory / "meta.json"
    began = read_about(path).get("began") if path.exists() else None
    if not began:
        return directory.name
    return f"{directory.name}-{sha256(str(began).encode()).hexdigest()[:8]}"


def puzzle_table(summary: Summary) -> tuple[list[str], list[list[Any]]]:
    """The finished puzzles of a run, then those that failed, with their error alone.

    Returns:
        The columns, of which the first is the puzzle, and the rows. A cell is text, a number or
        None.
    """
    records = [*map(_cells, summary.rows), *map(_failed_cells, summary.failures)]
    columns = list(dict.fromkeys(name for record in records for name in record))
    return columns, [[record.get(name) for name in columns] for record in records]


def tree_pages(summary: Summary, page_of: TreePage) -> dict[str, str]:
    """The trees of a run as HTML pages, by puzzle.

    They are those of the first `MOST_PAGES` puzzles, without pages above `MOST_PAGE_BYTES`.

    Raises:
        Exception: whatever `page_of` raises.
    """
    record = RunDirectory(summary.directory, writable=False)
    paths = ((row.problem, record.tree_path(row.problem)) for row in summary.rows)
    on_disk = islice((found for found in paths if found[1].exists()), MOST_PAGES)
    pages = {problem: page_of(path) for problem, path in on_disk}
    return {
        problem: page for problem, page in pages.items() if len(page.encode()) <= MOST_PAGE_BYTES
    }


def _cells(row: Row) -> dict[str, Any]:
    cells = {
        name: "\n".join("" if item is None else str(item) for item in value)
        if isinstance(value, list)
        else value
        for name, value in asdict(row).items()
        if name != "grades"
    }
    return cells | {f"grades/{name}": grade for name, grade in row.grades.items()}


def _failed_cells(failure: FailedSearch) -> dict[str, Any]:
    where = f"{failure.where}: " if failure.where else ""
    return {"problem": failure.problem, "error": f"{where}{failure.error}: {failure.message}"}
