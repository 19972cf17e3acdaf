"""Loading: a tokenizer whose texts keep their spaces, and log records of what is being done."""

import logging

import pytest
import tokenizers
import transformers
from tiny_models import byte_tokenizer, make_network

from treeshare.llm_backend.model import Model, load_model
from treeshare.llm_backend.pretrained import load_pretrained

SPACED = "a . b , c 's do n't ?  !"


def character_tokenizer():
    """One token a character, and no BPE: the library drops spaces of what such a one decodes."""
    backend = tokenizers.Tokenizer(
        tokenizers.models.Unigram([(chr(point), -1.0) for point in range(128)])
    )
    backend.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=True
    )


def save(directory, tokenizer):
    make_network("llama").save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def test_a_decoded_text_keeps_spaces_that_a_tokenizer_would_drop():
    tokenizer = character_tokenizer()
    model = Model(make_network("llama"), tokenizer)
    tokens = model.encode(SPACED)
    assert tokenizer.decode(tokens) != SPACED
    assert model.decode(tokens) == SPACED


def test_a_tokenizer_that_would_drop_spaces_is_loaded_as_one_that_does_not(tmp_path):
    name = save(tmp_path, character_tokenizer())
    assert transformers.AutoTokenizer.from_pretrained(name).clean_up_tokenization_spaces
    _, tokenizer = load_pretrained("model", "AutoModelForCausalLM", name, "float32", "cpu")
    assert tokenizer.decode(tokenizer.encode(SPACED)) == SPACED


def test_no_warning_that_spaces_are_kept(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tokenizer = byte_tokenizer()
    tokenizer.clean_up_tokenization_spaces = True  # as of Llama 3 and GPT-2
    model = Model(make_network("llama"), tokenizer)
    tokens = model.encode(SPACED)
    transformers.utils.logging.warning_once.cache_clear()
    assert model.decode(tokens) == SPACED and model.may_close(tokens[0], ("a",))
    assert caplog.messages == []
    tokenizer.decode(tokens)
    assert "clean_up_tokenization_spaces=True" in caplog.text


def test_spaces_survive_in_the_embedded_model():
    model = load_model("embedded")
    assert model.decode(model.encode(SPACED)) == SPACED


def test_spaces_survive_in_smollm2(smollm2):
    assert smollm2.decode(smollm2.encode(SPACED)) == SPACED


@pytest.mark.parametrize(("fused", "more"), [(False, []), (True, ["merging layers"])])
def test_what_is_being_done_is_logged(fused, more, tmp_path, caplog):
    name = save(tmp_path, byte_tokenizer())
    with caplog.at_level(logging.INFO, "treeshare.llm_backend"):
        load_model(name, dtype="bfloat16", fused=fused)
    assert caplog.messages == [
        f"loading {name} (bfloat16) on cpu",
        "checking LlamaForCausalLM against its own attention",
        *more,
    ]
    assert {record.name for record in caplog.records} == {
        "treeshare.llm_backend.pretrained",
        "treeshare.llm_backend.model",
    }
