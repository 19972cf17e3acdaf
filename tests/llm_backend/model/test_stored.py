"""The forms in which a model is stored: what is read, and the line of what is not."""

import importlib.util
import json
import logging

import gguf
import numpy as np
import pytest
import torch
import transformers
from dense_check import Dense
from safetensors.torch import load_file, save_file
from tiny_models import SIZES, byte_tokenizer, make_network, network_of

from treeshare.llm_backend.engines.hf import HuggingFaceEngine
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.attention import TorchAttention
from treeshare.llm_backend.model.model import load_model


def save(directory, network=None, tokenizer=None):
    (network or make_network("llama")).save_pretrained(directory)
    (tokenizer or byte_tokenizer()).save_pretrained(directory)
    return str(directory)


def change_config(directory, **fields):
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def refusal(name, **options):
    with pytest.raises(ValueError) as raised:
        load_model(str(name), **options)
    message = str(raised.value)
    assert message.startswith(f"model.name={str(name)!r} ") and "\n" not in message
    return message


def own_logits(model):
    ids = torch.tensor([[(7 * i) % 250 for i in range(20)]])
    model.network.use_attention("eager")
    with torch.inference_mode():
        return model.network.hf(ids).logits[0]


# ---- vision-language checkpoints

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
TEXT = {key: value for key, value in SIZES.items() if key != "bos_token_id"}


def mistral3():
    text = transformers.MistralConfig(**TEXT, head_dim=8, sliding_window=None)
    vision = {"model_type": "pixtral", **VISION, "head_dim": 8}
    return transformers.Mistral3Config(text_config=text.to_dict(), vision_config=vision)


def qwen2_5_vl():
    text = TEXT | {"rope_parameters": MROPE}
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 4, "out_hidden_size": 32}
    return transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)


def gemma3():
    text = TEXT | {"head_dim": 16, "sliding_window": 7}
    vision = {"model_type": "siglip_vision_model", **VISION}
    return transformers.Gemma3Config(text_config=text, vision_config=vision)


@pytest.mark.parametrize("config", [mistral3, qwen2_5_vl, gemma3])
def test_the_language_model_of_a_vision_language_checkpoint(config, tmp_path, caplog):
    torch.manual_seed(0)
    whole = transformers.AutoModelForMultimodalLM.from_config(config(), attn_implementation="eager")
    name = save(tmp_path, whole)
    with caplog.at_level(logging.INFO, "treeshare.llm_backend"):
        model = load_model(name)
    assert "is left out: prompts are text" in caplog.text
    engine = TreeEngine(model, kv_tokens=64)  # the check of its attention passes
    with torch.inference_mode():
        expected = whole.eval()(torch.tensor([[1, 2, 3, 4, 5]]), use_cache=False).logits[0, -1]
    ours = Dense(model).next_logits([1, 2, 3, 4, 5])
    assert torch.allclose(ours, expected, atol=1e-5)
    assert model.network.num_parameters < whole.num_parameters()
    engine.close()


# ---- GGUF


def write_gguf(path, network):
    """A Llama in GGUF: the names of tensors and fields that llama.cpp gives them."""
    config, writer = network.config, gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    known = byte_tokenizer().get_vocab()
    tokens = [*sorted(known, key=known.get), "ab"]
    tokens += [f"<unused{i}>" for i in range(config.vocab_size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges(["a b"])  # a reader takes none for a missing list
    writer.add_eos_token_id(tokens.index("<end>"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in network.state_dict().items():
        rows = tensor.float()
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp's order of rotary pairs
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            rows = rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
        is_whole = rows.ndim > 1 and rows.shape[1] % 32 == 0  # Q8_0 has blocks of 32
        kind = gguf.GGMLQuantizationType.Q8_0 if is_whole else None
        data = rows.numpy() if kind is None else gguf.quants.quantize(rows.numpy(), kind)
        stem, end = name.rsplit(".", 1)
        writer.add_tensor(
            f"{names.get_name(stem)}.{end}", np.ascontiguousarray(data), raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_dequantised(tmp_path, caplog, monkeypatch):
    network = make_network("llama").eval()
    file = tmp_path / "tiny.gguf"
    write_gguf(file, network)
    with caplog.at_level(logging.INFO, "treeshare.llm_backend"):
        model = load_model(str(file), chat="flat")
    assert "the weights of tiny.gguf are dequantised to torch.float32" in caplog.text
    TreeEngine(model, kv_tokens=64).close()
    ids = torch.tensor([[(7 * i) % 250 for i in range(20)]])
    with torch.inference_mode():
        expected = network(ids).logits[0]
    error = (own_logits(model) - expected).norm() / expected.norm()
    assert 0 < error < 0.1  # of 8 bits
    assert model.tokenizer.decode(model.tokenizer.encode("a cab")) == "a cab"
    monkeypatch.chdir(tmp_path)
    assert load_model("tiny.gguf").network.num_parameters == model.network.num_parameters
    message = refusal(tmp_path)
    assert "no config.json; name its GGUF file, as .../tiny.gguf" in message


def test_a_gguf_file_that_is_broken(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    assert "broken.gguf is no GGUF file" in refusal(tmp_path / "broken.gguf")


# ---- adapters


def test_an_adapter_without_peft(tmp_path, monkeypatch):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "peft" else found(name, *a)
    )
    assert "an adapter (LoRA) needs the package peft: pip install peft" in refusal(tmp_path)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, for what peft reads
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_is_merged(fused, dtype, tmp_path):
    peft = pytest.importorskip("peft")
    base = make_network("llama").eval()
    name = save(tmp_path / "base", base)
    ids = torch.tensor([[(7 * i) % 250 for i in range(20)]])
    with torch.inference_mode():
        plain = base(ids).logits[0]
    targets = ["q_proj", "v_proj", "up_proj"]
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=targets))
    for key, weight in adapted.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(weight, std=0.02)
    adapted.peft_config["default"].base_model_name_or_path = name
    adapted.save_pretrained(tmp_path / "adapter")
    with torch.inference_mode():
        expected = adapted.eval()(ids).logits[0]
    model = load_model(str(tmp_path / "adapter"), dtype=dtype, fused=fused)
    TreeEngine(model, kv_tokens=64).close()
    ours = own_logits(model).float()
    gap = (plain - expected).norm()
    assert (ours - expected).norm() < (1e-4 if dtype == "float32" else 0.3) * gap


# ---- quantised weights

MLX = {"group_size": 32, "bits": 4}


@pytest.mark.parametrize(
    ("method", "package"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, "gptqmodel"),
        ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}, "gptqmodel"),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, "torchao"),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, "compressed-tensors"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["quant_method"],
)
def test_weights_whose_quantiser_is_not_installed(method, package, tmp_path):
    if importlib.util.find_spec(package.replace("-", "_")):
        pytest.skip(f"{package} is installed")
    save(tmp_path)
    change_config(tmp_path, quantization_config=method)
    message = refusal(tmp_path)
    assert method["quant_method"] in message and f"pip install -U {package}" in message


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"quantization": MLX}, "quantised by MLX"),
        ({"quantization": MLX, "quantization_config": MLX}, "quantised by MLX"),
        ({"quantization_config": {"quant_method": "exl3"}}, "quantised by 'exl3', unknown"),
        ({"model_type": "brandnew"}, "has no model_type 'brandnew'; a newer version may have it"),
    ],
    ids=["MLX", "newer MLX", "EXL3", "model_type"],
)
def test_what_transformers_does_not_read(fields, cause, tmp_path):
    save(tmp_path)
    change_config(tmp_path, **fields)
    assert cause in refusal(tmp_path)


