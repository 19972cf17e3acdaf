"""The lists of puzzles of the Game of 24: our own, or the user's copy of ToT's 24.csv.

A puzzle is four whole numbers from 1 to 13, in ascending order.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path

from treeshare.tasks.generator import take

from .rules import count_solutions

Puzzle = tuple[int, ...]

LARGEST = 13
"""The largest number of a puzzle."""
SPLITS = {"test": slice(900, 1000), "all": slice(None)}
"""Parts of a list. `test` is ToT's: games 901 to 1,000 (arXiv 2305.10601 section 4.1)."""

_COLUMN = "Puzzles"


@cache
def solvable_puzzles() -> tuple[Puzzle, ...]:
    """Return all 1,362 puzzles that have a solution, easiest first.

    The easier of two puzzles is the one with more solutions (`count_solutions`). With equal counts,
    the puzzle with the lower numbers comes first.
    """
    puzzles = combinations_with_replacement(range(1, LARGEST + 1), 4)
    counts = {puzzle: count_solutions(tuple(map(Fraction, puzzle))) for puzzle in puzzles}
    solvable = (puzzle for puzzle in counts if counts[puzzle])
    return tuple(sorted(solvable, key=lambda puzzle: (-counts[puzzle], puzzle)))


def read_puzzles(path: str) -> tuple[Puzzle, ...]:
    """Read the puzzles of a CSV file whose column `Puzzles` holds rows such as `4 9 10 13`.

    They stay in the file's order, and need not have a solution.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is not a CSV file of such puzzles, has a puzzle twice, or has none.
    """
    lines: dict[Puzzle, int] = {}
    for line, text in _column(path):
        numbers = text.split()
        if len(numbers) != 4 or not all(map(_is_in_range, numbers)):
            raise ValueError(f"{path}:{line}: {text!r} is not four whole numbers from 1 to 13")
        puzzle = tuple(sorted(map(int, numbers)))
        if puzzle in lines:
            raise ValueError(f"{path}:{line}: {text!r} is already on line {lines[puzzle]}")
        lines[puzzle] = line
    if not lines:
        raise ValueError(f"{path}: no puzzles; at least one row is needed")
    return tuple(lines)


def select(puzzles: tuple[Puzzle, ...], split: str, start: int, limit: int | None) -> list[Puzzle]:
    """Select a part of a list of puzzles.

    Args:
        puzzles: the list.
        split: a name of `SPLITS`.
        start: index of the first puzzle taken, from 0 in the split.
        limit: number of puzzles taken; None takes all that follow.

    Raises:
        ValueError: there is no such split or no such part of it.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} must be one of {', '.join(SPLITS)}")
    part = SPLITS[split]
    if part.stop is not None and len(puzzles) < part.stop:
        raise ValueError(
            f"split={split!r} needs {part.stop} puzzles, there are {len(puzzles)}: use split='all'"
        )
    return take(puzzles[part], start, limit)


def _is_in_range(number: str) -> bool:
    return re.fullmatch("[0-9]{1,2}", number) is not None and 1 <= int(number) <= LARGEST


def _column(path: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the text of each row's puzzle."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if _COLUMN not in (rows.fieldnames or ()):
                raise ValueError(f"{path}:1: no column {_COLUMN!r} among {rows.fieldnames or []}")
            for row in rows:
                yield rows.line_num, row[_COLUMN] or ""
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no file {path!r}; ToT's 24.csv is in src/tot/data/24 of "
            "https://github.com/princeton-nlp/tree-of-thought-llm"
        ) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8: {error}") from error
