"""The Python code of the README and of docs/python.md runs as it stands, on fewer puzzles."""

import re

from code_blocks import python_blocks
from places import ROOT

README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "python.md").read_text()


def test_the_pages_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in python_blocks(PAGE):
        exec(re.sub(r"limit=\d+", "limit=1", block), names)
    assert "Run: 1 of 1 puzzles, top-1 100.0%" in capsys.readouterr().out
    assert len(names["graph"]) > 10
    assert names["kept"].directory.is_dir()


def test_the_readme_begins_with_ten_lines_of_python():
    """`test_wheel.py` runs them from the wheel."""
    code = python_blocks(README)[0]
    assert README.index(code) < README.index("## Quick start")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
