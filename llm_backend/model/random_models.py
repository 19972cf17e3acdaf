"""Models to measure speed on: known shapes with random weights, and a character tokenizer.

Random weights run as fast as trained ones; the text is meaningless. Every token has a character of
its own, so a text that was drawn becomes the same tokens again and its KV is found in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tokenizers
import torch
import transformers

from .device import check_device
from .model import Model, load_model
from .network import Network

_SURROGATES = range(0xD800, 0xE000)  # code points that are no characters
_DAMPING = 1 / 8  # factor of what a layer adds, so that the logits of random layers stay small

_LLAMA: dict[str, Any] = {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 500_000.0}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "llama3-8b": _LLAMA
    | {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "qwen3-4b": {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
        "rope_theta": 1_000_000.0,
    },
    "tiny": _LLAMA
    | {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
"""Shapes by name: the fields that differ from the defaults of the architecture's configuration."""
CONTEXT = 40_960
"""Tokens that a text may have, in every shape; Llama 3's own context is 8,192."""


def load_network(name: str, dtype: str, device: str, fused: bool = False) -> Model:
    """Load a shape of `SHAPES` with random weights, or what `load_model` takes by that name.

    Args:
        name: a key of `SHAPES`, or a name of `load_model`.
        dtype: `float32`, `bfloat16` or `float16`.
        device: a device of PyTorch, such as `cpu` or `cuda`.
        fused: run the layers with merged and compiled parts (`fused_layers.FusedDecoder`).

    Raises:
        ValueError: as of `load_model`.
    """
    if name not in SHAPES:
        return load_model(name, dtype, device, fused=fused)
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"model.dtype={dtype!r} is not one of float32, bfloat16, float16")
    check_device("model.device", device)
    network = random_network(SHAPES[name], getattr(torch, dtype), device)
    return Model.of(network, character_tokenizer(SHAPES[name]["vocab_size"]), fused=fused)


def weight_bytes(network: Network) -> int:
    """Return the size of the parameters that a decode step reads.

    These are all but an embedding table of which it takes single rows.
    """
    table = network.hf.get_input_embeddings().weight
    is_read = network.hf.get_output_embeddings().weight is table
    every: int = sum(parameter.nbytes for parameter in network.hf.parameters())
    return every - (0 if is_read else table.nbytes)


def random_network(shape: Mapping[str, Any], dtype: torch.dtype, device: str) -> Any:
    """Make a network of a shape with random weights; it has no end token.

    Args:
        shape: fields of its configuration, as in `SHAPES`.
        dtype: of the weights.
        device: where they are made.
    """
    none = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config = transformers.AutoConfig.for_model(
        **{"max_position_embeddings": CONTEXT} | none | dict(shape)
    )
    where = torch.device(device)
    forked = [where.index or 0] if where.type == "cuda" else []
    with where, torch.random.fork_rng(forked):
        torch.manual_seed(0)
        network = transformers.AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="eager"
        )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.mul_(_DAMPING)
    return network.eval()


def character_tokenizer(size: int) -> Any:
    """Make a tokenizer whose token i is the i-th character of Unicode.

    `encode` and `decode` undo each other exactly, and ASCII is one token a byte. Characters beyond
    the first `size` are dropped.
    """
    points = (point for point in range(size + len(_SURROGATES)) if point not in _SURROGATES)
    vocabulary = {chr(point): token for token, point in zip(range(size), points, strict=False)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges=[]))
    backend.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False
    )
