"""Parts of a run that jobs of their own work on, and how their rows come into the run.

With `task.shard=0/8` a job searches every eighth puzzle, and keeps its rows in a directory of its
own below the run's. The run adopts them when it is started without `task.shard`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from treeshare.tasks.task import Problem

from .directory import RunDirectory, exclusive


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several equal parts of a run's puzzles.

    Attributes:
        index: which part, from 0.
        count: the number of parts.
    """

    index: int
    count: int

    @classmethod
    def of(cls, text: object) -> Shard | None:
        """Read a shard such as `0/8`; None is none.

        Raises:
            ValueError: it is not of this form, or the index is not below the count.
        """
        if text is None:
            return None
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", str(text))
        if match is None or int(match[1]) >= int(match[2]):
            raise ValueError(f"task.shard={text} must be i/n with i from 0 to n - 1, such as 0/8")
        return cls(int(match[1]), int(match[2]))

    def take(self, problems: Sequence[Problem]) -> list[Problem]:
        """Take the puzzles of this part: those at i, i + n, i + 2n, ...

        Raises:
            ValueError: there is none.
        """
        if self.index >= len(problems):
            raise ValueError(f"task.shard={self} has no puzzle: there are {len(problems)} in all")
        return list(problems[self.index :: self.count])

    def directory(self, run: Path) -> Path:
        """The directory of this part of a run."""
        return run / "shards" / f"{self.index}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def shard_directories(run: Path) -> list[Path]:
    """The directories of a run's shards."""
    found = (path for path in run.glob("shards/*") if path.is_dir())
    return sorted(path for path in found if re.fullmatch(r"[0-9]+-of-[0-9]+", path.name))


def adopt_shards(run: RunDirectory, check: Callable[[RunDirectory], None]) -> int:
    """Take in the rows of a run's shards, with their trees and the counters of their processes.

    A puzzle that has a row is left as it is. A shard at which another process is at work is passed
    over. The shards' files stay as they are.

    Args:
        run: the run; meta.json is written.
        check: refuses, by an exception, a shard whose rows cannot be taken in.

    Returns:
        The number of rows taken in.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a file of a shard holds a line that is not a row.
    """
    count = 0
    for path in shard_directories(run.path):
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive(path))
            except BlockingIOError:
                continue
            shard = stack.enter_context(closing(RunDirectory(path, writable=False)))
            check(shard)
            count += _adopt(run, shard)
    return count


def is_counted(directory: Path, below: Path) -> bool:
    """Whether a run's directory, found at or below another directory, is a run of its own there.

    Runs that `overwrite=true` has set aside are not, nor are shards of a run that has rows itself.
    """
    if any(re.search(r"\.earlier-[0-9]+$", name) for name in directory.relative_to(below).parts):
        return False
    if directory == below or directory.parent.name != "shards":
        return True
    rows_above = directory.parents[1] / "results.jsonl"
    return not rows_above.is_file() or rows_above.stat().st_size == 0


def _adopt(run: RunDirectory, shard: RunDirectory) -> int:
    there = {row.problem for row in run.results.rows}
    new = [row for row in shard.results.rows if row.problem not in there]
    numbers = _adopt_sessions(run, shard) if new else {}
    for row in new:
        tree = shard.tree_path(row.problem)
        if tree.exists():
            run.save_tree(row.problem, tree.read_text(encoding="utf-8"))
        run.results.append(replace(row, session=numbers.get(row.session, 0)))
    return len(new)


def _adopt_sessions(run: RunDirectory, shard: RunDirectory) -> dict[int, int]:
    """Take in the counters of a shard's processes.

    They are recognized if they are there already, with fewer rows or from before a kill.

    Returns:
        The processes' numbers in the shard to those in the run.
    """
    numbers = {session.shard: session.number for session in run.sessions.rows if session.shard}
    latest = {session.number: session for session in shard.sessions.rows}
    adopted = {}
    for session in latest.values():
        name = f"{shard.path.name}/{session.number}"
        next_number = 1 + max((other.number for other in run.sessions.rows), default=0)
        adopted[session.number] = numbers.get(name, next_number)
        run.sessions.append(
            replace(
                session,
                number=adopted[session.number],
                num_rows=len(run.results.rows),
                shard=name,
            )
        )
    return adopted
