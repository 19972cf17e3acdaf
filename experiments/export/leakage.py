"""Recognise the test splits of data sets, which must not become training data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from treeshare.tasks import Game24, Task
from treeshare.tasks.data import HUB

_TEST = re.compile(r"(?<![a-z])test(?![a-z])", re.IGNORECASE)
_BENCHMARKS = re.compile(r"aime|math-?500|gpqa|olympiad-?bench|mini0505", re.IGNORECASE)
"""Data sets that are for testing as a whole; mini0505 is Tree of Thoughts' file of crosswords."""


def find_test_split(parameters: Mapping[str, Any]) -> str | None:
    """Say which parameter of a task names a test split; None if no parameter does.

    It is a text with the word `test`, or the name of a benchmark that is for testing as a whole.
    Of a path only the file's name counts, and the folder that it is in.

    Args:
        parameters: the task's, by name, those with their defaults included.
    """
    for name, value in parameters.items():
        if name == "_target_" or not isinstance(value, str):
            continue
        path = PurePath(value)
        folder = path.parent.name if path.parent.name.lower() == "test" else ""
        text = value if value.startswith(HUB) else f"{folder}/{path.name}"
        if _TEST.search(text) or _BENCHMARKS.search(text):
            return f"task.{name}={value}"
    return None


def find_test_problems(task: Task, parameters: Mapping[str, Any]) -> set[str]:
    """Find the problems of a task that are for testing, although other problems are not.

    These are the 100 games of the test split of `Game24`, in this package's list and in the file
    that the task reads, if there is one.

    Returns:
        Their ids.
    """
    if not isinstance(task, Game24):
        return set()
    lists = {None, parameters.get("path")}
    return {problem.id for path in lists for problem in Game24(path).problems()}
