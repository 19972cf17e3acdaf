"""What each task's configuration needs besides its name, to run with a default search."""

from pathlib import Path

import pytest

FILES = Path(__file__).parent / "task_files"
BY_SAMPLES = ["expander=sample", "evaluator=heuristic"]

TASK_OPTIONS = {
    "blocksworld": [],
    "countdown": ["task.numbers=4"],
    "crosswords": [f"task.path={FILES}/crosswords.json", "expander=propose"],
    "game24": [],
    "math": [f"task.path={FILES}/math.jsonl", "expander=sample"],
    "reasoning_gym": ["task.dataset=chain_sum", "expander=sample"],
    "set_intersection": BY_SAMPLES,
    "sorting": BY_SAMPLES,
}


def task_options(name):
    """The overrides that choose a task; skips the test if the task's extra is not installed."""
    if name == "reasoning_gym":
        pytest.importorskip(name, reason="needs the extra `reasoning_gym`")
    return [f"task={name}", *TASK_OPTIONS[name]]
