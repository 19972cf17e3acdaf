"""The notebook of docs/ runs in a Jupyter kernel, where an asyncio loop is running."""

import pytest
from places import ROOT

nbformat = pytest.importorskip("nbformat", reason="needs the extra `notebook`")
nbclient = pytest.importorskip("nbclient", reason="needs the extra `notebook`")
pytest.importorskip("ipykernel", reason="needs the extra `notebook`")

NOTEBOOK = ROOT / "docs" / "notebooks" / "first_search.ipynb"


def split(notebook):
    """By cell, the outputs that are not of standard error; and the text that is."""
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    shown = [[one for one in cell if one.get("name") != "stderr"] for cell in outputs]
    errors = [one.text for cell in outputs for one in cell if one.get("name") == "stderr"]
    return shown, "".join(errors)


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # the kernel keeps its history there
    stored, _ = split(nbformat.read(NOTEBOOK, as_version=4))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown, progress = split(notebook)
    assert [[one.output_type for one in cell] for cell in shown] == [
        [one.output_type for one in cell] for cell in stored
    ]
    results = [one for cell in shown for one in cell]
    assert any("<table>" in one.data.get("text/html", "") for one in results if "data" in one)
    assert any("(5 - (1 / 5)) * 5 is right" in one.text for one in results if "text" in one)
    assert "3/3" in progress
