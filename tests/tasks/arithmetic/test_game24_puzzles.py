"""The lists of puzzles: ours, ToT's, and files that are refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from places import DATA

from treeshare.tasks.arithmetic.game24 import Game24
from treeshare.tasks.arithmetic.game24_puzzles import solvable_puzzles
from treeshare.tasks.arithmetic.rules import Position, count_solutions

CSV = DATA / "tot/24.csv"
needs_csv = pytest.mark.skipif(not CSV.exists(), reason=f"needs ToT's list at {CSV}")


def test_there_are_1362_puzzles_easiest_first() -> None:
    puzzles = solvable_puzzles()
    assert len(set(puzzles)) == len(puzzles) == 1362
    counts = [count_solutions(Position.start(puzzle).values) for puzzle in puzzles]
    assert counts == sorted(counts, reverse=True) and counts[-1] > 0
    assert puzzles[-1] == (6, 8, 10, 11)
    assert [p.data for p in Game24().problems()] == list(puzzles[900:1000])


@needs_csv
def test_the_generated_puzzles_are_those_of_tot() -> None:
    with CSV.open() as file:
        rows = [tuple(sorted(map(int, row["Puzzles"].split()))) for row in csv.DictReader(file)]
    problems = Game24(str(CSV), split="all").problems()
    assert [p.data for p in problems] == rows
    assert {p.id for p in problems} == {p.id for p in Game24(split="all").problems()}
    assert Game24(str(CSV)).problems() == problems[900:1000]
    assert problems[900].id == "game24/4-5-6-10"


def test_a_part_of_the_list_can_be_taken() -> None:
    puzzles = [p.data for p in Game24(split="all").problems()]
    assert [p.data for p in Game24(split="all", start=5, limit=2).problems()] == puzzles[5:7]
    assert [p.data for p in Game24(start=98).problems()] == puzzles[998:1000]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "train"}, "split='train' must be one of test, all"),
        ({"start": 100}, "start=100 must be from 0 to 99"),
        ({"start": -1}, "start=-1 must be at least 0"),
        ({"limit": 2.5}, "limit=2.5 must be a whole number from 1 to 100, or null for all"),
        ({"limit": "all"}, "limit='all' must be a whole number from 1 to 100, or null for all"),
        ({"start": 0.5}, "start=0.5 must be a whole number"),
        ({"limit": 0}, "limit=0 must be a whole number from 1 to 100, or null for all"),
        (
            {"start": 90, "limit": 11},
            "limit=11 must be a whole number from 1 to 10, or null for all",
        ),
        (
            {"sampling": {"choose": {}}},
            "sampling: role 'choose' must be one of propose, step, io, cot, value, vote, reflect, "
            "feedback, refine",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_out_of_bound_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        Game24(**arguments)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ":1: no column 'Puzzles' among []"),
        ("Rank,Numbers\n1,1 1 4 6\n", ":1: no column 'Puzzles' among ['Rank', 'Numbers']"),
        ("Puzzles\n", ": no puzzles; at least one row is needed"),
        ("Puzzles\n1 1 4 6\n1 2 3\n", ":3: '1 2 3' is not four whole numbers from 1 to 13"),
        ("Puzzles\n1 1 4 14\n", ":2: '1 1 4 14' is not four whole numbers from 1 to 13"),
        ("Puzzles\n0 1 4 6\n", ":2: '0 1 4 6' is not four whole numbers from 1 to 13"),
        ("Puzzles\n1 1 4 x\n", ":2: '1 1 4 x' is not four whole numbers from 1 to 13"),
        ("Puzzles\n1 1 4 ٣\n", ":2: '1 1 4 ٣' is not four whole numbers from 1 to 13"),
        ("Rank,Puzzles\n1\n", ":2: '' is not four whole numbers from 1 to 13"),
        ("Puzzles\n1 1 4 6\n6 1 4 1\n", ":3: '6 1 4 1' is already on line 2"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_bad_file_is_refused_by_file_line_and_value(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "24.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError) as raised:
        Game24(str(path), split="all")
    assert str(raised.value) == f"{path}{message}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        Game24(str(tmp_path / "none.csv"))
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"binary\.csv: not a CSV file in UTF-8: .*"):
        Game24(str(binary))


def test_a_users_file_may_be_small_and_hold_unsolvable_puzzles(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("\ufeffPuzzles\n1 1 1 1\n13 4 9 10\n", encoding="utf-8")
    problems = Game24(str(path), split="all").problems()
    assert [p.id for p in problems] == ["game24/1-1-1-1", "game24/4-9-10-13"]
    with pytest.raises(ValueError, match="split='test' needs 1000 puzzles, there are 2"):
        Game24(str(path))
