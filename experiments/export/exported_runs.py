"""Read finished runs, and make the lines of their puzzles.

The directories may come from another machine, so their contents are not trusted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treeshare.experiments.results.config_file import read_config
from treeshare.experiments.results.digests import digest_of
from treeshare.experiments.results.directory import RunDirectory
from treeshare.experiments.results.meta import RunMeta, read_meta
from treeshare.experiments.results.rows import Row, check_results
from treeshare.experiments.viewer.shown_runs import check_tree

from .leakage import find_test_problems, find_test_split
from .lines import Line, LineOptions, lines_of
from .recorded import RecordedReplies
from .replay import NotReplayed, Replay, ReplayedTree
from .run_task import RunTask, make_task


@dataclass(slots=True)
class Counts:
    """What was exported, and what was not."""

    puzzles: int = 0  # with a line
    lines: int = 0
    steps: int = 0  # marked, of format=steps
    skipped: Counter[str] = field(default_factory=Counter)  # puzzles without a line, by reason
    solutions: set[int] = field(default_factory=set)  # hashes of the texts that were exported

    def is_new(self, line: Line) -> bool:
        """Whether no earlier run had the same solution to the same prompt; it is then noted."""
        key = hash(json.dumps([line.get("prompt"), line.get("completion"), line.get("messages")]))
        is_new = key not in self.solutions
        self.solutions.add(key)
        return is_new


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """A finished run, and what is needed to read its trees."""

    files: RunDirectory
    meta: RunMeta
    task: RunTask
    kept_out: frozenset[str]  # ids of problems that are for testing


def read_run(directory: Path, *, trust: bool, allow_test: bool) -> ExportedRun:
    """Read a run, and make its task.

    Args:
        directory: the run's.
        trust: whether code of other packages may be run.
        allow_test: whether problems of a test split may be exported.

    Raises:
        OSError: a file cannot be read.
        SetupError: the task cannot be made.
        ValueError: a file has other contents than a run writes, or the problems are a test split.
    """
    config, meta = read_config(directory / "config.yaml"), read_meta(directory)
    files = RunDirectory(directory, writable=False)
    check_results(files.results.path, files.results.rows)
    task = make_task(config, {row.problem for row in files.results.rows}, trust=trust)
    split = None if allow_test else find_test_split(task.parameters)
    if split is not None:
        raise ValueError(
            f"{directory}: {split} is a test split, which must not become training data; "
            "--allow-test exports it"
        )
    kept_out = set() if allow_test else find_test_problems(task.task, task.parameters)
    return ExportedRun(files, meta, task, frozenset(kept_out))


def lines_of_run(run: ExportedRun, options: LineOptions, counts: Counts) -> Iterator[Line]:
    """Make the lines of a run, each with the names of its run and its puzzle.

    Args:
        run: the run.
        options: what to make.
        counts: what is made is added to these.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file has other contents than a run writes.
    """
    directory = run.files.path
    replay = Replay(run.task, RecordedReplies(directory / "requests.jsonl"))
    name = directory.name
    if directory.parent.name == "shards":
        name = f"{directory.parents[1].name}, shard {name}"
    about = {"run": name, "task": run.meta.task, "policy": run.meta.name, "model": run.meta.model}
    for row in run.files.results.rows:
        try:
            tree = _tree(run, replay, row)
            if tree.num_unread and options.format != "sft":
                raise NotReplayed(_UNREAD)
            lines = list(lines_of(replay, tree, options))
            if not lines:
                raise NotReplayed(_reason(tree, options))
            if options.format == "sft" and not (lines := [*filter(counts.is_new, lines)]):
                raise NotReplayed("another run has the same solutions")
        except NotReplayed as error:
            counts.skipped[str(error)] += 1
            continue
        counts.puzzles += 1
        counts.lines += len(lines)
        counts.steps += sum(len(line.get("labels", ())) for line in lines)
        for line in lines:
            yield {**about, "seed": row.seed, "problem": row.problem, **line}


_UNREAD = "its steps cannot be read from its tree; whole solutions need a run with record=true"


def _tree(run: ExportedRun, replay: Replay, row: Row) -> ReplayedTree:
    """Read a puzzle's tree again.

    Raises:
        NotReplayed: it cannot be used.
        OSError: the file cannot be read.
        ValueError: the file is not a tree.
    """
    problem = run.task.problems.get(row.problem)
    if row.problem in run.kept_out:
        raise NotReplayed("it is of the task's test split; --allow-test exports it")
    if problem is None:
        raise NotReplayed("the task does not have it; was task.limit larger in a later session?")
    if row.digest not in ("", digest_of(problem.data)):
        raise NotReplayed("its data have changed since it was searched")
    path = run.files.tree_path(row.problem)
    if not path.is_file():
        raise NotReplayed("its tree was not saved")
    return replay.tree(problem, row, _read_tree(path))


def _read_tree(path: Path) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = json.loads(path.read_bytes())
        check_tree(tree)
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a tree: {error!r}") from None
    return tree


def _reason(tree: ReplayedTree, options: LineOptions) -> str:
    """Why a puzzle has no line."""
    if options.format == "preferences":
        return "no two steps of one node differ enough in their values"
    if options.format == "steps":
        is_whole = any(node.is_whole for node in tree.nodes)
        return "its solutions were drawn as a whole" if is_whole else "no terminal node"
    if any(node.is_right for node in tree.nodes):
        return "its solution cannot be written as one reply"
    return _UNREAD if tree.num_unread else "no right answer"
