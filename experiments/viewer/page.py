"""Put runs into the HTML page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .shown_runs import ShownRun, json_text

TEMPLATE = Path(__file__).with_name("viewer.html")
"""The page without data."""


def page(runs: Sequence[ShownRun]) -> str:
    """The page of some runs; it parses a tree only when it is selected."""
    before, marker, after = TEMPLATE.read_text(encoding="utf-8").partition("<!-- data -->")
    assert marker, "the template has no place for the data"
    entries: list[dict[str, Any]] = []
    trees: list[str] = []
    for number, run in enumerate(runs):
        for entry in run.entries:
            entries.append(
                {
                    "run": number,
                    "problem": entry.problem,
                    "row": entry.row and asdict(entry.row),
                    "failure": entry.failure and asdict(entry.failure),
                    "tree": None if entry.tree is None else len(trees),
                }
            )
            if entry.tree is not None:
                trees.append(entry.tree)
    about = [
        {
            "title": run.title,
            "name": run.name,
            "totals": run.totals and asdict(run.totals),
            "failed": sum(entry.failure is not None for entry in run.entries),
        }
        for run in runs
    ]
    title = runs[0].title if len(runs) == 1 else f"{len(runs)} runs"
    blocks = [_script("data", json_text({"title": title, "runs": about, "entries": entries}))]
    blocks += [_script(f"tree-{number}", tree) for number, tree in enumerate(trees)]
    return before + "\n".join(blocks) + after


def _script(name: str, text: str) -> str:
    return f'<script type="application/json" id="{name}">{text}</script>'
