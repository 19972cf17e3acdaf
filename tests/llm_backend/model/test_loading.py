"""Loading: texts keep their spaces, foreign code is not run, and what is broken is named."""

import json
import logging

import pytest
import tokenizers
import transformers
from tiny_models import byte_tokenizer, make_network, make_reward_model

from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.loading import load_pretrained
from treeshare.llm_backend.model.model import Model, load_model
from treeshare.llm_backend.reward.hf import load_reward_model

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
    model = Model.of(make_network("llama"), tokenizer)
    tokens = model.tokenizer.encode(SPACED)
    assert tokenizer.decode(tokens) != SPACED
    assert model.tokenizer.decode(tokens) == SPACED


def test_a_tokenizer_that_would_drop_spaces_is_loaded_as_one_that_does_not(tmp_path):
    name = save(tmp_path, character_tokenizer())
    assert transformers.AutoTokenizer.from_pretrained(name).clean_up_tokenization_spaces
    _, tokenizer = load_pretrained("model", "AutoModelForCausalLM", name, "float32", "cpu")
    assert tokenizer.decode(tokenizer.encode(SPACED)) == SPACED


def test_no_warning_that_spaces_are_kept(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tokenizer = byte_tokenizer()
    tokenizer.clean_up_tokenization_spaces = True  # as of Llama 3 and GPT-2
    model = Model.of(make_network("llama"), tokenizer)
    tokens = model.tokenizer.encode(SPACED)
    transformers.utils.logging.warning_once.cache_clear()
    assert model.tokenizer.decode(tokens) == SPACED and model.tokenizer.may_close(tokens[0], ("a",))
    assert caplog.messages == []
    tokenizer.decode(tokens)
    assert "clean_up_tokenization_spaces=True" in caplog.text


def test_spaces_survive_in_the_embedded_model():
    model = load_model("embedded")
    assert model.tokenizer.decode(model.tokenizer.encode(SPACED)) == SPACED


def test_spaces_survive_in_smollm2(smollm2):
    assert smollm2.tokenizer.decode(smollm2.tokenizer.encode(SPACED)) == SPACED


@pytest.mark.parametrize(("fused", "more"), [(False, []), (True, ["merging layers"])])
def test_what_is_being_done_is_logged(fused, more, tmp_path, caplog):
    name = save(tmp_path, byte_tokenizer())
    with caplog.at_level(logging.INFO, "treeshare.llm_backend"):
        TreeEngine(load_model(name, dtype="bfloat16", fused=fused))
    first = caplog.records[: 2 + len(more)]  # what the engine logs follows
    assert [record.getMessage() for record in first] == [
        f"loading {name} (bfloat16) on cpu",
        "checking LlamaForCausalLM against its own attention",
        *more,
    ]
    assert {record.name for record in first} == {
        "treeshare.llm_backend.model.loading",
        "treeshare.llm_backend.model.network",
    }


OWN_CODE = """
import pathlib, transformers
pathlib.Path({canary!r}).touch()
class OwnConfig(transformers.LlamaConfig):
    model_type = "own"
class OwnForCausalLM(transformers.LlamaForCausalLM):
    config_class = OwnConfig
class OwnForSequenceClassification(transformers.LlamaForSequenceClassification):
    config_class = OwnConfig
class OwnTokenizer(transformers.PreTrainedTokenizerFast):
    pass
"""


def with_own_code(directory, part):
    """A saved Llama whose configuration, or whose tokenizer's, names code beside it."""
    make_reward_model(1).save_pretrained(directory)
    make_network("llama").save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    (directory / "own.py").write_text(OWN_CODE.format(canary=str(directory / "canary")))
    file = directory / {"model": "config.json", "tokenizer": "tokenizer_config.json"}[part]
    config = json.loads(file.read_text())
    if part == "model":
        classes = ("Config", "ForCausalLM", "ForSequenceClassification")
        names = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
        config["model_type"] = "own"
        config["auto_map"] = {
            name: f"own.Own{kind}" for name, kind in zip(names, classes, strict=True)
        }
    else:
        config["tokenizer_class"] = "OwnTokenizer"
        config["auto_map"] = {"AutoTokenizer": [None, "own.OwnTokenizer"]}
    file.write_text(json.dumps(config))
    return str(directory)


@pytest.fixture
def asked(monkeypatch, tmp_path_factory):
    """Questions on the terminal, each answered with yes; and a cache of foreign code."""
    questions = []
    monkeypatch.setattr("builtins.input", lambda question="": questions.append(question) or "y")
    modules = str(tmp_path_factory.mktemp("modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    return questions


@pytest.mark.parametrize("group", ["model", "reward_model"])
@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_code_of_a_directory_is_neither_run_nor_asked_about(group, part, asked, tmp_path):
    name = with_own_code(tmp_path, part)
    load = {"model": load_model, "reward_model": load_reward_model}[group]
    with pytest.raises(ValueError) as raised:
        load(name)
    message = str(raised.value)
    assert message.startswith(f"{group}.name={name!r} ") and "\n" not in message
    assert f"+{group}.trust_remote_code=true" in message
    assert not asked and not (tmp_path / "canary").exists()


def test_code_of_a_directory_that_is_trusted_runs(asked, tmp_path):
    name = with_own_code(tmp_path, "model")
    model = load_model(name, trust_remote_code=True)
    assert model.network.vocabulary_size == 260 and (tmp_path / "canary").exists()
    assert not asked


@pytest.mark.parametrize("load", [load_model, load_reward_model])
def test_trust_is_true_or_false(load):
    with pytest.raises(ValueError, match=r"\.trust_remote_code='no' must be true or false"):
        load("no/such", trust_remote_code="no")


def break_type(directory):
    edit(directory / "config.json", model_type="nothing_known")


def break_weights(directory):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def break_header(directory):
    (directory / "model.safetensors").write_bytes(b"\xff" * 64)


def break_tokenizer(directory):
    for file in directory.glob("tokenizer*"):
        file.unlink()


def break_json(directory):
    (directory / "config.json").write_text("{")


def remove_weights(directory):
    (directory / "model.safetensors").unlink()


def other_sizes(directory):
    edit(directory / "config.json", hidden_size=48)


def edit(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    "damage",
    [
        break_type,
        break_weights,
        break_header,
        break_tokenizer,
        break_json,
        remove_weights,
        other_sizes,
    ],
)
def test_a_broken_directory_gives_one_line_that_names_it(damage, tmp_path):
    name = save(tmp_path, byte_tokenizer())
    damage(tmp_path)
    with pytest.raises(ValueError) as raised:
        load_model(name)
    message = str(raised.value)
    assert message.startswith(f"model.name={name!r} ") and "\n" not in message
    assert len(message) < 500
