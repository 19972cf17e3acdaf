"""A Hugging Face decoder behind our attention and our KV pool, and its tokenizer.

A model is checked when it is loaded: a short text through its own attention and through ours must
give the same logits, so an architecture that needs something we do not do is refused and never
silently wrong. Where weights lie is the affair of pretrained.py.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import torch
import transformers

from ..kernels.segments import Segment
from .attention import TreeBatch, hf_attention, make_backend
from .fused import FusedDecoder
from .kv_pool import KVPool
from .pretrained import EMBEDDED, load_pretrained, quiet

logger = logging.getLogger(__name__)

_PROBE_LENGTH = 24  # tokens
_REMEMBERED = 4096  # prompts, and as many continuations, whose tokens are kept

transformers.AttentionInterface.register("treeshare", hf_attention)


class _PoolCache(transformers.Cache):  # type: ignore[misc]
    """Sends the model's new keys and values to the pool."""

    def __init__(self, batch: TreeBatch) -> None:
        super().__init__(layers=[])
        self._batch = batch

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch = self._batch
        k, v = key_states[0].transpose(0, 1), value_states[0].transpose(0, 1)
        batch.backend.write(k, v, batch.pool, layer_idx, batch.slots)
        return key_states, value_states

    # Positions are always given and no mask is built, so what models ask here is of no consequence.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return query_length, 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0

    @property
    def is_sliding(self) -> list[bool]:
        return []


class Model:
    """Weights and tokenizer.

    Args:
        network: a Hugging Face causal language model, loaded with `attn_implementation="eager"`.
        tokenizer: its tokenizer.
        attention: one of `attention.BACKENDS`.
        fused: run the layers with merged and compiled parts (`fused.FusedDecoder`).

    Raises:
        ValueError: no such attention backend, or the architecture is not supported.
    """

    def __init__(
        self, network: Any, tokenizer: Any, attention: str = "torch", fused: bool = False
    ) -> None:
        self.backend = make_backend(attention, network.device)
        self._network = network.eval()
        self._tokenizer = tokenizer
        self.device = network.device
        self.dtype = network.dtype
        self.num_parameters: int = network.num_parameters()
        config = network.config.get_text_config()
        if not hasattr(config, "max_position_embeddings"):
            raise ValueError(f"{type(network).__name__} states no max_position_embeddings")
        self.context_length: int = config.max_position_embeddings
        self.vocabulary_size: int = config.vocab_size  # ids, those of no token included
        ends = network.generation_config.eos_token_id
        if ends is None:
            ends = tokenizer.eos_token_id
        self.end_tokens = frozenset([ends] if isinstance(ends, int) else ends or [])
        self.layers: list[tuple[int, int, int]] = []  # (KV heads, key width, value width)
        self._fused: FusedDecoder | None = None
        self._check_architecture(config, fused)
        # Of the tokenizer only: a cache that held the model would outlive it, and its weights.
        self._prompts: dict[str, tuple[int, ...]] = {}  # the latest last
        self._encode = lru_cache(maxsize=_REMEMBERED)(partial(_plain_tokens, tokenizer))
        self._decode = lru_cache(maxsize=_REMEMBERED)(partial(_text, tokenizer))
        self._closing = cache(partial(_closing_tokens, tokenizer))
        self._splits_at_space = self._encode("a:") + self._encode(" b") == self._encode("a: b")

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

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt, with the special tokens the tokenizer puts before one."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """As `encode`, of several prompts: a fast tokenizer spreads them over the cores."""
        new = [text for text in dict.fromkeys(texts) if text not in self._prompts]
        if new:
            self._prompts |= zip(new, map(tuple, self._tokenizer(new)["input_ids"]), strict=True)
        encoded = [self._prompts[text] for text in texts]
        if len(self._prompts) > _REMEMBERED:
            self._prompts = dict(list(self._prompts.items())[-_REMEMBERED:])
        return encoded

    def encode_continuation(self, prompt: str, text: str) -> tuple[int, ...]:
        """Token ids that `text` adds when it follows `prompt`; where a token would span the border
        (of `a: ` and `4`, if ` 4` is a token), those it has after a new line."""
        if self._splits_at_space:
            return self._encode(text)
        for before in (prompt, "\n"):
            begun, whole = self.encode(before), self.encode(before + text)
            if len(whole) > len(begun) and whole[: len(begun)] == begun:
                return whole[len(begun) :]
        return self._encode(text)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token to id."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary

    def decode(self, tokens: Sequence[int]) -> str:
        return self._decode(tuple(tokens))  # short replies come again and again

    def may_close(self, token: int, stop: tuple[str, ...]) -> bool:
        """Whether a text may have come to hold one of `stop` with its last token. To ask spares
        most decoding; never False where the answer is yes."""
        return token in self._closing(_last_characters(stop))

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
            past_key_values=_PoolCache(batch),
            use_cache=True,
            logits_to_keep=0 if rows is None else rows,
            tree=batch,
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _tensors(self, *columns: Sequence[int]) -> list[torch.Tensor]:
        """Columns of integers on the device, in one copy."""
        joined = torch.tensor([value for column in columns for value in column], dtype=torch.int64)
        return list(torch.split(joined.to(self.device), [len(column) for column in columns]))

    @torch.inference_mode()
    def _check_architecture(self, config: Any, fused: bool) -> None:
        """Compare a short forward with the model's own attention, and learn the KV shapes."""
        name = type(self._network).__name__
        logger.info("checking %s against its own attention", name)
        length = min(_PROBE_LENGTH, self.context_length)
        tokens = [(13 + 7919 * i) % config.vocab_size for i in range(length)]  # few specials
        own = self._network(torch.tensor([tokens], device=self.device), use_cache=True)
        for layer in own.past_key_values.layers:
            (_, heads, _, width), value_width = layer.keys.shape, layer.values.shape[-1]
            self.layers.append((heads, width, value_width))
        with quiet():  # what does not take it is noticed below
            self._network.set_attn_implementation("treeshare")
        slots = np.arange(length)
        plan = self.backend.plan(range(length), [Segment(slots, 0, 0, length)])
        ids, positions = self._tensors(tokens, range(length))
        batch = TreeBatch(self.backend, self.new_pool(length), positions, plan)
        try:
            ours = self.run(batch, ids, positions)
        except (NotImplementedError, KeyError) as error:
            raise ValueError(f"{name} cannot run on tree attention: {error}") from error
        if len(batch.options) < len(self.layers):
            raise ValueError(
                f"{name} cannot run on tree attention: {len(self.layers) - len(batch.options)} of "
                f"its {len(self.layers)} layers do not use transformers.AttentionInterface"
            )
        self._check_windows(config, batch.options)
        self._check_logits("on tree attention", ours, own.logits[0])
        if fused:
            logger.info("merging layers")
            self._fused = FusedDecoder(self._network, batch.options)
            self._check_logits("with merged layers", self.run(batch, ids, positions), ours)

    def _check_logits(self, how: str, logits: torch.Tensor, expected: torch.Tensor) -> None:
        logits, expected = logits.float(), expected.float()
        difference = ((logits - expected).norm() / expected.norm()).item()
        # In 16 bits the own eager and SDPA attention of a random Llama-3-8B are 0.056 apart.
        bound = 1e-3 if self.dtype == torch.float32 else 0.1
        if not difference <= bound:
            raise ValueError(
                f"{type(self._network).__name__} gives other logits {how} than without: the "
                f"relative difference is {difference:.3g}, allowed is {bound}"
            )

    def _check_windows(self, config: Any, options: dict[int, dict[str, Any]]) -> None:
        """A window longer than the probe shows only in what the layers asked for."""
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * len(options)
        for layer, kind in enumerate(kinds[: len(self.layers)]):
            is_known = kind == "full_attention" or (
                kind == "sliding_attention" and options[layer]["sliding_window"] is not None
            )
            if not is_known:
                raise ValueError(
                    f"{type(self._network).__name__} has {kind!r} in layer {layer}; supported are "
                    "full attention, and sliding attention whose window reaches the kernel"
                )


