"""The check that a network gives the same logits on tree attention as on its own.

The network computes four short texts side by side on its own attention, then the same texts as two
trees on tree attention, as an engine would. An architecture that needs something tree attention
does not do is refused in one line that names the class and the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import transformers

from treeshare.kernels.planning.segments import Segment
from treeshare.llm_backend.cache.kv_pool import KVPool

from .attention import AttentionBackend, TreeBatch
from .loading import quiet

_RECORD = "treeshare_record"  # the recording attention in transformers' registries
_START = 4  # tokens that the two branches of a tree share
_BRANCHES = (4, 2)  # tokens of each
_SHORTEST_CONTEXT = 2 + max(_BRANCHES)
_LONGEST_WINDOW = 64  # tokens; a text that passes a longer one would take too much time

_FOREIGN = {
    "chunked_attention": "attend within chunks",
    "compressed_sparse_attention": "attend to compressed keys",
    "conv": "keep states of a convolution",
    "heavily_compressed_attention": "attend to compressed keys",
    "hybrid": "keep recurrent states next to keys and values",
    "hybrid_sliding": "keep recurrent states next to keys and values",
    "indexed_attention": "choose their keys by a sparse index",
    "linear_attention": "keep states of linear attention or of a state space",
    "minimax_m3_sparse": "choose their keys by a sparse index",
}
"""What layers do that a tree of keys and values does not serve, by transformers' `layer_types`."""
_INSTEAD = "engine=hf runs it, without shared prefixes"

