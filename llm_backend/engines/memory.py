"""The limits of a tree engine that suit its device, where they are `auto`.

On a GPU the KV pool takes a share of the memory that is free once the weights are there. What the
largest forwards need is set aside first; it is computed from shapes. The share leaves room for what
cannot be computed, such as the workspaces of cuBLAS and gaps between blocks of memory.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from treeshare.llm_backend.api import whole_number
from treeshare.llm_backend.model.attention import AttentionBackend
from treeshare.llm_backend.model.device import AUTO, free_memory, gib
from treeshare.llm_backend.model.network import Network
from treeshare.llm_backend.runtime.eager import MOST_SCORED_ROWS

CPU_KV_TOKENS = 16384
"""Of a pool on a CPU: enough for the twenty sequences or so from which on a larger batch takes a
CPU longer in proportion."""
CPU_SHARE = 0.25  # of the free memory that this pool takes at most: others need the memory too
CPU_SIZES = (256, 1024)
"""`max_num_seqs` and `max_num_batched_tokens` on a CPU."""
GPU_SIZES = ((1024, 8192), (512, 4096), (256, 2048), (128, 1024), (64, 512))
"""The same on a GPU: the first pair whose forwards need at most `_FORWARDS` of the memory that is
used, or the last pair."""
_FORWARDS = 0.4
_ROUNDED_TO = 1000  # KV tokens, so that the number is easy to read and to write

# Bytes for each row and token of the vocabulary: `top_p` and `top_k` sort scores in fp32, with
# int64 indices and copies; a log-probability takes logits in fp32 and two copies.
_FILTERED, _SCORED = 36, 12
# A graph's plan has int32 columns for four times the slots of the pool: three, and a table.
_PLAN_BYTES = 52
_GRAPHS = 4  # of the same number of tokens: with all, half, a quarter or an eighth as many rows


class Limits(NamedTuple):
    """Limits of a tree engine; see `TreeEngine`."""

    kv_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True, slots=True)
class Asked:
    """The limits that a user asks for; `auto` leaves one to `fit`.

    Raises:
        ValueError: one is neither `auto` nor a whole number of at least 1, or `memory` is no share.
    """

    kv_tokens: int | str = AUTO
    max_num_seqs: int | str = AUTO
    max_num_batched_tokens: int | str = AUTO
    memory: float = 0.9  # the share of a GPU's free memory that is used

    def __post_init__(self) -> None:
        for name in Limits._fields:
            if getattr(self, name) != AUTO:
                whole_number(f"engine.{name}", getattr(self, name), otherwise=", or auto")
        is_number = isinstance(self.memory, int | float) and not isinstance(self.memory, bool)
        if not (is_number and 0 < self.memory <= 1):
            raise ValueError(f"engine.memory={self.memory!r} must be above 0 and at most 1")

    def sizes(self, suitable: tuple[int, int]) -> tuple[int, int]:
        """Return `max_num_seqs` and `max_num_batched_tokens`, suitable ones where not asked for."""
        asked = self.max_num_seqs, self.max_num_batched_tokens
        first, second = (
            int(suitable[i] if value == AUTO else value) for i, value in enumerate(asked)
        )
        return first, second


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a network takes of its device's memory, in bytes where nothing else is said.

    Args:
        kv: of a token's keys and values in all layers.
        layer_kv: the same in the widest layer.
        activations: of a token in the widest layer.
        attention: of a token's output of attention in one layer.
        itemsize: of a number.
        heads: query heads.
        shapes: different shapes of attention among the layers.
        vocabulary: token ids.
        context: tokens that a text may have.
        has_graphs: whether forwards become CUDA graphs.
    """

    kv: int
    layer_kv: int
    activations: int
    attention: int
    itemsize: int
    heads: int
    shapes: int
    vocabulary: int
    context: int
    has_graphs: bool

    @classmethod
    def of(cls, network: Network, attention: AttentionBackend) -> Footprint:
        """Measure a network that has been checked on an attention."""
        config, size = network.hf.config.get_text_config(), network.dtype.itemsize
        widths = [heads * (key + value) for heads, key, value in network.layers]
        heads = int(getattr(config, "num_attention_heads", 0) or network.layers[0][0])
        return cls(
            kv=size * sum(widths),
            layer_kv=size * max(widths),
            activations=2 * size * _widest_layer(network.hf, config),
            attention=size * heads * max(value for _, _, value in network.layers),
            itemsize=size,
            heads=heads,
            shapes=len(set(network.layers)),
            vocabulary=network.vocabulary_size,
            context=network.context_length,
            has_graphs=attention.capabilities.captures,
        )

    def forwards(self, num_seqs: int, num_tokens: int) -> int:
        """Return what the largest forwards need, with plans for any forest of that many tokens."""
        logits = self.itemsize * num_tokens + _FILTERED * num_seqs
        needed = num_tokens * self.activations + self.vocabulary * logits
        scored = self.vocabulary * _SCORED * min(num_tokens, MOST_SCORED_ROWS)
        if not self.has_graphs:  # attention in PyTorch holds the scores of a long prompt
            return needed + scored + 8 * self.heads * num_tokens * min(self.context, 8192)
        # Graphs share memory of their own. Each has its plan, with partial results for its tokens;
        # the tokens of all graphs with as many rows are twice those of the largest one.
        plans = _GRAPHS * self.shapes * self.attention * (4 * num_tokens + 8192)
        return 2 * needed + scored + plans

    def slot(self, num_tokens: int) -> int:
        """Return what a token of the pool takes, in the pool and in the plans of all graphs."""
        if not self.has_graphs:
            return self.kv + 6 * self.layer_kv  # gathered, padded and in fp32
        sizes = max(1, num_tokens // 16).bit_length()
        return self.kv + _GRAPHS * sizes * self.shapes * _PLAN_BYTES


def fit(network: Network, attention: AttentionBackend, asked: Asked) -> Limits:
    """Choose the limits that are `auto`, and check that the KV pool fits.

    Args:
        network: it has been checked on the attention.
        attention: on which it runs.
        asked: the limits that are asked for.

    Raises:
        ValueError: there is too little memory.
    """
    footprint, device = Footprint.of(network, attention), network.device
    free = free_memory(device)
    if device.type == "cuda" and free is not None:
        return fit_gpu(asked, footprint, free, str(device))
    return fit_cpu(asked, footprint, free, str(device))


def fit_cpu(asked: Asked, footprint: Footprint, free: int | None, device: str = "cpu") -> Limits:
    """Choose limits for a CPU; see `fit`.

    Args:
        asked: the limits that are asked for.
        footprint: of the network.
        free: bytes of memory; None if that is not known.
        device: for the message.
    """
    free = sys.maxsize if free is None else free
    chosen = min(CPU_KV_TOKENS, max(1, int(CPU_SHARE * free) // footprint.kv))
    kv_tokens = _pool(asked, chosen, free // footprint.kv, footprint, free, device)
    return Limits(kv_tokens, *asked.sizes(CPU_SIZES))


def fit_gpu(asked: Asked, footprint: Footprint, free: int, device: str = "cuda") -> Limits:
    """Choose limits for a GPU with `free` bytes of memory; see `fit`."""
    used = int(asked.memory * free)
    for suitable in GPU_SIZES if footprint.has_graphs else (CPU_SIZES, *GPU_SIZES[3:]):
        sizes = asked.sizes(suitable)
        forwards = footprint.forwards(*sizes)
        if forwards <= _FORWARDS * used:
            break
    room = max(0, used - forwards)
    longest = GPU_SIZES[0][0] * footprint.context  # of the most texts, if none shared anything
    chosen = min(room // footprint.slot(sizes[1]), longest) // _ROUNDED_TO * _ROUNDED_TO
    if asked.kv_tokens == AUTO and not chosen:
        raise ValueError(
            f"no KV pool fits: {device} has {gib(free)} free with the weights loaded, of which "
            f"engine.memory={asked.memory} is used, and forwards of {sizes[1]:,} tokens and "
            f"{sizes[0]:,} sequences need {gib(forwards)}; take a smaller model or 16 bits, or "
            "lower engine.max_num_batched_tokens or max_num_seqs"
        )
    return Limits(_pool(asked, chosen, chosen, footprint, free, device), *sizes)


def _pool(
    asked: Asked, chosen: int, most: int, footprint: Footprint, free: int, device: str
) -> int:
    """Return the size of the pool: `chosen` for `auto`, else the one asked for, if it fits."""
    if asked.kv_tokens == AUTO:
        return chosen
    needed = int(asked.kv_tokens) * footprint.kv
    if needed > free:
        raise ValueError(
            f"engine.kv_tokens={asked.kv_tokens:,} needs {gib(needed)} of memory, and {device} has "
            f"{gib(free)} free: at most {most:,} fit"
        )
    return int(asked.kv_tokens)


def _widest_layer(network: Any, config: Any) -> int:
    """Return how many numbers the matrices of the widest layer give or take for a token."""
    active = getattr(config, "num_experts_per_tok", None)
    num_experts = active if isinstance(active, int) else 8
    widths: Counter[str] = Counter({"": 16 * getattr(config, "hidden_size", 1024)})
    for name, weight in network.named_parameters():
        layer = re.search(r"\.\d+\.", name)
        is_first_expert = not re.search(r"experts\.[1-9]", name)
        if layer and is_first_expert and weight.ndim > 1 and config.vocab_size not in weight.shape:
            times = num_experts if "experts" in name else 1
            widths[layer[0]] += times * max(weight.shape[-2:])
    return max(widths.values())