def _plain_tokens(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def _text(tokenizer: Any, tokens: tuple[int, ...]) -> str:
    # By default some tokenizers drop spaces before punctuation: a text the model did not write.
    text: str = tokenizer.decode(
        tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


@cache
def _last_characters(texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset(text[-1] for text in texts)


def _closing_tokens(tokenizer: Any, characters: frozenset[str]) -> Container[int]:
    """Tokens that may complete one of the characters."""
    vocabulary = range(len(tokenizer))
    if any(character.isspace() and character != "\n" for character in characters):
        return vocabulary  # tokenizers add and drop blanks as they join tokens
    texts = tokenizer.batch_decode(
        [[token] for token in vocabulary], clean_up_tokenization_spaces=False
    )
    wanted = characters | {"\N{REPLACEMENT CHARACTER}"}  # for parts of a character
    return frozenset(
        token for token, text in zip(vocabulary, texts, strict=True) if not wanted.isdisjoint(text)
    )


def load_model(
    name: str = EMBEDDED,
    dtype: str = "float32",
    device: str = "cpu",
    attention: str = "torch",
    fused: bool = False,
    num_layers: int | None = None,
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

    Raises:
        ValueError: no such model, dtype, device or backend, or an architecture that is not
            supported, or more layers than there are.
    """
    network, tokenizer = load_pretrained(
        "model", "AutoModelForCausalLM", name, dtype, device, attn_implementation="eager"
    )
    if num_layers is not None:
        _truncate(network, num_layers)
    return Model(network, tokenizer, attention, fused)


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
