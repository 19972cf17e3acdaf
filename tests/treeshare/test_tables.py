"""Tables of figures as text, HTML and rows; the table of finished runs."""

import importlib.util

import pytest

from treeshare import MockEngine, load_runs, solve
from treeshare.search import ToTBFS
from treeshare.tables import Table
from treeshare.tasks import Game24

ROWS = [{"name": "a", "n": 1234, "right": True}, {"name": "<b>\n", "n": None, "share": 0.25}]


def test_text():
    assert str(Table(ROWS)) == (
        "name      n  right  share\na     1,234  yes\n<b>                 0.250"
    )


def test_html_escapes_what_cells_hold():
    text = Table(ROWS)._repr_html_()
    assert "<th>name</th><th>n</th>" in text
    assert "<td>&lt;b&gt;</td>" in text


def test_it_is_a_sequence_of_rows():
    table = Table(ROWS)
    assert table[0]["n"] == 1234
    assert [row["name"] for row in table] == ["a", "<b>\n"]
    assert len(table[1:]) == 1
    assert table.columns == ["name", "n", "right", "share"]


def test_an_empty_table_has_no_text():
    assert str(Table([])) == ""


def test_pandas_gets_all_columns():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = Table(ROWS).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["name", "n", "right", "share"]


@pytest.mark.skipif(importlib.util.find_spec("pandas") is not None, reason="pandas is installed")
def test_without_pandas_the_error_names_it():
    with pytest.raises(ImportError, match="pandas"):
        Table(ROWS).to_pandas()


class Engine(MockEngine):
    """The scripted engine, with nothing that a directory's description would not hold."""

    def __init__(self):
        super().__init__()


def test_finished_runs(tmp_path):
    for policy in (ToTBFS(breadth=2), ToTBFS(breadth=3)):
        solve(Game24(limit=2), engine=Engine(), policy=policy, directory=tmp_path, progress=False)
    table = load_runs(tmp_path)
    assert sorted(row["search.breadth"] for row in table) == [2, 3]
    assert {row["puzzles"] for row in table} == {2}
    assert {(row["task"], row["policy"], row["model"]) for row in table} == {
        ("game24", "ToTBFS", "Engine")
    }
    assert "search.depth" not in table.columns  # the same in both


def test_without_runs_the_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="with a finished puzzle in"):
        load_runs(tmp_path)
