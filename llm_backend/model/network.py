"""A Hugging Face decoder on our attention: weights, and the forward over packed tokens.

A network is checked before it first runs on an attention backend (`compatibility.Probe`): short
texts through its own attention and through ours must give the same logits, so an architecture that
needs something we do not do is refused and never silently wrong.
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

from .attention import AttentionBackend, TreeBatch, hf_attention
from .compatibility import Probe
from .device import AUTO, gpu_of
from .fused_layers import FusedDecoder
from .loading import quiet
from .rotary import chosen_context, fix_rotary

logger = logging.getLogger(__name__)

_TREE = "treeshare"  # our attention in transformers' registry
OWN_ATTENTION = "eager"  # the network's own attention, with which ours is compared

transformers.AttentionInterface.register(_TREE, hf_attention)


class Network:
    """A Hugging Face decoder, and its forward on any attention backend.

    Args:
        hf: a Hugging Face causal language model, loaded with `attn_implementation="eager"`.
        tokenizer: its Hugging Face tokenizer, for the end token where the model states none.
        fused: run the layers with merged and compiled parts (`fused_layers.FusedDecoder`); `auto`
            does so on a GPU that runs our kernels, where the network's layers can be merged and
            give the same logits.
        context: tokens that a text may have; None is the network's `max_position_embeddings`.

    Attributes:
        hf: the Hugging Face model.
        context_length: tokens that a text may have.
        vocabulary_size: number of token ids, with those of no token.
        end_tokens: ids that end a text.
        layers: (KV heads, key width, value width) of each layer, after the first `check`.
        merged: the layers as fused kernels run them, after the first `check`; None if they are not
            fused.

    Raises:
        ValueError: `fused` or the context is out of its bound.
    """

    layers: list[tuple[int, int, int]]

    def __init__(
        self, hf: Any, tokenizer: Any, fused: bool | str = False, context: int | None = None
    ) -> None:
        if fused not in (True, False, AUTO):
            raise ValueError(f"model.fused={fused!r} must be auto, true or false")
        self.hf = hf.eval()
        self.device: torch.device = hf.device
        self.dtype: torch.dtype = hf.dtype
        self.num_parameters: int = hf.num_parameters()
        self.context_length: int = chosen_context(hf, context)
        self.vocabulary_size: int = hf.config.get_text_config().vocab_size
        ends = getattr(hf.generation_config, "eos_token_id", None)
        if ends is None:
            ends = tokenizer.eos_token_id
        self.end_tokens = frozenset([ends] if isinstance(ends, int) else ends or [])
        fix_rotary(hf, self.context_length)
        self._fused = fused
        self.merged: FusedDecoder | None = None
        self._implementation: str = hf.config._attn_implementation
        self._checked: set[str] = set()  # names of attention backends

    def check(self, attention: AttentionBackend) -> None:
        """Compare the logits on an attention backend with the network's own, once a backend.

        The first check also finds `layers`, and merges the layers if the network is to be fused.

        Raises:
            ValueError: the architecture is not supported.
        """
        if attention.name in self._checked:
            return
        logger.info("checking %s against its own attention", type(self.hf).__name__)
        self.use_attention(OWN_ATTENTION)
        probe = Probe(self.hf, self.context_length)
        self.layers = probe.layers
        pool = self.new_pool(probe.num_tokens)
        logits, options = probe.logits(self._run_plain, attention, pool)
        probe.check("on tree attention", logits, probe.own)
        if may_stay_unfused := self._fused == AUTO:
            gpu = gpu_of(self.device)
            self._fused = gpu is not None and gpu.runs_kernels
        if self._fused:
            try:
                if self.merged is None:
                    logger.info("merging layers")
                    self.merged = FusedDecoder(self.hf, options, self.context_length)
                merged, _ = probe.logits(self.merged, attention, pool)
                probe.check("with merged layers", merged, logits, "set model.fused=false")
            except ValueError as error:
                if not may_stay_unfused:
                    raise
                logger.info("layers are not merged: %s", error)
                self.merged, self._fused = None, False
        self._checked.add(attention.name)

    @property
    def resources(self) -> dict[str, Any]:
        """Device and data type, by the names of the configuration's keys."""
        device = self.device
        return {
            "device": str(device) if device.index else device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def new_pool(self, num_slots: int) -> KVPool:
        """Return a KV pool for the network's layers."""
        return KVPool(num_slots, self.layers, self.dtype, self.device)

    def use_attention(self, implementation: str) -> None:
        """Have the Hugging Face model use one of transformers' attention implementations.

        Raises:
            ValueError: the model does not support it.
        """
        if implementation != self._implementation:
            with quiet():
                self.hf.set_attn_implementation(implementation)
            self._implementation = implementation

    @torch.inference_mode()
    def forward(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        slots: np.ndarray,
        segments: Sequence[Segment],
        attention: AttentionBackend,
        pool: KVPool,
        rows: Sequence[int],
    ) -> torch.Tensor:
        """Compute one packed forward over a forest.

        Args:
            tokens: [N] ids in depth-first order.
            positions: [N] of each token in its own path.
            slots: [N] where each token's KV goes.
            segments: what each token sees, itself included (`kernels.segments.Segment`).
            attention: plans and computes the attention.
            pool: holds keys and values.
            rows: indices of the tokens whose next-token logits are wanted.

        Returns:
            Logits [len(rows), vocabulary], in the network's dtype.
        """
        where = torch.from_numpy(slots).to(self.device)
        batch = TreeBatch(attention, pool, where, attention.plan(positions, segments))
        return self.run(batch, *self._tensors(tokens, positions, rows))

    @torch.inference_mode()
    def run(
        self,
        batch: TreeBatch,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute one forward, without waiting for the device.

        Args:
            batch: plan, pool and slots of the N tokens.
            tokens: [N] int64 ids.
            positions: [N] int64 of each token in its own path.
            rows: [R] int64, tokens whose next-token logits are wanted; None wants all.

        Returns:
            Logits [R, vocabulary], in the network's dtype.
        """
        if self.merged is not None:
            return self.merged(batch, tokens, positions, rows)
        return self._run_plain(batch, tokens, positions, rows)

    def _run_plain(
        self,
        batch: TreeBatch,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        rows: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute one forward through Hugging Face's modules."""
        self.use_attention(_TREE)
        output = self.hf(
            input_ids=tokens[None],
            position_ids=positions[None],
            use_cache=False,  # the pool is the cache, and `hf_attention` writes to it
            logits_to_keep=0 if rows is None else rows,
            tree=batch,
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _tensors(self, *columns: Sequence[int]) -> list[torch.Tensor]:
        """Copy columns of integers to the device at once."""
        joined = torch.tensor([value for column in columns for value in column], dtype=torch.int64)
        return list(torch.split(joined.to(self.device), [len(column) for column in columns]))
