"""The options that each task needs to run with a default search."""

from pathlib import Path

import pytest

FILES = Path(__file__).parent / "task_files"
TASK_OPTIONS = {
    "countdown": ["task.numbers=4"],  # quicker than the default
    "crosswords": [f"task.path={FILES}/crosswords.json"],
    "aime": [f"task.path={FILES}/aime.jsonl"],
    "gsm8k": [f"task.path={FILES}/math.jsonl"],
    "math": [f"task.path={FILES}/math.jsonl"],
    "math500": [f"task.path={FILES}/math500.jsonl"],
    "reasoning_gym": ["task.dataset=chain_sum"],
}


def task_options(name):
    """Return the overrides that choose a task; skip the test without the task's extra."""
    if name == "reasoning_gym":
        pytest.importorskip(name, reason="needs the extra `reasoning-gym`")
    return [f"task={name}", *TASK_OPTIONS.get(name, [])]
