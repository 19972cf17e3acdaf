"""The configuration that is logged, the run's name at other places, and the bounds of the pages."""

import json
from types import SimpleNamespace

import pytest

from treeshare.experiments.loggers import contents
from treeshare.experiments.results.rows import FailedSearch

MODEL = {"_target_": "m.load_model", "name": "small"}
VERIFIER = {"_target_": "t.Verifier", "path": "p.jsonl", "tolerance": 0.1}
CONFIG = {
    "task": {"_target_": "t.Task", "path": "p.jsonl", "verifier": VERIFIER},
    "evaluator": {"_target_": "e.Oracle", "verifier": VERIFIER},
    "engine": {"_target_": "e.Engine", "model": MODEL, "kv_tokens": 8},
    "model": MODEL,
    "logger": {"_target_": "l.Logger", "project": "p"},
    "seed": 3,
    "output_dir": "outputs",
    "progress": True,
}


def test_config_has_each_value_once(tmp_path):
    assert contents.logged_config(CONFIG, tmp_path) == {
        "task": {
            "_target_": "t.Task",
            "path": "p.jsonl",
            "verifier": {"_target_": "t.Verifier", "tolerance": 0.1},
        },
        "evaluator": {"_target_": "e.Oracle"},
        "engine": {"_target_": "e.Engine", "kv_tokens": 8},
        "model": MODEL,
        "seed": 3,
        "directory": str(tmp_path),
    }
    assert CONFIG["engine"]["model"] == MODEL and "verifier" in CONFIG["evaluator"]


def test_model_that_the_engine_does_not_run_is_left_out(tmp_path):
    """The group `model` has a default, which `engine=mock` does not use."""
    config = contents.logged_config(CONFIG | {"engine": {"_target_": "e.Mock"}}, tmp_path)
    assert "model" not in config and config["engine"] == {"_target_": "e.Mock"}


def test_flat_config():
    nested = {"a": {"b": 1, "c": {"d": [2]}}, "e": None, "f": {}}
    assert contents.flat(nested) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_key_of_a_run(tmp_path):
    directory = tmp_path / "abc-seed0"
    directory.mkdir()
    assert contents.run_key(directory) == "abc-seed0"
    keys = set()
    for about in ({}, {"began": "2026-11-29T12:00:00"}, {"began": "2026-11-29T12:00:01"}):
        (directory / "meta.json").write_text(json.dumps(about))
        keys |= {contents.run_key(directory), contents.run_key(directory)}
    assert len(keys) == 3 and all(key.startswith("abc-seed0") for key in keys)


@pytest.fixture
def make_summary(tmp_path, make_row):
    def make(count):
        (tmp_path / "trees").mkdir(exist_ok=True)
        for number in range(count):
            (tmp_path / "trees" / f"p+{number}.json").write_text("{}")
        rows = [make_row(f"p/{number}", grades={"words": 0.25}) for number in range(count)]
        failed = FailedSearch("p/failed", "ValueError", "no", "...", "my.py:3")
        return SimpleNamespace(directory=tmp_path, rows=rows, failures=[failed])

    return make


def test_table_of_puzzles(make_summary):
    columns, rows = contents.puzzle_table(make_summary(1))
    finished, failed = (dict(zip(columns, cells, strict=True)) for cells in rows)
    assert columns[0] == "problem" and finished["answers"] == "1 + 1\n"
    assert finished["grades/words"] == 0.25 and finished["error"] is None
    assert failed["problem"] == "p/failed" and failed["error"] == "my.py:3: ValueError: no"
    assert all(isinstance(cell, str | int | float | None) for cells in rows for cell in cells)


def test_pages_are_bounded(make_summary):
    sizes = {"p+1": contents.MOST_PAGE_BYTES, "p+2": contents.MOST_PAGE_BYTES + 1}
    pages = contents.tree_pages(make_summary(103), lambda path: "x" * sizes.get(path.stem, 10))
    expected = [f"p/{number}" for number in range(contents.MOST_PAGES) if number != 2]
    assert list(pages) == expected


def test_puzzle_without_a_tree_has_no_page(make_summary):
    summary = make_summary(2)
    (summary.directory / "trees" / "p+0.json").unlink()
    assert list(contents.tree_pages(summary, str)) == ["p/1"]