Run = Callable[[TreeBatch, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of a probe's tree: tokens that one or two texts hold.

    Attributes:
        ids: [length] int64.
        positions: [length] int64.
        slots: [length] int64.
        ends: number of its tokens that are computed after each of the three forwards.
        subtree: number of nodes at and below it.
    """

    ids: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    ends: tuple[int, int, int]
    subtree: int


class Probe:
    """Two trees of two branches, and the logits of their texts on the network's own attention.

    The first tree begins at position 0, the second ends at the context's last position; both pass
    the sliding window, if there is one of at most 64 tokens. The own logits of the two trees come
    from two forwards, so that a network whose result depends on the longest text of a forward is
    noticed.

    Args:
        network: a Hugging Face causal language model on its own attention; it stays on it.
        context: tokens that a text may have.

    Attributes:
        layers: (KV heads, key width, value width) of each layer.
        num_tokens: KV slots that `logits` needs.
        own: [rows, vocabulary], the logits on the network's own attention.

    Raises:
        ValueError: the context is too short, or the network has layers or attention that tree
            attention cannot serve.
    """

    @torch.inference_mode()
    def __init__(self, network: Any, context: int) -> None:
        self._name = type(network).__name__
        self._is_quantized = bool(getattr(network, "is_quantized", False))
        if context < _SHORTEST_CONTEXT:
            raise ValueError(
                f"{self._name} has a context of {context} tokens; {_SHORTEST_CONTEXT} are needed"
            )
        config = network.config.get_text_config()
        with self._refusal():
            _check_kinds(network, config)
            asked = _record(network)
            _check_layers(config, asked)
            _check_windows(config, asked, context)
        self.layers = [asked.layers[layer] for layer in range(len(asked.layers))]
        windows = [window for window in asked.windows.values() if window is not None]
        passed = [window for window in windows if window <= _LONGEST_WINDOW]
        start = min(max([_START, *passed]), context - max(_BRANCHES))
        self.num_tokens = 2 * (start + sum(_BRANCHES))
        self._nodes = _forest(start, context, config.vocab_size)
        self._texts = [
            (first, first + branch)  # nodes
            for first, node in enumerate(self._nodes)
            for branch in range(1, node.subtree)
        ]
        with self._refusal():
            half = len(_BRANCHES)
            texts = self._own_logits(network, self._texts[:half])
            self.own = torch.cat(texts + self._own_logits(network, self._texts[half:]))

    def _own_logits(self, network: Any, texts: list[tuple[int, int]]) -> list[torch.Tensor]:
        """Compute each text's logits [length, vocabulary], in one forward of the network."""
        ids, positions = (
            [
                np.concatenate([getattr(self._nodes[node], column) for node in text])
                for text in texts
            ]
            for column in ("ids", "positions")
        )
        lengths = [len(text) for text in ids]
        longest = positions[lengths.index(max(lengths))]
        # What follows the end of a text changes none of its logits.
        padded = np.stack([np.resize(text, max(lengths)) for text in ids])
        where = network.device
        logits = network(
            input_ids=torch.from_numpy(padded).to(where),
            attention_mask=torch.ones(padded.shape, dtype=torch.int64, device=where),
            position_ids=torch.from_numpy(np.stack([longest] * len(texts))).to(where),
            use_cache=False,
        ).logits
        return [text[:length] for text, length in zip(logits, lengths, strict=True)]

    @torch.inference_mode()
    def logits(
        self, run: Run, backend: AttentionBackend, pool: KVPool
    ) -> tuple[torch.Tensor, dict[int, dict[str, Any]]]:
        """Compute the rows of `own` as an engine computes them.

        Three forwards hold both trees: the first half of each start; the rest of the starts and all
        but the last token of each branch; a decode step of the four branches. Their rows are asked
        for last to first, and the slots are in no order.

        Args:
            run: the network's forward, as `Network.run`.
            backend: plans and computes the attention.
            pool: of `num_tokens` slots.

        Returns:
            [rows, vocabulary], and what each layer asks of its attention (`TreeBatch.options`).

        Raises:
            ValueError: the network raises, or gives other rows than those it was asked for.
        """
        device = pool.keys[0].device
        parts: list[list[torch.Tensor]] = [[] for _ in self._nodes]
        with self._refusal():
            for step in range(3):
                columns, sizes, segments = _packed(self._nodes, step)
                plan = backend.plan(columns[1].tolist(), segments)
                ids, positions, slots = (torch.from_numpy(column).to(device) for column in columns)
                batch = TreeBatch(backend, pool, slots, plan)
                rows = torch.arange(len(ids) - 1, -1, -1, device=device)
                logits = run(batch, ids, positions, rows)
                if len(logits) != len(rows):
                    raise NotImplementedError("the network ignores logits_to_keep")
                for part, new in zip(parts, torch.split(logits.flip(0), sizes), strict=True):
                    part.append(new)
        nodes = [torch.cat(part) for part in parts]
        return torch.cat([nodes[node] for text in self._texts for node in text]), batch.options

    def check(
        self, how: str, logits: torch.Tensor, expected: torch.Tensor, instead: str = _INSTEAD
    ) -> None:
        """Compare logits of one dtype.

        Args:
            how: what gave `logits`, for the message.
            instead: what the user can do, for the message.
            logits: [rows, vocabulary].
            expected: [rows, vocabulary].

        Raises:
            ValueError: they differ by more than rounding explains.
        """
        # In 16 bits the own eager and SDPA attention of a random Llama-3-8B are 0.056 apart. A
        # quantised layer may round its input to 8 bits.
        is_exact = expected.dtype == torch.float32 and not self._is_quantized
        bound = 1e-3 if is_exact else 0.1
        logits, expected = logits.float(), expected.float()
        difference = ((logits - expected).norm() / expected.norm()).item()
        if not difference <= bound:
            raise ValueError(
                f"{self._name} gives other logits {how} than without: the relative difference is "
                f"{difference:.3g}, allowed is {bound}; {instead}"
            )

    @contextmanager
    def _refusal(self) -> Iterator[None]:
        """Turn what a network raises into a refusal of one line.

        Every kind of exception is taken, since several hundred classes of transformers, and code
        that comes with weights, run here outside of what they were written for.
        """
        try:
            yield
        except (MemoryError, torch.OutOfMemoryError):
            raise  # the model is too large, which says nothing about its architecture
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            if not isinstance(error, (NotImplementedError, ValueError)):
                reason = f"without a mask and a cache it raises {type(error).__name__}: {reason}"
            raise ValueError(
                f"{self._name} cannot run on tree attention: {reason}; {_INSTEAD}"
            ) from error


@dataclass
class _Asked:
    """What one forward of a network asks of its attention and of its masks."""

    layers: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    windows: dict[int, int | None] = field(default_factory=dict)
    masks: list[int] = field(default_factory=list)  # windows that masks are built for

    def attention(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        sliding_window: int | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        layer = module.layer_idx
        assert isinstance(layer, int)
        if layer in self.layers:
            raise NotImplementedError(f"layer {layer} attends more than once in a forward")
        self.layers[layer] = key.shape[1], key.shape[3], value.shape[3]
        self.windows[layer] = sliding_window
        batch, heads, length, _width = query.shape
        return query.new_zeros(batch, length, heads, value.shape[3]), None

    def mask(self, *_: Any, local_size: int | None = None, **__: Any) -> None:
        if local_size is not None:
            self.masks.append(local_size)


def _record(network: Any) -> _Asked:
    """Record what a forward of two tokens asks, and then restore the network's attention."""
    asked, before = _Asked(), network.config._attn_implementation
    transformers.AttentionInterface.register(_RECORD, asked.attention)
    transformers.AttentionMaskInterface.register(_RECORD, asked.mask)
    ids = torch.arange(2, device=network.device)[None]
    try:
        with quiet():  # a class that ignores it is noticed by its missing layers
            network.set_attn_implementation(_RECORD)
        network(input_ids=ids, position_ids=ids, use_cache=False)
    finally:
        with quiet():
            network.set_attn_implementation(before)
    return asked


def _check_kinds(network: Any, config: Any) -> None:
    """Check by what the network states that its layers keep keys and values alone.

    Raises:
        NotImplementedError: some do not.
    """
    kinds = getattr(config, "layer_types", None) or []
    foreign = sorted({kind for kind in kinds if kind in _FOREIGN})
    if foreign:
        count = sum(kind in _FOREIGN for kind in kinds)
        named = ", ".join(f"{_FOREIGN[kind]} ({kind})" for kind in foreign)
        raise NotImplementedError(f"{count} of its {len(kinds)} layers {named}")
    if network._is_stateful and not kinds:
        raise NotImplementedError("it keeps recurrent states, not keys and values alone")
    if getattr(config, "index_topk", None):
        raise NotImplementedError("its layers choose their keys by a sparse index (index_topk)")


def _check_layers(config: Any, asked: _Asked) -> None:
    """Check that every layer is attention, and through transformers' interface.

    Raises:
        NotImplementedError: one is not.
    """
    count = getattr(config, "num_hidden_layers", None) or len(asked.layers)
    missing = [layer for layer in range(count) if layer not in asked.layers]
    if missing or not count:
        raise NotImplementedError(
            f"{len(missing)} of its {count} layers do not use transformers.AttentionInterface"
        )


def _check_windows(config: Any, asked: _Asked, context: int) -> None:
    """Check sliding windows by what the layers ask for, since a long one exceeds the probe.

    Raises:
        NotImplementedError: a window does not reach attention, or a layer's attention is neither
            full nor sliding.
    """
    kinds = getattr(config, "layer_types", None) or []
    for layer, kind in enumerate(kinds[: len(asked.layers)]):
        is_known = kind == "full_attention" or (
            kind == "sliding_attention" and asked.windows[layer] is not None
        )
        if not is_known:
            raise NotImplementedError(
                f"it has {kind!r} in layer {layer}; full attention is served, and sliding "
                "attention whose window reaches the kernel"
            )
    # Without layer_types, all layers use the mask that is built; PhiMoE's pass no window on.
    lost = [window for window in asked.masks if window < context]
    if lost and not kinds and not any(asked.windows.values()):
        raise NotImplementedError(
            f"its mask has a window of {lost[0]} tokens that it does not pass to its attention"
        )


def _forest(start: int, context: int, vocabulary: int) -> list[_Node]:
    """Make the nodes of both trees, in depth-first order."""
    total = 2 * (start + sum(_BRANCHES))
    ids = iter((13 + 7919 * np.arange(total)) % vocabulary)  # few special tokens
    slots = iter(np.random.default_rng(0).permutation(total))
    nodes = []
    for begin in (0, context - start - max(_BRANCHES)):
        for length, first in [(start, begin), *((n, begin + start) for n in _BRANCHES)]:
            is_start = first == begin
            ends = (length // 2, length, length) if is_start else (0, length - 1, length)
            nodes.append(
                _Node(
                    np.array([next(ids) for _ in range(length)]),
                    first + np.arange(length),
                    np.array([next(slots) for _ in range(length)]),
                    ends,
                    1 + len(_BRANCHES) if is_start else 1,
                )
            )
    return nodes


def _packed(nodes: Sequence[_Node], step: int) -> tuple[list[np.ndarray], list[int], list[Segment]]:
    """Pack one of the three forwards.

    Returns:
        Ids, positions and slots of its tokens; how many are each node's; and what they see.
    """
    spans = [(node.ends[step - 1] if step else 0, node.ends[step]) for node in nodes]
    columns = [
        np.concatenate(
            [getattr(node, column)[a:b] for node, (a, b) in zip(nodes, spans, strict=True)]
        )
        for column in ("ids", "positions", "slots")
    ]
    sizes = [b - a for a, b in spans]
    lo = list(accumulate(sizes, initial=0))
    segments = [
        Segment(node.slots[: node.ends[step]], int(node.positions[0]), lo[i], lo[i + node.subtree])
        for i, node in enumerate(nodes)
    ]
    return columns, sizes, segments
