"""What counts as a test split."""

import pytest

from treeshare.experiments.export.leakage import find_test_problems, find_test_split
from treeshare.tasks import Countdown, Game24
from treeshare.tasks.arithmetic.game24_puzzles import solvable_puzzles

SPLITS = {
    "split": {"split": "test"},
    "split-2024": {"split": "Test-2024"},
    "hub": {"path": "hf://openai/gsm8k/main/test"},
    "hub-name": {"path": "hf://someone/math-test/default/train"},
    "file": {"path": "data/test.jsonl"},
    "long-file": {"path": "data/gsm8k_test.jsonl"},
    "folder": {"path": "saved/test/part-0.parquet"},
    "saved": {"path": "saved/test"},
    "aime": {"name": "aime", "path": "hf://HuggingFaceH4/aime_2024/default/train"},
    "aime25": {"path": "hf://math-ai/aime25/default/train"},
    "math500": {"path": "my/MATH-500.jsonl"},
    "tot": {"path": "mini0505_0_100_5.json"},
}
OTHERS = {
    "train": {"path": "hf://openai/gsm8k/main/train", "name": "gsm8k"},
    "contest": {"path": "contests.jsonl"},
    "latest": {"path": "data/latest/train.jsonl"},
    "folder-above": {"path": "/home/test_me/train.jsonl"},
    "all": {"split": "all", "path": None, "limit": 3},
    "class": {"_target_": "test.Task"},
}


@pytest.mark.parametrize("parameters", SPLITS.values(), ids=SPLITS)
def test_test_splits_are_named(parameters):
    reason = find_test_split({"seed": 0, **parameters})
    assert reason in [f"task.{name}={value}" for name, value in parameters.items()]


@pytest.mark.parametrize("parameters", OTHERS.values(), ids=OTHERS)
def test_other_data_are_not(parameters):
    assert find_test_split(parameters) is None


def test_games_for_testing_are_found_in_both_lists(tmp_path):
    path = tmp_path / "24.csv"
    games = [" ".join(map(str, puzzle)) for puzzle in solvable_puzzles()[999::-1]]
    path.write_text("\n".join(["Puzzles", *games]))  # the easiest games come last
    own = {problem.id for problem in Game24().problems()}
    assert find_test_problems(Game24(split="all"), {"path": None}) == own
    given = {problem.id for problem in Game24(str(path)).problems()}
    assert len(own) == len(given) == 100 and own.isdisjoint(given)
    assert find_test_problems(Game24(str(path)), {"path": str(path)}) == own | given
    assert find_test_problems(Countdown(limit=1), {}) == set()
