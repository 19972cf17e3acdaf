"""Make a small untrained Llama: its tokenizer, and its network with random weights.

The tokenizer is made for arithmetic. A constant text with which many prompts begin can be a single
token, which makes these prompts cheap to train on and to decode, without changing their text. Whole
numbers are split into groups of two digits from the right, each of which is a token. All other text
is split into bytes, so any text can be encoded and is decoded unchanged.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from treeshare.llm_backend.model.loading import quiet

END = "<end>"
"""The token that ends a text."""

_PIECES = Regex(
    r" ?[0-9]{1,2}(?=(?:[0-9]{2})*(?![0-9]))"  # 1|23|45
    r"| ?[A-Za-z]+:?"
    r"| ?[^\sA-Za-z0-9]"
    r"|\s"
)
_SIGNS = "+-*/=()."


@dataclass(slots=True)
class Size:
    """The size of a network.

    The feed-forward layers are gated. The input and output embeddings are shared.

    Raises:
        ValueError: `hidden` is not a multiple of `heads`, or a field is below 1.
    """

    layers: int
    hidden: int  # width of the residual stream
    heads: int
    feed_forward: int  # width of the feed-forward layers
    context: int  # tokens

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name}={getattr(self, name)} must be at least 1")
        if self.hidden % self.heads:
            raise ValueError(f"model.hidden={self.hidden} is not a multiple of heads={self.heads}")


def make_tokenizer(texts: Sequence[str], words: Sequence[str]) -> Any:
    """Make a Hugging Face tokenizer.

    Args:
        texts: constant texts; each becomes one token wherever it occurs.
        words: words of letters, which may end in a colon; each becomes two tokens, with and
            without a space before it.
    """
    numbers = [*map(str, range(100)), *(f"0{digit}" for digit in range(10))]
    whole = [space + word for word in (*numbers, *_SIGNS, *words) for space in ("", " ")]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = {END: 0}
    for text in (*sorted(byte_level.alphabet()), *(_as_bytes(text) for text in whole)):
        vocabulary.setdefault(text, len(vocabulary))
    # Without merges, a piece is one token if it is in the vocabulary, and else its bytes.
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    split = pre_tokenizers.Split(_PIECES, behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(text, normalized=False, special=False) for text in texts])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # an END in a text is plain text
    )


def make_network(tokenizer: Any, size: Size) -> Any:
    """Make a `LlamaForCausalLM` in float32 on the CPU.

    The weights are drawn from PyTorch's global generator.

    Args:
        tokenizer: from `make_tokenizer`.
        size: the network's size.
    """
    config = transformers.LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=size.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def save(network: Any, tokenizer: Any, directory: Path) -> None:
    """Write a network and its tokenizer in Hugging Face's format, the weights in bfloat16.

    A former directory is replaced only after all files are written.
    """
    scratch, old = directory.with_suffix(".new"), directory.with_suffix(".old")
    with quiet():
        copy.deepcopy(network).to(torch.bfloat16).save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
    if directory.exists():
        directory.rename(old)
    scratch.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def _as_bytes(text: str) -> str:
    """An ASCII text as the tokenizer's vocabulary writes bytes: only the space differs."""
    return text.replace(" ", "Ġ")
