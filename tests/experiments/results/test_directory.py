import json
import os
from dataclasses import asdict, replace

import pytest

from treeshare.experiments.results.directory import (
    FailedSearch,
    JsonLines,
    RunDirectory,
    read_rows,
    write_atomically,
)
from treeshare.experiments.results.rows import Row

ROW = FailedSearch("p/1", "ValueError", "no", "trace")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


def written(path, *rows):
    lines = JsonLines(path, FailedSearch)
    for row in rows:
        lines.append(row)
    lines.close()


def read(path):
    lines = JsonLines(path, FailedSearch)
    lines.close()
    return lines.rows


def test_rows_come_back(path):
    rows = [ROW, replace(ROW, problem="p/2", message="line\nbreak “quoted”")]
    written(path, *rows)
    assert read(path) == rows


def test_every_row_is_synced_to_disk(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes().count(b"\n")))
    written(path, ROW, ROW)
    assert synced == [1, 2]


@pytest.mark.parametrize("length", [1, 40, -1], ids=["a byte", "half", "all but the end of line"])
def test_half_written_last_line_is_cut_off(path, length):
    written(path, ROW)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:length])
    assert read(path) == [ROW]
    assert path.read_bytes() == whole
    written(path, ROW)
    assert read(path) == [ROW, ROW]


@pytest.mark.parametrize(
    "line", [b"garbage", b"{}", b"[]", b"", b'{"problem": 1, "more": 2}', b"\xff\xfe"]
)
def test_corrupt_line_is_named_and_nothing_is_changed(path, line):
    written(path, ROW)
    damaged = path.read_bytes() + line + b"\n" + path.read_bytes()
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"rows\.jsonl:2 is not a FailedSearch"):
        JsonLines(path, FailedSearch)
    assert path.read_bytes() == damaged


def test_second_opening_is_refused(path):
    first = JsonLines(path, FailedSearch)
    with pytest.raises(BlockingIOError, match="another process is at work in"):
        JsonLines(path, FailedSearch)
    first.close()
    read(path)


def test_clear_leaves_an_empty_file(path):
    lines = JsonLines(path, FailedSearch)
    lines.append(ROW)
    lines.clear()
    lines.append(ROW)
    lines.close()
    assert read(path) == [ROW]


def test_trees_of_awkward_ids_never_collide_and_stay_inside(tmp_path):
    directory = RunDirectory(tmp_path)
    ids = ["a/b", "a+b", "a_b", "../up", "a b", "ä", "a%2Fb", ".."]
    for name in ids:
        directory.save_tree(name, name)
    directory.close()
    assert directory.tree_path("a/b").name == "a+b.json"
    assert sorted(path.read_text() for path in (tmp_path / "trees").iterdir()) == sorted(ids)


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tree.json"
    write_atomically(path, "old")

    def no_space(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_a_row_of_version_0_1_0_is_read(path):
    """It wrote a puzzle's requests as `calls`."""
    row = Row(
        *("p/1", True, True, 1.0, 1, ["a"], 2, 7, 1, 10, 5, 15, 15, 0, None, 0.5, False, 0),
    )
    fields = asdict(row)
    fields["calls"] = fields.pop("requests")
    path.write_text(json.dumps(fields) + "\n")
    assert read_rows(path, Row) == [row] and row.requests == 7
