"""The model in the package is what its card says, reads the tasks' prompts, and solves by search
what its single chain does not."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

import treeshare.llm_backend.model.loading as pretrained
from treeshare.experiments.run import run
from treeshare.experiments.training.examples import PREAMBLES, VOCABULARY, WORDS
from treeshare.experiments.training.small_llama import END, make_tokenizer
from treeshare.llm_backend.model.model import load_model
from treeshare.tasks.arithmetic.rules import Position

DIRECTORY = Path(pretrained.__file__).parents[1] / "embedded"
REPLIES = (" sure\n", " yes\n", " 14 / 4 = 7/2 (left: 7/2 9)\n", " (14 - 9) * 5 - 1 = 24\n")
ROLES = ("propose", "step", "io", "value", "judge")


@pytest.fixture(scope="module")
def model():
    return load_model("embedded")


def summary(directory, *overrides):
    given = [f"output_dir={directory}", "progress=false", *overrides]
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        return run(compose("config", given))


def test_weights_are_what_the_card_says():
    data = (DIRECTORY / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__")
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}
    count = sum(stop - start for start, stop in (t["data_offsets"] for t in header.values())) // 2
    assert f"{count:,} parameters" in (DIRECTORY / "MODEL_CARD.md").read_text()
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) < 30e6


def test_loads_in_16_bits():
    load_model("embedded", dtype="bfloat16")  # checks its logits on tree attention


def test_tokenizer_is_the_one_that_training_makes(model):
    """Else a prompt was changed that the model knows as one token."""
    expected = make_tokenizer(PREAMBLES, VOCABULARY)
    assert all(len(model.encode(text)) == 1 for text in PREAMBLES)
    assert model.encode(END) == tuple(expected.encode(END))
    for words in WORDS:
        for role in ROLES:
            prompt = "".join(words.prompt(role, Position.start((1, 5, 9, 14))))
            assert model.encode(prompt) == tuple(expected.encode(prompt))


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("role", ROLES)
def test_tokens_of_prompt_and_reply_are_decoded_as_they_were(model, role, reply):
    prompt = "".join(WORDS[1].prompt(role, Position.start((1, 5, 9, 14))))
    tokens = (*model.encode(prompt), *model.encode_continuations(prompt, [reply])[1][0])
    assert tokens == model.encode(prompt + reply)
    assert model.decode(tokens) == prompt + reply


@pytest.mark.parametrize("verdict", [" sure", " likely", " impossible", " yes", " no"])
def test_a_verdict_is_one_token(model, verdict):
    assert len(model.encode_continuations("Verdict:", [verdict])[1][0]) == 1


def test_search_solves_what_one_chain_does_not(tmp_path):
    """Games held out from training, of which the model solves a third in one chain."""
    tree, chain = (
        summary(tmp_path, "task.limit=8", f"search={name}").totals for name in ("tot_bfs", "cot")
    )
    assert tree.top1 >= 6 / 8
    assert tree.top1 > chain.top1
    assert tree.parse_failures <= tree.calls / 100
