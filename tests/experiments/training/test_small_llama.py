"""The small Llama's tokenizer encodes any text, and a saved model can be loaded.

Loading includes the check of the architecture.
"""

import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from treeshare.experiments.training.small_llama import END, Size, make_network, make_tokenizer, save
from treeshare.llm_backend.model.attention import TorchAttention
from treeshare.llm_backend.model.model import load_model
from treeshare.llm_backend.model.network import Network

PREAMBLE = "Make 24 from the numbers.\n\nNumbers: 2 17\nVerdict: impossible\n\n"
WORDS = ("Numbers:", "Verdict:", "left:", "sure", "impossible")
SIZE = Size(layers=2, hidden=32, heads=2, feed_forward=48, context=64)
TOKENIZER = make_tokenizer([PREAMBLE], WORDS)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return make_network(TOKENIZER, SIZE)


def pieces(text):
    return [TOKENIZER.decode([token]) for token in TOKENIZER.encode(text)]


@given(st.text())
@example(f"a{END}b")
@settings(max_examples=300, deadline=None)
def test_any_text_is_decoded_as_it_was(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text), skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PREAMBLE + "Numbers: 4 6", [PREAMBLE, "Numbers:", " 4", " 6"]),
        ("7 - -3 = 10 (left: 10 8/3)\n\n", None),
        ("12345 + 605", ["1", "23", "45", " +", " 6", "05"]),
        ("Verdict: sure\n", ["Verdict:", " sure", "\n"]),
        ("(14 - 9)", ["(", "14", " -", " 9", ")"]),
    ],
    ids=["preamble", "step", "large", "verdict", "parentheses"],
)
def test_pieces(text, expected):
    step = "7| -| -|3| =| 10| (|left:| 10| 8|/|3|)|\n|\n"
    assert pieces(text) == (expected or step.split("|"))


def test_a_preamble_is_one_token_anywhere():
    assert pieces(f"a{PREAMBLE}b") == ["a", PREAMBLE, "b"]


def test_end_is_no_text_of_a_reply():
    assert TOKENIZER.eos_token == END
    assert TOKENIZER.decode([TOKENIZER.eos_token_id], skip_special_tokens=True) == ""


def test_network_has_the_size_asked_for(network):
    assert isinstance(network, transformers.LlamaForCausalLM)
    layer = 4 * 32 * 32 + 3 * 32 * 48 + 2 * 32
    expected = 2 * layer + 32 + network.config.vocab_size * 32  # embeddings shared
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert network.config.vocab_size >= len(TOKENIZER)


def test_saved_model_loads_and_splits_continuations(network, tmp_path):
    for _ in range(2):  # the second replaces the first
        save(network, TOKENIZER, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    model = load_model(str(tmp_path / "model"), dtype="bfloat16")
    assert model.network.context_length == 64
    assert model.network.end_tokens == {TOKENIZER.eos_token_id}
    assert not model.network.end_tokens & {*model.tokenizer.encode(f"a{END}b")}
    prompt = f"{PREAMBLE}Numbers: 3 8\nVerdict:"
    for verdict in (" sure", " impossible"):
        (token,) = model.tokenizer.encode_continuations(prompt, [verdict])[1][0]
        assert model.tokenizer.encode(prompt + verdict) == (*model.tokenizer.encode(prompt), token)
    assert model.tokenizer.encode(prompt)[0] == TOKENIZER.convert_tokens_to_ids(PREAMBLE)


def test_network_in_training_stays_in_fp32(network, tmp_path):
    save(network, TOKENIZER, tmp_path / "model")
    assert network.dtype == torch.float32
    ours = Network(network, TOKENIZER)
    ours.check(TorchAttention())
    assert ours.layers == [(2, 16, 16)] * 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": 0}, r"model\.layers=0 must be at least 1"),
        ({"heads": 3}, r"model\.hidden=32 is not a multiple of heads=3"),
    ],
)
def test_impossible_sizes_are_refused(fields, message):
    given = {"layers": 2, "hidden": 32, "heads": 2, "feed_forward": 48, "context": 64}
    with pytest.raises(ValueError, match=message):
        Size(**given | fields)
