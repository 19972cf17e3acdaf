"""What `auto` chooses for machines that are described in numbers."""

import pytest
import torch
from attention_check import DEVICE
from tiny_models import byte_tokenizer, make_network, network_of

from treeshare.llm_backend.model import device as device_module
from treeshare.llm_backend.model import loading, model, network
from treeshare.llm_backend.model.device import (
    Gpu,
    check_device,
    choose_device,
    choose_dtype,
    free_memory,
    gpu_of,
    has_gpu,
)
from treeshare.llm_backend.model.model import Model, load_model

H200, ADA, TURING = Gpu((9, 0)), Gpu((8, 9)), Gpu((7, 5))
AMD, WINDOWS = Gpu((9, 0), is_nvidia=False), Gpu((8, 9), has_triton=False)


@pytest.fixture
def on(monkeypatch):
    """Has the models that are made on the CPU take it for a GPU."""

    def replace(gpu):
        for module in (loading, model, network):
            monkeypatch.setattr(module, "gpu_of", lambda _: gpu)

    return replace


@pytest.fixture
def saved(tmp_path):
    """Saves a tiny model of an architecture and a data type, and returns its directory."""

    def save(architecture, dtype):
        make_network(architecture).to(dtype).save_pretrained(tmp_path)
        byte_tokenizer().save_pretrained(tmp_path)
        return str(tmp_path)

    return save


@pytest.mark.parametrize(
    ("stored", "gpu", "chosen"),
    [
        (torch.bfloat16, None, "float32"),
        (torch.float16, None, "float32"),
        (torch.bfloat16, H200, "bfloat16"),
        (torch.float16, H200, "float16"),
        (torch.float32, H200, "bfloat16"),
        (None, ADA, "bfloat16"),
        (torch.bfloat16, TURING, "float16"),
        (torch.float32, TURING, "float16"),
    ],
)
def test_the_data_type_is_that_of_the_weights_if_the_gpu_has_it(stored, gpu, chosen):
    assert choose_dtype(stored, gpu) == chosen


@pytest.mark.parametrize("is_one", [True, False])
def test_the_device_is_a_gpu_if_there_is_one(is_one, monkeypatch):
    monkeypatch.setattr(device_module, "has_gpu", lambda: is_one)
    assert choose_device("model.device", "auto") == ("cuda" if is_one else "cpu")
    assert choose_device("model.device", "cpu") == "cpu"


@pytest.mark.parametrize(
    ("built_for", "is_one"),
    [(["sm_75", "sm_90a"], True), (["sm_80", "sm_90"], False), (["gfx90a"], True)],
)
def test_a_gpu_that_pytorch_is_not_built_for_is_none(built_for, is_one, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old one")
    assert has_gpu() == is_one
    assert ("no kernels for an old one" in caplog.text) == (not is_one)


@pytest.mark.parametrize("device", ["tpu", "", "cpu:x", None, 3.5])
def test_another_device_is_one_line(device):
    with pytest.raises(ValueError, match=r"model\.device=.* is not one of auto, cpu") as raised:
        check_device("model.device", device)
    assert "\n" not in str(raised.value)


def test_no_gpu_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"model\.device='cuda:1': PyTorch sees no CUDA device"):
        check_device("model.device", "cuda:1")


def test_the_memory_of_the_cpu_is_known_on_linux():
    assert 1 << 20 < free_memory("cpu") < 1 << 50
    assert gpu_of("cpu") is None and free_memory("meta") is None


@pytest.mark.parametrize(
    ("gpu", "attention"), [(None, "torch"), (TURING, "torch"), (AMD, "torch"), (WINDOWS, "torch")]
)
def test_our_kernels_need_a_recent_gpu_of_nvidias_and_triton(gpu, attention, on):
    on(gpu)
    made = Model.of(make_network("llama"), byte_tokenizer(), "auto", "auto")
    assert made.make_attention().name == attention
    assert made.network.merged is None


@pytest.mark.parametrize("gpu", [H200, ADA])
@pytest.mark.parametrize(
    ("architecture", "is_fused"), [("llama", True), ("qwen3", True), ("gemma3", False)]
)
def test_layers_are_merged_where_they_can_be(gpu, architecture, is_fused, on, caplog):
    on(gpu)
    with caplog.at_level("INFO"):
        made = Model.of(make_network(architecture).to(DEVICE), byte_tokenizer(), "auto", "auto")
        assert made.make_attention().name == "deft"
    assert (made.network.merged is not None) == is_fused
    assert ("layers are not merged: fused=true knows " in caplog.text) == (not is_fused)


def test_layers_that_give_other_logits_are_not_merged(on, monkeypatch, caplog):
    class Wrong(network.FusedDecoder):
        def __call__(self, *args):
            return super().__call__(*args) + 1

    on(H200)
    monkeypatch.setattr(network, "FusedDecoder", Wrong)
    made = Model.of(make_network("llama").to(DEVICE), byte_tokenizer(), "auto", "auto")
    with caplog.at_level("INFO"):
        made.make_attention()
    assert made.network.merged is None and "gives other logits with merged layers" in caplog.text
    asked = Model.of(make_network("llama").to(DEVICE), byte_tokenizer(), "auto", True)
    with pytest.raises(ValueError, match="gives other logits with merged layers"):
        asked.make_attention()


def test_attention_that_our_kernels_lack_is_computed_by_pytorch(on, caplog):
    on(H200)
    config = make_network("llama").config
    config.head_dim = 1032
    wide = Model.of(network_of(config).to(DEVICE), byte_tokenizer(), "auto")
    assert wide.make_attention().name == "torch"
    assert "attention=auto is torch, as deft cannot serve the model: Llama" in caplog.text
    assert "a head dimension of 1032 exceeds" in caplog.text


@pytest.mark.parametrize(
    ("stored", "gpu", "dtype", "said"),
    [
        (torch.float32, None, torch.float32, ""),
        (torch.bfloat16, None, torch.float32, ""),
        (torch.bfloat16, ADA, torch.bfloat16, ""),
        (torch.float32, ADA, torch.bfloat16, "the weights are rounded to bfloat16"),
        (torch.bfloat16, TURING, torch.float16, "this GPU has no bfloat16"),
    ],
)
def test_a_model_is_loaded_in_the_chosen_type(stored, gpu, dtype, said, on, saved, caplog):
    on(gpu)
    name = saved("llama", stored)
    with caplog.at_level("INFO"):
        assert load_model(name, dtype="auto").network.dtype == dtype
    assert said in caplog.text
    assert f"({str(dtype).removeprefix('torch.')}) on cpu" in caplog.text


def test_weights_that_do_not_fit_are_one_line(on, saved, monkeypatch):
    on(ADA)
    monkeypatch.setattr(loading, "free_memory", lambda _: 2000)
    with pytest.raises(ValueError) as raised:
        load_model(name := saved("llama", torch.float32))
    assert str(raised.value) == (
        f"model.name={name!r} has weights of 0.0 GiB in torch.float32, and cpu has 0.0 GiB free: "
        "take a smaller model, 16 bits (dtype=bfloat16) or device=cpu"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "tpu"}, r"model\.device='tpu' is not one of auto, cpu"),
        ({"fused": "maybe"}, r"model\.fused='maybe' must be auto, true or false"),
        ({"attention": "flash"}, r"model\.attention='flash' is not one of auto, torch, deft, "),
    ],
)
def test_bad_values_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        load_model(**arguments)
    assert "\n" not in str(raised.value)
