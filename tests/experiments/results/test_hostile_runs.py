"""Damaged, foreign or read-only run directories are refused in one line or shown.

Nothing in them is lost.
"""

import errno
import io
import json
import os
import shutil

import pytest

from treeshare.experiments.results.config_file import read_config
from treeshare.experiments.runs.config import SetupError

BARE = {
    "task": {"_target_": "bare_task.Bare", "size": 3, "verifier": {"_target_": "bare_task.Likely"}}
}


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def finished(run_with, run_directory):
    """The directory of a finished run of three puzzles."""
    run_with(**BARE)
    return run_directory()


@pytest.fixture
def refused(run_with, finished):
    """Runs the command again, which must refuse in one line and change nothing on disk."""

    def call(**more):
        before = snapshot(finished)
        with pytest.raises(SetupError) as info:
            run_with(**BARE, **more)
        assert "\n" not in str(info.value)
        assert snapshot(finished) == before
        return str(info.value)

    return call


def edit(directory, change, number=1):
    """Change one row of results.jsonl."""
    path = directory / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[number] |= change
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


ROWS = {
    "another seed": ({"seed": 7}, "is of seed 7, the run of seed 0"),
    "oracle": ({"oracle": True}, "has oracle=True, the run oracle=False"),
    "doubled": ({"problem": "bare/0"}, "repeats 'bare/0', the puzzle of line 1"),
    "other data": (
        {"digest": "0" * 32},
        "the data of 'bare/1' has changed since this run began: overwrite=true starts it again, "
        "name=... keeps both",
    ),
    "NaN": ({"mean_accuracy": float("nan")}, "is not a Row: mean_accuracy=nan is not finite"),
    "infinite grade": ({"grades": {"a": float("inf")}}, "is not a Row: grades={'a': inf} is not"),
    "text for a number": ({"nodes": "3"}, "is not a Row: nodes='3' is not of type int"),
    "true for a number": ({"requests": True}, "is not a Row: requests=True is not of type int"),
    "number for true": ({"correct_any": 1}, "is not a Row: correct_any=1 is not of type bool"),
    "list for an id": ({"problem": ["a"]}, "is not a Row: problem=['a'] is not of type str"),
    "number for an answer": ({"answers": [3]}, "is not a Row: answers=[3] is not of type list"),
    "below 0": ({"seconds": -1.0}, "is not a Row: seconds=-1.0 must be at least 0"),
    "huge": ({"nodes": 10**30}, f"is not a Row: nodes={10**30} has more than 64 bits"),
    "unknown field": ({"more": 1}, "is not a Row: Row.__init__() got an unexpected keyword"),
}


@pytest.mark.parametrize(("change", "said"), ROWS.values(), ids=ROWS)
def test_rows_that_are_not_this_runs_are_refused_by_line(change, said, finished, refused):
    edit(finished, change)
    assert f"results.jsonl:2 {said}" in refused()


def test_line_feeds_in_a_message_do_not_break_its_line(treeshare, run_directory):
    arguments = ["engine=mock", "search=io", "task.limit=2"]
    treeshare(*arguments)
    edit(run_directory(), {"a\nb\x1b[2J": 1})
    done = treeshare(*arguments)
    assert done.code == 2 and done.err.count("\n") == 1
    assert r"'a b\x1b[2J'" in done.err


@pytest.mark.parametrize("name", ["results", "sessions", "failures"])
@pytest.mark.parametrize(
    "line", ["[" * 100_000, "[]", "null", '{"a": ' * 5000, "\udc80", ""], ids=range(6)
)
def test_lines_that_are_no_rows_are_refused(name, line, finished, refused):
    path = finished / f"{name}.jsonl"
    path.write_text(f"{line}\n{path.read_text()}", errors="surrogateescape")
    assert f"{name}.jsonl:1 is not a " in refused()


@pytest.mark.parametrize("name", ["results", "sessions", "failures"])
@pytest.mark.parametrize("make", ["mkdir", "mkfifo"])
def test_folders_and_pipes_in_the_place_of_files(name, make, finished, run_with):
    path = finished / f"{name}.jsonl"
    path.unlink()
    getattr(os, make)(path)
    with pytest.raises(SetupError, match=rf"{name}\.jsonl is not a file"):
        run_with(**BARE)


