"""A Hugging Face decoder behind our attention and our KV pool, and its tokenizer.

A model is checked when it is loaded (`probe.Probe`): short texts through its own attention and
through ours must give the same logits, so an architecture that needs something we do not do is
refused and never silently wrong. Weights are found by pretrained.py.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers

from treeshare.kernels.planning.segments import Segment
from treeshare.llm_backend.cache.kv_pool import KVPool

from .attention import TreeBatch, hf_attention, make_backend
from .compatibility import Probe
from .fused_layers import FusedDecoder
from .loading import EMBEDDED, load_pretrained, quiet
from .rotary import chosen_context, fix_rotary
from .tokenizer import Ids, Tokenizer, TokenizerError

logger = logging.getLogger(__name__)

transformers.AttentionInterface.register("treeshare", hf_attention)


class Model:
    """Weights and tokenizer.

    Args:
        network: a Hugging Face causal language model, loaded with `attn_implementation="eager"`.
        tokenizer: its tokenizer.
        attention: one of `attention.BACKENDS`.
        fused: run the layers with merged and compiled parts (`fused.FusedDecoder`).
        context: tokens that a text may have; None is the network's `max_position_embeddings`.

    Raises:
        ValueError: no such attention backend or context, or the architecture is not supported.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        attention: str = "torch",
        fused: bool = False,
        context: int | None = None,
    ) -> None:
        self.backend = make_backend(attention, network.device)
        self._network = network.eval()
        self.device = network.device
        self.dtype = network.dtype
        self.num_parameters: int = network.num_parameters()
        config = network.config.get_text_config()
        self.context_length: int = chosen_context(network, context)
        self.vocabulary_size: int = config.vocab_size  # ids, those of no token included
        ends = getattr(network.generation_config, "eos_token_id", None)
        if ends is None:
            ends = tokenizer.eos_token_id
        self.end_tokens = frozenset([ends] if isinstance(ends, int) else ends or [])
        self._fused: FusedDecoder | None = None
        fix_rotary(network, self.context_length)
        logger.info("checking %s against its own attention", type(network).__name__)
        probe = Probe(network, self.context_length)
        self.layers = probe.layers  # (KV heads, key width, value width) of each
        with quiet():
            network.set_attn_implementation("treeshare")
        pool = self.new_pool(probe.num_tokens)
        logits, options = probe.logits(self.run, self.backend, pool)
        probe.check("on tree attention", logits, probe.own)
        if fused:
            logger.info("merging layers")
            self._fused = FusedDecoder(network, options, self.context_length)
            merged, _ = probe.logits(self.run, self.backend, pool)
            probe.check("with merged layers", merged, logits)
        self.tokenizer = Tokenizer(tokenizer, self.vocabulary_size)

    def new_pool(self, num_slots: int) -> KVPool:
        return KVPool(num_slots, self.layers, self.dtype, self.device)

    @torch.inference_mode()
    def forward(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        slots: np.ndarray,
        segments: Sequence[Segment],
        pool: KVPool,
        rows: Sequence[int],
    ) -> torch.Tensor:
        """One packed forward over a forest.

        Args:
            tokens: [N] ids in depth-first order.
            positions: [N] of each token in its own path.
            slots: [N] where each token's KV goes.
            segments: what each token sees, itself included (`kernels.segments.Segment`).
            rows: indices of the tokens whose next-token logits are wanted.

        Returns:
            Logits [len(rows), vocabulary], fp32.
        """
        where = torch.from_numpy(slots).to(self.device)
        batch = TreeBatch(self.backend, pool, where, self.backend.plan(positions, segments))
        return self.run(batch, *self._tensors(tokens, positions, rows)).float()

    # The tokenizer's part: see `Tokenizer`.

    def encode(self, text: str) -> Ids:
        return self.tokenizer.encode(text)

    def encode_all(self, texts: Sequence[str]) -> list[Ids | TokenizerError]:
        return self.tokenizer.encode_all(texts)

    def encode_continuations(self, prompt: str, texts: Sequence[str]) -> tuple[Ids, list[Ids]]:
        return self.tokenizer.encode_continuations(prompt, texts)

    @property
    def vocabulary(self) -> dict[str, int]:
        return self.tokenizer.vocabulary

    def decode(self, tokens: Sequence[int], *, is_cut: bool = False) -> str:
        return self.tokenizer.decode(tokens, is_cut=is_cut)

    def may_close(self, token: int, stop: tuple[str, ...]) -> bool:
        return self.tokenizer.may_close(token, stop)

    @torch.inference_mode()
    def run(
        self,
        batch: TreeBatch,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One forward, without a wait for the device.

        Args:
            batch: plan, pool and slots of the N tokens.
            tokens: [N] int64 ids.
            positions: [N] int64 of each token in its own path.
            rows: [R] int64, tokens whose next-token logits are wanted; None wants all.

        Returns:
            Logits [R, vocabulary], in the model's dtype.
        """
        if self._fused is not None:
            return self._fused(batch, tokens, positions, rows)
        output = self._network(
            input_ids=tokens[None],
            position_ids=positions[None],
            use_cache=False,  # the pool is the cache, and `hf_attention` writes to it
            logits_to_keep=0 if rows is None else rows,
            tree=batch,
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _tensors(self, *columns: Sequence[int]) -> list[torch.Tensor]:
        """Columns of integers on the device, in one copy."""
        joined = torch.tensor([value for column in columns for value in column], dtype=torch.int64)
        return list(torch.split(joined.to(self.device), [len(column) for column in columns]))


def load_model(
    name: str = EMBEDDED,
    dtype: str = "float32",
    device: str = "cpu",
    attention: str = "torch",
    fused: bool = False,
    num_layers: int | None = None,
    context: int | None = None,
    trust_remote_code: bool = False,
) -> Model:
    """Load a model.

    Args:
        name: `embedded`, `smollm2`, a directory in Hugging Face's format, or an id on the Hugging
            Face hub.
        dtype: `float32`, `bfloat16` or `float16`.
        device: as PyTorch names it.
        attention: one of `attention.BACKENDS`.
        fused: run the layers with merged and compiled parts (`fused.FusedDecoder`).
        num_layers: keep only the first so many; the final norm and the head follow (early exit).
            An untrained exit is a weak model, but one of the same vocabulary. None keeps all.
        context: tokens that a text may have; None is what the network states. It also chooses
            rotary factors that depend on the length (`rotary.fix_rotary`).
        trust_remote_code: run the code that the model's directory holds.

    Raises:
        ValueError: no such model, dtype, device, backend or context, or an architecture that is
            not supported, or more layers than there are.
    """
    network, tokenizer = load_pretrained(
        "model",
        "AutoModelForCausalLM",
        name,
        dtype,
        device,
        trust_remote_code,
        attn_implementation="eager",
    )
    if num_layers is not None:
        _truncate(network, num_layers)
    return Model(network, tokenizer, attention, fused, context)


def _truncate(network: Any, num_layers: int) -> None:
    """Drop the layers from `num_layers` on."""
    layers = network.get_decoder().layers
    if not 1 <= num_layers <= len(layers):
        raise ValueError(f"model.num_layers={num_layers} must be from 1 to {len(layers)}")
    del layers[num_layers:]
    config = network.config.get_text_config()
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]