def test_weights_in_8_bit_floats_by_blocks(tmp_path):
    network = make_network("llama").eval()
    name = save(tmp_path, network)
    weights = load_file(tmp_path / "model.safetensors")
    truth = dict(weights)
    for key in [key for key in weights if key.endswith("proj.weight")]:
        rows, columns = weights[key].shape
        blocks = weights[key].reshape(rows // 16, 16, columns // 16, 16)
        scale = blocks.abs().amax(dim=(1, 3)) / 448
        stored = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        truth[key] = (stored.float() * scale[:, None, :, None]).reshape(rows, columns)
        weights |= {key: stored.reshape(rows, columns), f"{key}_scale_inv": scale}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    method = {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic"}
    change_config(tmp_path, quantization_config=method)
    network.load_state_dict(truth)
    model = load_model(name)
    model.network.check(TorchAttention())
    ids = torch.tensor([[(7 * i) % 250 for i in range(20)]])
    with torch.inference_mode():
        expected = network(ids).logits[0]
    assert torch.allclose(own_logits(model), expected, rtol=1e-4, atol=1e-4)


# ---- what is missing or broken


def test_a_directory_without_a_tokenizer(tmp_path):
    make_network("llama").save_pretrained(tmp_path)
    assert "there is no tokenizer that transformers can read" in refusal(tmp_path)


def test_an_empty_directory(tmp_path):
    assert "the directory has no config.json" in refusal(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    make_network("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    byte_tokenizer().save_pretrained(tmp_path)
    second = sorted(tmp_path.glob("*.safetensors"))[1]
    second.write_bytes(second.read_bytes()[:2000])
    assert f"{second.name} is broken" in refusal(tmp_path)


def test_an_encoder_decoder(tmp_path):
    config = transformers.T5Config(
        vocab_size=260, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4
    )
    save(tmp_path, transformers.T5ForConditionalGeneration(config))
    assert "T5ForConditionalGeneration is an encoder-decoder" in refusal(tmp_path)


def test_a_network_that_is_no_language_model(tmp_path):
    config = transformers.ViTConfig(**VISION)
    save(tmp_path, transformers.ViTModel(config))
    assert "ViTModel is no causal language model" in refusal(tmp_path)


# ---- engine=hf runs what tree attention refuses


def test_a_network_with_states_runs_on_generate(tmp_path):
    from treeshare.llm_backend.api import Generate, Sampling

    config = transformers.Qwen3NextConfig(
        **SIZES | {"num_hidden_layers": 2}, head_dim=16, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=16, shared_expert_intermediate_size=16, linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip
    name = save(tmp_path, network_of(config))
    with pytest.raises(ValueError, match=r"1 of its 2 layers keep states .* engine=hf runs it"):
        TreeEngine(load_model(name))
    model = load_model(name)
    greedy = Sampling(max_tokens=4, temperature=0.0)
    (reply,) = HuggingFaceEngine(model).execute({0: Generate("abc", 1, greedy)}).values()
    prompt = model.tokenizer.encode("abc")
    assert reply.completions[0].num_tokens == len(Dense(model).greedy(prompt, 4))
