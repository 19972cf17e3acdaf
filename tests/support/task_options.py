"""What each task's configuration needs besides its name, to run with a default search."""

from pathlib import Path

FILES = Path(__file__).parent / "task_files"
BY_SAMPLES = ["expander=sample", "evaluator=heuristic"]

TASK_OPTIONS = {
    "blocksworld": [],
    "countdown": [],
    "crosswords": [f"task.path={FILES}/crosswords.json", "expander=propose"],
    "game24": [],
    "math": [f"task.path={FILES}/math.jsonl", "expander=sample"],
    "reasoning_gym": ["task.dataset=basic_arithmetic", "expander=sample"],
    "set_intersection": BY_SAMPLES,
    "sorting": BY_SAMPLES,
}
