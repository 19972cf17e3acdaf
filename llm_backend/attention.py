"""The attention seam: `plan` once per forward, `run` once per layer, and Hugging Face's way in.

`hf_attention` is what a Hugging Face model calls in place of its own attention. Everything it is
handed that changes the result is honoured or refused; knows no weights and no tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ..kernels.segments import Segment, Segments
from ..kernels.torch_attention import BucketPlan, build_plan, tree_attention
from .kv_pool import KVPool

if TYPE_CHECKING:
    from ..kernels.tree_plan import Heads, TreePlan


class AttentionBackend(Protocol):
    def plan(self, query_positions: Sequence[int], segments: Sequence[Segment]) -> Any: ...

    def run(
        self, q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, plan: Any, **options: Any
    ) -> torch.Tensor:
        """q [N, HQ, D] over one layer's pool; see `kernels.torch_attention.tree_attention`."""
        ...


class TorchAttention:
    """Plain PyTorch on any device."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device

    def plan(self, query_positions: Sequence[int], segments: Sequence[Segment]) -> BucketPlan:
        return build_plan(query_positions, segments, self._device)

    def run(
        self,
        q: torch.Tensor,
        k_pool: torch.Tensor,
        v_pool: torch.Tensor,
        plan: BucketPlan,
        **options: Any,
    ) -> torch.Tensor:
        return tree_attention(q, k_pool, v_pool, plan, **options)


class DeftAttention:
    """The Triton kernels, on a CUDA device.

    Raises:
        ValueError: the device is not a CUDA device.
    """

    def __init__(self, device: torch.device | str = "cuda") -> None:
        # Imported here: Triton decides at import whether it compiles or interprets.
        from ..kernels import tree_attention, tree_plan

        if torch.device(device).type != "cuda" and not tree_attention.IS_INTERPRETED:
            raise ValueError(f"attention='deft' needs a CUDA device, not {str(device)!r}")
        self._device = device
        self._attention, self._plan = tree_attention, tree_plan

    def plan(self, query_positions: Sequence[int], segments: Sequence[Segment]) -> _SegmentPlans:
        positions = np.asarray(query_positions, dtype=np.int64)
        arrays, slots = Segments.of_list(segments, positions)
        table = torch.from_numpy(slots).to(self._device)
        make = self._plan.TreePlan.of_segments
        return _SegmentPlans(lambda heads: make(arrays, positions, table, heads))

    def run(
        self,
        q: torch.Tensor,
        k_pool: torch.Tensor,
        v_pool: torch.Tensor,
        plan: _SegmentPlans,
        **options: Any,
    ) -> torch.Tensor:
        (num_heads, width), num_kv_heads = q.shape[1:], k_pool.shape[1]
        heads = self._plan.Heads(num_heads, num_kv_heads, width, v_pool.shape[2], q.dtype)
        return self._attention.tree_attention(q, k_pool, v_pool, plan.of(heads), **options)


class _SegmentPlans:
    """One forward's work: a plan for each shape of attention that its layers have."""

    def __init__(self, make: Callable[[Heads], TreePlan]) -> None:
        self._make = make
        self._plans: dict[Heads, TreePlan] = {}

    def of(self, heads: Heads) -> TreePlan:
        if heads not in self._plans:
            self._plans[heads] = self._make(heads)
        return self._plans[heads]


BACKENDS: dict[str, type[TorchAttention] | type[DeftAttention]] = {
    "torch": TorchAttention,
    "deft": DeftAttention,
}


class TreeBatch:
    """What one forward's layers share: the plan, the pool, and where the new entries go."""

    def __init__(
        self, backend: AttentionBackend, pool: KVPool, slots: torch.Tensor, plan: Any
    ) -> None:
        self.backend = backend
        self.pool = pool
        self.slots = slots  # [N] int64
        self.plan = plan
        self.windows: dict[int, int | None] = {}  # sliding window each layer asked for


def hf_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    tree: TreeBatch | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as `transformers.AttentionInterface` calls it, after the cache took key and value.

    Args:
        query: [1, HQ, N, D] after rotary embedding; key and value lie in `tree.pool` already.
        s_aux: [HQ] attention sinks.
        tree: passed through the model's forward.

    Returns:
        [1, N, HQ, DV], None.

    Raises:
        NotImplementedError: the model needs something that tree attention does not do.
    """
    if tree is None:
        raise NotImplementedError(
            f"{type(module).__name__} does not pass keyword arguments on to its attention"
        )
    if attention_mask is not None or kwargs.get("position_bias") is not None:
        raise NotImplementedError(f"{type(module).__name__} needs an attention mask or bias")
    layer = module.layer_idx
    assert isinstance(layer, int)
    tree.windows[layer] = sliding_window
    output = tree.backend.run(
        query[0].transpose(0, 1),
        tree.pool.keys[layer],
        tree.pool.values[layer],
        tree.plan,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        sliding_window=sliding_window,
        softcap=softcap,
        sinks=s_aux,
    )
    return output[None], None
