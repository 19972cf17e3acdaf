"""Limits that are `auto`: for devices that are described in numbers, and on real ones."""

from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from attention_check import DEVICE
from tiny_models import byte_tokenizer, make_network

from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.forest import Forest
from treeshare.llm_backend.api import Generate, GenerateReply, Sampling, Score, ScoreReply
from treeshare.llm_backend.engines.draft_model import ModelDrafter
from treeshare.llm_backend.engines.memory import (
    CPU_KV_TOKENS,
    GPU_SIZES,
    Asked,
    Footprint,
    Limits,
    fit_cpu,
    fit_gpu,
)
from treeshare.llm_backend.engines.serve import serve
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.attention import make_backend
from treeshare.llm_backend.model.device import free_memory
from treeshare.llm_backend.model.model import Model, load_model
from treeshare.llm_backend.model.network import Network
from treeshare.llm_backend.model.random_models import SHAPES, character_tokenizer, random_network

GIB = 2**30
CUDA_CONTEXT = int(0.6 * GIB)  # what PyTorch itself takes of a GPU
H200, H100, CONSUMER = 140 * GIB, 79 * GIB, 24 * GIB
LLAMA_8B = SHAPES["llama3-8b"]
LLAMA_70B = {
    **LLAMA_8B,
    **{"hidden_size": 8192, "intermediate_size": 28_672},
    **{"num_hidden_layers": 80, "num_attention_heads": 64},
}
MIXTURE = {
    **{"model_type": "qwen3_moe", "vocab_size": 151_936, "hidden_size": 2048, "head_dim": 128},
    **{"num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 4},
    **{"moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8},
}
TWO_LAYERS = SHAPES["qwen3-4b"] | {"num_hidden_layers": 2}


def shaped(shape, captures=True, dtype=torch.bfloat16):
    """The footprint of a shape, and the bytes of its weights; no weights are made."""
    config = transformers.AutoConfig.for_model(**{"max_position_embeddings": 8192} | dict(shape))
    with torch.device("meta"):
        hf = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    network = Network(hf, SimpleNamespace(eos_token_id=0))
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    network.layers = [(config.num_key_value_heads, width, width)] * config.num_hidden_layers
    attention = SimpleNamespace(capabilities=SimpleNamespace(captures=captures))
    return Footprint.of(network, attention), sum(p.nbytes for p in hf.parameters())


@pytest.fixture(scope="module")
def llama_8b():
    return shaped(LLAMA_8B)


def free_of(total, weights):
    return total - CUDA_CONTEXT - weights


@pytest.mark.parametrize(
    ("total", "limits"),
    [
        (H200, Limits(755_000, 1024, 8192)),
        (H100, Limits(312_000, 1024, 8192)),
        (CONSUMER, Limits(38_000, 128, 1024)),
    ],
    ids=["H200", "H100", "24 GiB"],
)
def test_a_gpu_gets_what_its_memory_holds(total, limits, llama_8b):
    footprint, weights = llama_8b
    free = free_of(total, weights)
    assert fit_gpu(Asked(), footprint, free) == limits
    forwards = footprint.forwards(*limits[1:])
    pool = limits.kv_tokens * footprint.kv
    assert footprint.kv == 32 * 2 * 8 * 128 * 2
    assert 0.85 * 0.9 * free < pool + forwards <= 0.9 * free


def test_a_large_model_gets_small_forwards_or_none_at_all():
    footprint, weights = shaped(LLAMA_70B)
    assert fit_gpu(Asked(), footprint, free_of(H200, weights)) == Limits(15_000, 64, 512)
    assert weights > H100
    with pytest.raises(ValueError) as raised:
        fit_gpu(Asked(), footprint, 2 * GIB)
    assert str(raised.value) == (
        "no KV pool fits: cuda has 2.0 GiB free with the weights loaded, of which "
        "engine.memory=0.9 is used, and forwards of 512 tokens and 64 sequences need 2.3 GiB; take "
        "a smaller model or 16 bits, or lower engine.max_num_batched_tokens or max_num_seqs"
    )


def test_what_is_asked_for_is_not_changed(llama_8b):
    footprint, weights = llama_8b
    free = free_of(CONSUMER, weights)
    asked = Asked(kv_tokens=4096, max_num_seqs=1000, max_num_batched_tokens=4000)
    assert fit_gpu(asked, footprint, free) == Limits(4096, 1000, 4000)
    # Fewer sequences leave room for more tokens in a forward; a smaller share leaves less for all.
    assert fit_gpu(Asked(max_num_seqs=8), footprint, free) == Limits(37_000, 8, 2048)
    assert fit_gpu(Asked(memory=0.6), footprint, free) == Limits(27_000, 64, 512)


def test_a_pool_that_does_not_fit_is_one_line(llama_8b):
    footprint, weights = llama_8b
    with pytest.raises(ValueError) as raised:
        fit_gpu(Asked(kv_tokens=100_000), footprint, free_of(CONSUMER, weights))
    assert str(raised.value) == (
        "engine.kv_tokens=100,000 needs 12.2 GiB of memory, and cuda has 8.4 GiB free: at most "
        "38,000 fit"
    )
    with pytest.raises(ValueError, match=r"needs 12\.2 GiB of memory, and cpu has 1\.0 GiB free"):
        fit_cpu(Asked(kv_tokens=100_000), footprint, GIB)


def test_a_pool_is_not_larger_than_all_texts(llama_8b):
    footprint = replace(llama_8b[0], context=100)
    assert fit_gpu(Asked(), footprint, 100 * GIB).kv_tokens == GPU_SIZES[0][0] * 100 // 1000 * 1000


def test_a_cpu_gets_as_much_as_ever_unless_memory_is_short():
    footprint, _ = shaped(LLAMA_8B, captures=False, dtype=torch.float32)
    assert fit_cpu(Asked(), footprint, 64 * GIB) == Limits(CPU_KV_TOKENS, 256, 1024)
    assert fit_cpu(Asked(), footprint, None) == Limits(CPU_KV_TOKENS, 256, 1024)
    assert fit_cpu(Asked(), footprint, 8 * GIB) == Limits(8192, 256, 1024)  # 2 GiB
    assert fit_cpu(Asked(kv_tokens=20_000), footprint, 8 * GIB).kv_tokens == 20_000


def test_attention_in_pytorch_gets_the_sizes_of_a_cpu():
    footprint, weights = shaped(LLAMA_8B, captures=False)
    chosen = fit_gpu(Asked(), footprint, free_of(H100, weights))
    assert chosen[1:] == (256, 1024)
    assert footprint.slot(1024) > shaped(LLAMA_8B)[0].kv


def test_the_active_experts_count():
    mixture, dense = (
        shaped(MIXTURE | {"num_experts_per_tok": count})[0].activations for count in (8, 1)
    )
    assert dense < mixture < 8 * dense


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kv_tokens": "all"}, "engine.kv_tokens='all' must be a whole number, or auto"),
        ({"kv_tokens": 0}, "engine.kv_tokens=0 must be at least 1, or auto"),
        ({"max_num_seqs": 1.5}, "engine.max_num_seqs=1.5 must be a whole number, or auto"),
        ({"max_num_batched_tokens": None}, "engine.max_num_batched_tokens=None must be a whole"),
        ({"memory": 0}, "engine.memory=0 must be above 0 and at most 1"),
        ({"memory": 1.1}, "engine.memory=1.1 must be above 0 and at most 1"),
        ({"memory": "90%"}, "engine.memory='90%' must be above 0 and at most 1"),
        ({"memory": True}, "engine.memory=True must be above 0 and at most 1"),
    ],
)
def test_bad_values_are_one_line(values, message):
    with pytest.raises(ValueError) as raised:
        Asked(**values)
    assert str(raised.value).startswith(message)


