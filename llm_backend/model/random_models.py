"""Networks to measure speed on: the shapes of known models with random weights, and a tokenizer of
one token a character.

Random weights say nothing, in as much time as trained ones. Any token has a character of its own,
so a text that was drawn becomes the same tokens again and its KV is found in the cache. Knows no
attention of ours and no engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers
import torch
import transformers

from .loading import check_device, load_pretrained
from .model import Model

_SURROGATES = range(0xD800, 0xE000)  # code points that are no characters
_DAMPING = 1 / 8  # of what a layer adds, so that the logits of random layers stay tame

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
"""By name: what differs from the defaults of the architecture's configuration."""
CONTEXT = 40_960  # tokens, of every shape; Llama 3's own is 8,192


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """What a `Model` is made of."""

    network: Any  # a Hugging Face causal language model
    tokenizer: Any
    is_random: bool  # the weights

    def model(self, attention: str, fused: bool = False) -> Model:
        """On one of our attentions. The network's weights are shared, and its attention is ours.

        Raises:
            ValueError: as of `Model`.
        """
        self.network.set_attn_implementation("eager")
        return Model(self.network, self.tokenizer, attention, fused)

    def weight_bytes(self) -> int:
        """Parameters that a decode step reads: all but a table of which it takes single rows."""
        table = self.network.get_input_embeddings().weight
        is_read = self.network.get_output_embeddings().weight is table
        every: int = sum(parameter.nbytes for parameter in self.network.parameters())
        return every - (0 if is_read else table.nbytes)


def load_network(name: str, dtype: str, device: str) -> LoadedNetwork:
    """A shape of `SHAPES` with random weights, or what `load_model` takes by that name.

    Raises:
        ValueError: as of `load_model`.
    """
    if name not in SHAPES:
        network, tokenizer = load_pretrained(
            "model", "AutoModelForCausalLM", name, dtype, device, attn_implementation="eager"
        )
        return LoadedNetwork(network.eval(), tokenizer, is_random=False)
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"model.dtype={dtype!r} is not one of float32, bfloat16, float16")
    check_device("model.device", device)
    network = random_network(SHAPES[name], getattr(torch, dtype), device)
    return LoadedNetwork(network, character_tokenizer(SHAPES[name]["vocab_size"]), is_random=True)


def random_network(shape: Mapping[str, Any], dtype: torch.dtype, device: str) -> Any:
    """A network of that shape, made on the device, that never ends a text by itself."""
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
    """Token i is the i-th character of Unicode: `encode` and `decode` undo each other exactly, and
    ASCII is one token a byte. Other characters than the first `size` vanish."""
    points = (point for point in range(size + len(_SURROGATES)) if point not in _SURROGATES)
    vocabulary = {chr(point): token for token, point in zip(range(size), points, strict=False)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges=[]))
    backend.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False
    )
