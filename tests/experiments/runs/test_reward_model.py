"""Runs whose evaluator uses a reward model."""

import pytest
from tiny_models import byte_tokenizer, make_reward_model

from treeshare.llm_backend.api import Reward
from treeshare.llm_backend.reward.hf import load_reward_model

SEARCH = ["engine=mock", "task.limit=2", "search=best_of_n", "search.role=io", "answers=10"]
SEARCH += ["engine.replies=[1 + 2, 3 * 4]"]


@pytest.fixture
def reward_model(tmp_path):
    make_reward_model(1).save_pretrained(tmp_path / "reward")
    byte_tokenizer(pad_token="<pad>").save_pretrained(tmp_path / "reward")
    return ["reward_model=hf", f"reward_model.name={tmp_path / 'reward'}"]


@pytest.mark.parametrize(
    "evaluator",
    [["evaluator=outcome_reward"], ["evaluator=process_reward", "evaluator.by=reward_model"]],
    ids=["outcome", "process"],
)
def test_values_are_those_of_the_reward_model(evaluator, reward_model, treeshare, read_rows):
    done = treeshare(*SEARCH, *reward_model, *evaluator)
    assert (done.code, done.err) == (0, "")
    rows = read_rows()
    assert [row["rounds"] for row in rows] == [2, 2]
    loaded = load_reward_model(reward_model[1].partition("=")[2])
    question = "Make 24 from the numbers by + - * / and parentheses. Use each number exactly once."
    for row in rows:
        numbers = row["problem"].partition("/")[2].replace("-", " ")
        asked = [
            Reward(f"{question} Numbers: {numbers}", f"Answer: {answer} = 24")
            for answer in dict.fromkeys(row["answers"])
        ]
        scores = [reply.score for reply in loaded.reward(asked)]
        assert scores == sorted(scores, reverse=True) and len(scores) == 2
        assert row["requests"] == 1 + 2


def test_another_reward_model_is_another_run(reward_model, treeshare, tmp_path):
    treeshare(*SEARCH)
    treeshare(*SEARCH, *reward_model)
    assert len(list(tmp_path.glob("outputs/**/results.jsonl"))) == 2