def test_an_engine_states_what_it_computes_with(llama):
    auto = dict.fromkeys(("kv_tokens", "max_num_seqs", "max_num_batched_tokens"), "auto")
    with closing(TreeEngine(llama, **auto)) as engine:
        assert engine.resources == {
            **{"device": "cpu", "dtype": "float32", "attention": "torch", "fused": False},
            **{"kv_tokens": 16384, "max_num_seqs": 256, "max_num_batched_tokens": 1024},
        }
        assert engine.pool.num_bytes == 16384 * 3 * 2 * (8 + 8) * 4
    with closing(ModelDrafter(llama, 4, **auto)) as drafter:
        assert drafter.engine.limits == Limits(16384, 256, 1024)


@pytest.mark.parametrize("part", ["make_attention", "new_pool"])
def test_a_pool_that_cannot_be_allocated_is_one_line(part, llama, monkeypatch):
    """Another process may take the memory in between."""

    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Model if part == "make_attention" else Network, part, fails)
    with pytest.raises(ValueError, match=r"too little free memory: lower engine\.kv_tokens=99"):
        TreeEngine(llama, kv_tokens=99)


def test_plans_fit_what_is_set_aside_for_them():
    """Four plans as an engine makes them, for each size of a forward."""
    footprint = replace(shaped(TWO_LAYERS)[0], attention=8 * 64 * 2, vocabulary=0, activations=0)
    backend, spec = make_backend("deft", DEVICE), AttentionSpec(8, 2, 64, dtype=torch.bfloat16)
    num_slots, sizes = 20_000, [16, 32, 64, 128, 256]
    table = torch.arange(num_slots, dtype=torch.int32, device=DEVICE)
    taken = 0
    for num_tokens in sizes:
        plans = backend.captured_plans(table, num_tokens, is_ample=True)
        plans.enlarge(Forest.packed(np.array([-1]), np.array([16]), np.array([1])))
        buffers = plans.of(spec).buffers
        parts = (buffers.packed, buffers.slot, buffers.bound, buffers.entry_position)
        taken += sum(part.nbytes for part in (*parts, buffers.partial, buffers.lse))
        taken += num_tokens * footprint.attention  # the output
    pool = num_slots * (footprint.slot(256) - footprint.kv)
    assert 4 * taken + table.nbytes <= pool + footprint.forwards(0, 256) < 12 * taken


