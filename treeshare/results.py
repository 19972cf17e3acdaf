"""What `treeshare.solve` returns: a run, with one result a puzzle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treeshare.experiments.results.rows import FailedSearch, Row, Session
from treeshare.experiments.results.summary import Totals
from treeshare.search.graph import Node, SearchGraph

from .tables import Table

if TYPE_CHECKING:
    import pandas

Tree = tuple[SearchGraph, list[Node]]
"""The graph of a search, and its final nodes, best first."""


class PuzzleResult:
    """The result of one finished puzzle.

    Args:
        row: the figures of the puzzle, as results.jsonl holds them.
        load_tree: returns the graph and the ranking of the search. It is called when either is
            first used, and raises FileNotFoundError if the tree was not saved.
    """

    def __init__(self, row: Row, load_tree: Callable[[], Tree]) -> None:
        self.row = row
        self._load_tree = load_tree

    @property
    def problem(self) -> str:
        """The problem's id."""
        return self.row.problem

    @property
    def answers(self) -> list[str | None]:
        """The answers that count, best first; None where a ranked node is not terminal."""
        return list(self.row.answers)

    @property
    def answer(self) -> str | None:
        """The first answer; None if the first ranked node has none, or no node is ranked."""
        return next(iter(self.row.answers), None)

    @property
    def is_right(self) -> bool:
        """Whether the verifier accepts the first answer."""
        return self.row.correct_top1

    @property
    def graph(self) -> SearchGraph:
        """The nodes of the search.

        The graph of a puzzle that an earlier call finished is read from the run's directory; the
        states of its nodes are text.

        Raises:
            FileNotFoundError: the tree was not saved.
        """
        return self._tree[0]

    @property
    def ranked(self) -> list[Node]:
        """The final nodes of the search, best first.

        Raises:
            FileNotFoundError: the tree was not saved.
        """
        return list(self._tree[1])

    @cached_property
    def _tree(self) -> Tree:
        return self._load_tree()

    def __repr__(self) -> str:
        verdict = "right" if self.is_right else "wrong"
        return f"PuzzleResult({self.problem!r}, answer={self.answer!r}, {verdict})"


@dataclass(frozen=True, repr=False)
class Run(Mapping[str, PuzzleResult]):
    """A mapping from the ids of the finished puzzles of a run to their results.

        run["game24/1-5-5-5"].graph
        [result.problem for result in run.values() if not result.is_right]

    Attributes:
        results: the results of the finished puzzles, in the order in which they ended.
        failures: the puzzles that raised an error, each with its traceback.
        sessions: the counters of the processes that worked on the run.
        num_problems: the number of puzzles of the task.
        num_answers: b, the number of answers of a puzzle that count.
        directory: where the run is kept; None if it is only in memory.
    """

    results: Mapping[str, PuzzleResult]
    failures: Sequence[FailedSearch]
    sessions: Sequence[Session]
    num_problems: int
    num_answers: int
    directory: Path | None = None

    def __getitem__(self, problem: str) -> PuzzleResult:
        if problem in self.results:
            return self.results[problem]
        for failure in self.failures:
            if failure.problem == problem:
                raise KeyError(f"{problem} failed: {failure.error}: {failure.message}")
        known = ", ".join([*self.results][:3]) or "none"
        raise KeyError(f"{problem!r} is no problem of this run; there are {known}, ...")

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @property
    def rows(self) -> list[Row]:
        """The figures of the finished puzzles."""
        return [result.row for result in self.results.values()]

    @cached_property
    def totals(self) -> Totals:
        """Sums and means over the finished puzzles: accuracy, requests, tokens, KV, seconds."""
        return Totals.of(self.rows, self.sessions)

    @property
    def top1(self) -> float:
        """The share of finished puzzles whose first answer is right, in [0, 1]."""
        return self.totals.top1

    @property
    def any_of_b(self) -> float:
        """The share of finished puzzles with a right answer among `num_answers`, in [0, 1]."""
        return self.totals.any_of_b

    @property
    def mean_accuracy(self) -> float:
        """The share of right answers among `num_answers`, averaged over puzzles, in [0, 1]."""
        return self.totals.mean_accuracy

    def table(self) -> Table:
        """Return a table with one row for each finished puzzle; `rows` has more figures."""
        return Table(_cells(row) for row in self.rows)

    def dataframe(self) -> pandas.DataFrame:
        """Return the table as a pandas DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        return self.table().to_pandas()

    def __repr__(self) -> str:
        text = (
            f"Run: {len(self)} of {self.num_problems} puzzles, top-1 {self.top1:.1%}, "
            f"any-of-{self.num_answers} {self.any_of_b:.1%}, "
            f"mean accuracy {self.mean_accuracy:.1%}"
        )
        if self.failures:
            first = self.failures[0]
            where = f"{first.where}: " if first.where else ""
            text += (
                f"; {len(self.failures)} failed, first {first.problem}: "
                f"{where}{first.error}: {first.message}"
            )
        if self.results and not any(row.reached_terminal for row in self.rows):
            text += "; no search reached a terminal state"
        return text


class Interrupted(KeyboardInterrupt):
    """A run was interrupted.

    The requests that the engine had not answered are cancelled. The engine can serve another run.

    Attributes:
        run: the run with the puzzles that were finished.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(f"interrupted after {len(run)} of {run.num_problems} puzzles")
        self.run = run


def read_tree(path: Path) -> Tree:
    """Read the graph and the ranking of a search from the file that a run wrote.

    The states are text, as the file holds them.

    Raises:
        FileNotFoundError: the tree was not saved.
        ValueError: the file is not such a tree.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    try:
        return _tree_of(data)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not the tree of a search: {error!r}") from None


def _tree_of(data: Mapping[str, Any]) -> Tree:
    root, *others = sorted(data["nodes"], key=lambda node: node["id"])
    parents: dict[int, list[int]] = {}
    for edge in sorted(data["edges"], key=lambda edge: edge["order"]):
        parents.setdefault(edge["target"], []).append(edge["source"])
    graph = SearchGraph(root["state"], is_terminal=root["is_terminal"])
    nodes = [_filled(graph.root, root)]
    for one in others:
        node = graph.add(
            [nodes[i] for i in parents[one["id"]]],
            one["text"],
            one["state"],
            is_terminal=one["is_terminal"],
        )
        nodes.append(_filled(node, one))
    return graph, [nodes[i] for i in data["graph"]["ranked"]]


def _filled(node: Node, values: Mapping[str, Any]) -> Node:
    for name in ("value", "prior", "logprob", "visits", "value_sum"):
        setattr(node, name, values[name])
    return node


def _cells(row: Row) -> dict[str, Any]:
    return {
        "problem": row.problem,
        "right": row.correct_top1,
        "answer": next(iter(row.answers), None),
        "any right": row.correct_any,
        "mean accuracy": row.mean_accuracy,
        **row.grades,
        "nodes": row.nodes,
        "requests": row.requests,
        "tokens": row.prompt_tokens + row.completion_tokens,
        "seconds": row.seconds,
    }