def test_names_of_300_letters(run_with):
    with pytest.raises(SetupError, match="File name too long"):
        run_with(**BARE, name="n" * 300)


def test_trees_that_is_a_file(run_with, run_directory, finished):
    shutil.rmtree(finished / "trees")
    (finished / "trees").write_text("a file")
    (finished / "results.jsonl").write_text("")
    with pytest.raises(SetupError, match=r"File exists: '.*/trees'"):
        run_with(**BARE)
    assert (finished / "results.jsonl").read_text() == ""
    (finished / "trees").unlink()
    assert run_with(**BARE).num_missing_trees == 0


@pytest.fixture
def read_only(monkeypatch, tmp_path):
    """Makes the file system of `tmp_path` read-only."""

    def refuse(path, is_writing):
        if is_writing and str(path).startswith(str(tmp_path)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    opened = io.open

    def guarded(file, mode="r", *args, **more):
        refuse(os.path.abspath(file), bool(set(mode) & set("wax+")))
        return opened(file, mode, *args, **more)

    def set_up():
        monkeypatch.setattr(io, "open", guarded)
        monkeypatch.setattr(os, "mkdir", lambda path, *a: refuse(os.path.abspath(path), True))
        monkeypatch.setattr(os, "replace", lambda a, b: refuse(os.path.abspath(b), True))

    return set_up


def test_finished_run_is_shown_read_only(run_with, read_only, finished):
    table = run_with(**BARE).table()
    read_only()
    assert run_with(**BARE).table() == table


def test_unfinished_run_on_a_read_only_file_system_is_one_line(finished, refused, read_only):
    edit(finished, {})
    path = finished / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    read_only()
    assert "Read-only file system" in refused()


def test_missing_trees_are_said(run_with, finished):
    assert "trees are missing" not in run_with(**BARE).table()
    (finished / "trees" / "bare+1.json").unlink()
    assert "trees           1 of 3 trees are missing" in run_with(**BARE).table()
    assert "trees are missing" not in run_with(**BARE, save_trees=False).table()
    for path in (finished / "trees").iterdir():
        path.unlink()
    assert "trees           3 of 3 trees are missing" in run_with(**BARE).table()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "\0"])
def test_damaged_meta_is_refused_by_name(text, finished, refused):
    (finished / "meta.json").write_text(text)
    assert "meta.json " in refused()


# Only the report reads config.yaml.


def bomb(levels):
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]")
    return "\n".join(lines)


CONFIGS = {
    "bomb": (bomb(20), "it has an alias, *a0"),
    "itself": ("a: &a [*a]", "it has an alias, *a"),
    "merge": ("a: &a {b: 1}\nc:\n  <<: *a", "it has an alias, *a"),
    "too deep": ("a: " + "[" * 60 + "]" * 60, "nested more than 50 deep"),
    "far too deep": ("[" * 100_000, "is not a run's configuration: "),
    "too long": ("a: " + "x" * 300_000, "has more than 262,144 bytes"),
    "long number": ("seed: " + "9" * 100_000, "a number of more than 1,000 digits"),
    "tagged number": ("seed: !!int '" + "1:" * 60_000 + "1'", "a number of more than 1,000 digits"),
    "base 60": ("seed: " + "1:" * 60_000 + "1", "a number of more than 1,000 digits"),
    "code": ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "garbage": ("a: [1", "did not find expected"),
    "no text": (b"\xff\xfe\x00\x01", "is not a run's configuration"),
    "list": ("[1, 2]", "no mapping of names"),
    "empty": ("", "no mapping of names"),
    "number for a name": ("1: 2", "no mapping of names"),
    "list for a name": ("? [1]\n: 2", "found unhashable key"),
    "no date": ("a: 2001-99-99", "month must be in 1..12"),
}


@pytest.mark.parametrize(("data", "said"), CONFIGS.values(), ids=CONFIGS)
def test_hostile_configurations_are_refused_at_once(data, said, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(ValueError) as info:
        read_config(path)
    assert str(info.value).startswith(str(path)) and said in str(info.value)
    assert "\n" not in str(info.value)


def test_a_runs_own_configuration_is_read(finished):
    config = read_config(finished / "config.yaml")
    assert config["task"]["size"] == 3 and config["engine"]["_target_"].endswith("MockEngine")
