import json
import os

import pytest

from treeshare.experiments.results.rows import Row, Session

GAMES = {
    "_target_": "treeshare.tasks.Game24",
    "limit": 3,
    "verifier": {"_target_": "treeshare.tasks.Game24Verifier"},
}


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch, tmp_path):
    """No variable, no login and no file of the user; wandb leaves the streams of pytest alone."""
    for name in os.environ:
        if name.startswith(("WANDB_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONSOLE", "off")


@pytest.fixture
def run_logged(run_with, monkeypatch):
    """Runs three games with a logger, given as its configuration; `refused` names a puzzle."""

    def run(logger, refused=None, **parts):
        if refused is None:
            monkeypatch.delenv("REFUSED", raising=False)
        else:
            monkeypatch.setenv("REFUSED", refused)
        engine = {"_target_": "troubled_engines.Refusing"}
        return run_with(**({"task": GAMES, "engine": engine, "logger": logger} | parts))

    return run


@pytest.fixture
def disk_rows(run_directory):
    """Reads the rows and the sessions of the only run."""

    def read():
        files = {"results.jsonl": Row, "sessions.jsonl": Session}
        return [
            [kind(**json.loads(line)) for line in (run_directory() / name).read_text().splitlines()]
            for name, kind in files.items()
        ]

    return read


@pytest.fixture
def make_row():
    """Makes the row of a puzzle."""
    counts = ("nodes", "requests", "rounds", "prompt_tokens", "completion_tokens")
    counts += ("unique_kv_tokens", "logical_kv_tokens", "parse_failures", "num_answers", "seed")

    def make(problem, **fields):
        given = dict.fromkeys(counts, 1) | dict.fromkeys(("correct_top1", "correct_any"), True)
        given |= {"mean_accuracy": 0.5, "answers": ["1 + 1", None], "budget_hit": None}
        return Row(problem=problem, **given | {"seconds": 0.5, "oracle": False} | fields)

    return make
