"""Loading: what is refused, and that a refusal says why in one line."""

import numpy as np
import pytest
import torch
from attention_check import DEVICE
from chat_templates import TEMPLATES, with_template
from tiny_models import CONFIGS, SIZES, byte_tokenizer, make_network, network_of
from transformers import LlamaConfig

from treeshare.kernels.planning.segments import Segment
from treeshare.llm_backend.chat.format import ChatFormat
from treeshare.llm_backend.model.attention import TorchAttention, make_backend
from treeshare.llm_backend.model.model import Model, load_model
from treeshare.llm_backend.model.network import Network


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"dtype": "int8"},
            r"model\.dtype='int8' is not one of auto, bfloat16, float16, float32$",
        ),
        (
            {"name": "no/such/dir"},
            r"model\.name='no/such/dir' is no directory, and no Hugging Face",
        ),
        ({"name": "nobody/nothing"}, r"model\.name='nobody/nothing' is neither a directory"),
    ],
    ids=["dtype", "path", "hub"],
)
def test_bad_arguments_give_one_line(arguments, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=message) as raised:
        load_model(**arguments)
    assert "\n" not in str(raised.value)


def test_unknown_attention_lists_the_known():
    with pytest.raises(ValueError, match="attention='flash' is not one of auto, torch, deft, "):
        Model.of(make_network("llama"), byte_tokenizer(), attention="flash")


def test_a_saved_model_loads(tmp_path):
    network = make_network("llama")
    network.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    model = load_model(str(tmp_path), dtype="bfloat16")
    assert model.network.dtype == torch.bfloat16
    model.network.check(TorchAttention())
    assert model.network.layers == [(2, 8, 8)] * 3
    assert model.network.context_length == 256
    assert model.network.end_tokens == {257}


@pytest.fixture
def saved(tmp_path):
    """Saves a tiny model whose tokenizer has a template, or none, and returns its directory."""

    def save(template):
        hf = with_template(byte_tokenizer(), TEMPLATES.get(template))
        size = max(hf.get_vocab().values()) + 1
        directory = tmp_path / str(template)
        network_of(LlamaConfig(**SIZES | {"vocab_size": size})).save_pretrained(directory)
        hf.save_pretrained(directory)
        return str(directory)

    return save


def test_auto_asks_in_turns_if_there_is_a_template(saved):
    model = load_model(saved("plain"))
    assert str(model.chat) == f"template {ChatFormat(model.tokenizer).digest}"
    stop = model.tokenizer.hf.convert_tokens_to_ids("<stop>")
    assert model.network.end_tokens == {257, stop}
    assert load_model(saved("plain"), chat="flat").chat is None
    assert load_model(saved(None)).chat is None
    assert load_model("embedded").chat is None


def test_a_file_can_hold_the_template(saved, tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text("{{ today }}" + TEMPLATES["channel"])
    given = {"chat_template_args": {"today": 1}, "system": "Be brief.", "chat_date": "2026-02-01"}
    model = load_model(saved(None), chat=str(file), **given)
    expected = ChatFormat(
        model.tokenizer, file.read_text(), {"today": 1}, "Be brief.", "2026-02-01"
    )
    assert model.chat.digest == expected.digest


def test_a_template_whose_turns_do_not_end_as_texts_do_is_warned_of(saved, caplog):
    """As that of a base model, which was not trained on turns."""
    load_model(saved("plain"))
    line = "if this is a base model, model.chat=flat asks it in plain text"
    assert caplog.text.count(line) == 1
    load_model(saved("plain"), chat="flat")
    assert caplog.text.count(line) == 1


@pytest.mark.parametrize(
    ("template", "given", "message"),
    [
        (None, {"chat": "template"}, "model.chat=template, but the tokenizer has no chat template"),
        (
            "plain",
            {"chat": "tempalte"},
            "model.chat='tempalte' must be auto, flat, template or a file with a chat template: ",
        ),
        ("plain", {"chat": True}, "model.chat=True must be auto, flat, template or a file"),
        (
            None,
            {"system": "Be brief."},
            "model.system='Be brief.' needs model.chat=template: .* is asked in plain text",
        ),
        (
            "plain",
            {"chat": "flat", "chat_template_args": {"a": 1}},
            "model.chat_template_args={'a': 1} needs model.chat=template",
        ),
        ("plain", {"chat_template_args": {"a": 1}}, "model.chat_template_args.a=1 changes nothing"),
        ("plain", {"chat_date": "x"}, "model.chat_date='x' must be a date"),
    ],
)
def test_a_chat_format_that_cannot_be_is_refused(saved, template, given, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        load_model(saved(template), **given)
    assert "\n" not in str(error.value)


def test_continuations_add_up(llama):
    prompt, text = "4 + 4", " = 8"
    start, ends = llama.tokenizer.encode_continuations(prompt, [text])
    assert start + ends[0] == llama.tokenizer.encode(prompt + text)


@pytest.mark.parametrize("name", CONFIGS)
def test_deft_gives_the_logits_of_the_models_own_attention(name):
    """The check compares them; sliding windows and grouped heads are among the models."""
    network = make_network(name).to(DEVICE)
    Network(network, byte_tokenizer()).check(make_backend("deft", DEVICE))


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_merged_layers_give_the_same_logits(architecture):
    network = make_network(architecture)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # norms and biases, which begin as ones and zeros
                parameter.add_(torch.rand_like(parameter))
    tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    with torch.inference_mode():
        expected = network(torch.tensor([tokens])).logits[0]
    ours, attention = Network(network, byte_tokenizer(), fused=True), TorchAttention()
    ours.check(attention)
    slots, rows = np.arange(len(tokens)), [0, 4, 9]
    segments = [Segment(slots, 0, 0, len(tokens))]
    pool = ours.new_pool(len(tokens))
    logits = ours.forward(tokens, range(len(tokens)), slots, segments, attention, pool, rows)
    assert (logits - expected[rows]).abs().max() < 1e-4
    attention = network.model.layers[0].self_attn
    storages = {
        part.weight.untyped_storage().data_ptr()
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    }
    assert len(storages) == 1  # nothing is held twice


def test_architectures_that_cannot_be_merged_are_named():
    with pytest.raises(ValueError, match=r"fused=true knows .* not Gemma3ForCausalLM"):
        Network(make_network("gemma3"), byte_tokenizer(), fused=True).check(TorchAttention())