@pytest.fixture
def on_a_gpu():
    """A model of two layers with a large vocabulary on the GPU, everything as `auto` chooses."""
    network = random_network(TWO_LAYERS, torch.bfloat16, "cuda")
    tokenizer = character_tokenizer(TWO_LAYERS["vocab_size"])
    return Model.of(network, tokenizer, "auto", "auto")


@pytest.mark.gpu
def test_a_gpu_runs_our_kernels_in_sixteen_bits(tmp_path):
    make_network("llama").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    model = load_model(str(tmp_path), *["auto"] * 4)
    auto = dict.fromkeys(Limits._fields, "auto")
    with closing(TreeEngine(model, **auto, memory=0.05)) as engine:
        chosen = engine.resources
        assert chosen["device"] == "cuda" and chosen["dtype"] in ("bfloat16", "float16")
        if torch.cuda.get_device_capability() >= (8, 0):
            assert (chosen["attention"], chosen["fused"]) == ("deft", True)
        assert chosen["max_num_batched_tokens"] == GPU_SIZES[0][1]
        (reply,) = serve(engine, [Generate(("a prompt",), 3, Sampling(9))], GenerateReply)
        assert all(completion.num_tokens for completion in reply.completions)


@pytest.mark.gpu
def test_the_largest_forwards_stay_within_what_is_set_aside(on_a_gpu):
    """Prompts, filtered draws and scores in full forwards, often enough to become graphs."""
    sizes, num_slots = GPU_SIZES[2], 20_000
    filtered = Sampling(max_tokens=6, temperature=1.0, top_p=0.9, ignore_eos=True)
    prompts = [chr(100 + i) * (i % 20 + 1) for i in range(2 * sizes[0])]
    ends = tuple(chr(1000 + i) * 8 for i in range(sizes[1] // 8 - 1))
    with closing(TreeEngine(on_a_gpu, num_slots, *sizes)) as engine:
        footprint = Footprint.of(on_a_gpu.network, engine.attention)
        allowed = footprint.forwards(*sizes)
        allowed += num_slots * (footprint.slot(sizes[1]) - footprint.kv)
        free_memory("cuda")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_reserved()
        for round_ in range(4):
            serve(engine, [Score(("a", chr(60 + round_)), ends)], ScoreReply)
            requests = [
                Generate((p, chr(60 + round_)), 1, filtered, i) for i, p in enumerate(prompts)
            ]
            serve(engine, requests, GenerateReply)
            engine.reset_cache()
        used = torch.cuda.max_memory_reserved() - before
    print(f"set aside {allowed / GIB:.2f} GiB, used {used / GIB:.2f} GiB")
    assert used <= allowed


@pytest.mark.gpu
def test_a_closed_engine_gives_its_memory_back(on_a_gpu):
    before = free_memory("cuda")
    for _ in range(2):
        with closing(TreeEngine(on_a_gpu, "auto", 64, 512, memory=0.2)) as engine:
            serve(engine, [Generate(("a prompt",), 3, Sampling(9))], GenerateReply)
            assert free_memory("cuda") < 0.95 * before
    assert free_memory("cuda") > 0.95 * before


@pytest.mark.gpu
def test_a_pool_that_does_not_fit_the_gpu_is_one_line(on_a_gpu):
    with pytest.raises(ValueError, match=r"engine\.kv_tokens=1,000,000,000 needs .* at most"):
        TreeEngine(on_a_gpu, 10**9)
