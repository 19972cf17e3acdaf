"""The model in the package is what its card says and reads the tasks' prompts.

What it solves is tested with the demo, in tests/test_readme.py.
"""

import json
from pathlib import Path

import pytest

import treeshare.llm_backend.model.loading as pretrained
from treeshare.experiments.training.examples import PREAMBLES, VOCABULARY, WORDS
from treeshare.experiments.training.small_llama import END, make_tokenizer
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import load_model
from treeshare.tasks.arithmetic.rules import Position

DIRECTORY = Path(pretrained.__file__).parents[1] / "embedded"
REPLIES = (" sure\n", " yes\n", " 14 / 4 = 7/2 (left: 7/2 9)\n", " (14 - 9) * 5 - 1 = 24\n")
ROLES = ("propose", "step", "io", "value", "judge")


@pytest.fixture(scope="module")
def model():
    return load_model("embedded")


def test_weights_are_what_the_card_says():
    data = (DIRECTORY / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__")
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}
    count = sum(stop - start for start, stop in (t["data_offsets"] for t in header.values())) // 2
    assert f"{count:,} parameters" in (DIRECTORY / "MODEL_CARD.md").read_text()
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) < 30e6


def test_loads_in_16_bits():
    TreeEngine(load_model("embedded", dtype="bfloat16"))  # which checks its logits


def test_tokenizer_is_the_one_that_training_makes(model):
    """If this fails, a prompt was changed that is a single token for the model."""
    expected = make_tokenizer(PREAMBLES, VOCABULARY)
    assert all(len(model.tokenizer.encode(text)) == 1 for text in PREAMBLES)
    assert model.tokenizer.encode(END) == tuple(expected.encode(END))
    for words in WORDS:
        for role in ROLES:
            prompt = "".join(words.prompt(role, Position.start((1, 5, 9, 14))))
            assert model.tokenizer.encode(prompt) == tuple(expected.encode(prompt))


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("role", ROLES)
def test_tokens_of_prompt_and_reply_are_decoded_as_they_were(model, role, reply):
    prompt = "".join(WORDS[1].prompt(role, Position.start((1, 5, 9, 14))))
    start, (end,) = model.tokenizer.encode_continuations(prompt, [reply])
    tokens = (*start, *end)
    assert tokens == model.tokenizer.encode(prompt + reply)
    assert model.tokenizer.decode(tokens) == prompt + reply


@pytest.mark.parametrize("verdict", [" sure", " likely", " impossible", " yes", " no"])
def test_a_verdict_is_one_token(model, verdict):
    assert len(model.tokenizer.encode_continuations("Verdict:", [verdict])[1][0]) == 1
