"""Attention backends, and the hook that Hugging Face models call.

A backend plans once per forward, and writes and runs once per layer. Some backends also have
`CapturedPlans`: plans at fixed addresses that a CUDA graph can keep. What a backend can do is
stated in its `capabilities`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from treeshare.kernels.attention.torch_attention import BucketPlan, build_plan, tree_attention
from treeshare.kernels.planning.forest import Forest
from treeshare.kernels.planning.segments import Segment, Segments
from treeshare.kernels.planning.variants import GROWING, VARIANTS
from treeshare.kernels.planning.work_list import CapacityExceeded
from treeshare.llm_backend.cache.kv_pool import KVPool

if TYPE_CHECKING:
    from treeshare.kernels.planning.attention_spec import AttentionSpec
    from treeshare.kernels.planning.tree_plan import TreePlan
    from treeshare.kernels.planning.work_list import Capacity


@dataclass(frozen=True, slots=True)
class AttentionCapabilities:
    """What an attention backend can do.

    Args:
        captures: it has `CapturedPlans`, so that forwards can be CUDA graphs and several decode
            steps can run without the host.
        grows: one plan serves several decode steps, as its paths grow by an entry each.
    """

    captures: bool
    grows: bool


class AttentionBackend(Protocol):
    """Attention of packed tokens over a KV pool, of which each token sees some entries."""

    @property
    def name(self) -> str:
        """One of `BACKENDS`."""
        ...

    @property
    def capabilities(self) -> AttentionCapabilities:
        """What the backend can do."""
        ...

    def plan(self, query_positions: Sequence[int], segments: Sequence[Segment]) -> Any:
        """Plan one forward.

        Args:
            query_positions: [N], of each token in its own path.
            segments: the KV entries that intervals of tokens see (`kernels.segments.Segment`).
        """
        ...

    def captured_plans(
        self, table: torch.Tensor, num_rows: int, steps: int = 0, *, is_ample: bool = False
    ) -> CapturedPlans:
        """Return plans at fixed addresses; only where `capabilities.captures`.

        Args:
            table: [entries] int32, the slots that forests name.
            num_rows: queries at most.
            steps: entries by which each query's path may grow.
            is_ample: make room for almost any forest with this number of queries; otherwise there
                is room for twice the first forest.

        Raises:
            NotImplementedError: the backend has none.
        """
        ...

    def write(
        self, k: torch.Tensor, v: torch.Tensor, pool: KVPool, layer: int, slots: torch.Tensor
    ) -> None:
        """Store k [N, HK, D] and v [N, HK, DV] of one layer in `slots` [N] int64.

        Tokens with slot -1 are left out where `capabilities.captures`.
        """
        ...

    def run(
        self, q: torch.Tensor, k_pool: torch.Tensor, v_pool: torch.Tensor, plan: Any, **options: Any
    ) -> torch.Tensor:
        """Return the attention of q [N, HQ, D] over one layer's pool, [N, HQ, DV].

        Options are those of `kernels.attention.torch_attention.tree_attention`.
        """
        ...


class TorchAttention:
    """Tree attention in plain PyTorch, on any device."""

    name = "torch"
    capabilities = AttentionCapabilities(captures=False, grows=False)

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device

    def plan(self, query_positions: Sequence[int], segments: Sequence[Segment]) -> BucketPlan:
        """Plan one forward; see `AttentionBackend.plan`."""
        return build_plan(query_positions, segments, self._device)

    def captured_plans(
        self, table: torch.Tensor, num_rows: int, steps: int = 0, *, is_ample: bool = False
    ) -> CapturedPlans:
        """Refuse: plans in PyTorch are new tensors each time.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("attention='torch' cannot be captured; attention='deft' can")

    def write(
        self, k: torch.Tensor, v: torch.Tensor, pool: KVPool, layer: int, slots: torch.Tensor
    ) -> None:
        """Store one layer's keys and values; see `AttentionBackend.write`."""
        pool.keys[layer].index_copy_(0, slots, k)
        pool.values[layer].index_copy_(0, slots, v)

    def run(
        self,
        q: torch.Tensor,
        k_pool: torch.Tensor,
        v_pool: torch.Tensor,
        plan: BucketPlan,
        **options: Any,
    ) -> torch.Tensor:
        """Compute attention; see `AttentionBackend.run`."""
        return tree_attention(q, k_pool, v_pool, plan, **options)


class DeftAttention:
    """Tree attention in Triton kernels, on a CUDA device.

    Args:
        device: the CUDA device; any device where Triton interprets its kernels.
        variant: a name of `kernels.planning.variants.VARIANTS`.

    Raises:
        ValueError: the device is not a CUDA device.
    """

    def __init__(self, device: torch.device | str = "cuda", variant: str = "deft") -> None:
        # Imported here: Triton decides at import whether it compiles or interprets.
        from treeshare.kernels.attention import tree_attention
        from treeshare.kernels.planning import tree_plan

        if torch.device(device).type != "cuda" and not tree_attention.IS_INTERPRETED:
            raise ValueError(f"attention={variant!r} needs a CUDA device, not {str(device)!r}")
        self.name = variant
        self.capabilities = AttentionCapabilities(
            captures=variant != "tree_mask",  # its mask is new with each plan
            grows=variant in GROWING,
        )
        self._device = device
        self._attention, self._plan = tree_attention, tree_plan

    def plan(self, query_positions: Sequence[int], segments: Sequence[Segment]) -> _Plans:
        """Plan one forward; see `AttentionBackend.plan`."""
        positions = np.asarray(query_positions, dtype=np.int64)
        arrays, slots = Segments.of_list(segments, positions)
        table = torch.from_numpy(slots).to(self._device)
        make = self._plan.TreePlan.of_segments
        return _Plans(lambda heads: make(arrays, positions, table, heads, self.name))

    def captured_plans(
        self, table: torch.Tensor, num_rows: int, steps: int = 0, *, is_ample: bool = False
    ) -> CapturedPlans:
        """Return plans at fixed addresses; see `AttentionBackend.captured_plans`."""
        growth = steps if self.capabilities.grows else 0
        variant, planner = self.name, self._plan

        def make(forest: Forest, heads: AttentionSpec, outgrown: Capacity | None) -> TreePlan:
            needed = planner.needed_capacity(
                forest, heads, variant, growth=growth, device=table.device
            )
            room = replace(needed.times(2), queries=num_rows)
            if outgrown is not None:
                # The device's planner asks for what the host's does. If it ever asked for more,
                # doubling would still end.
                is_news = outgrown.union(needed) != outgrown
                room = room.union(outgrown if is_news else outgrown.times(2))
            if is_ample:
                room = room.union(
                    planner.ample_capacity(
                        num_rows, len(table), heads, variant, device=table.device
                    )
                )
            plan: TreePlan = planner.TreePlan(
                forest, table, heads, variant, growth=growth, capacity=room
            )
            return plan

        return CapturedPlans(make, growth, num_rows)

    def write(
        self, k: torch.Tensor, v: torch.Tensor, pool: KVPool, layer: int, slots: torch.Tensor
    ) -> None:
        """Store one layer's keys and values in one launch; see `AttentionBackend.write`."""
        self._attention.write_kv(k, v, pool.keys[layer], pool.values[layer], slots)

    def run(
        self,
        q: torch.Tensor,
        k_pool: torch.Tensor,
        v_pool: torch.Tensor,
        plan: _Plans | CapturedPlans,
        **options: Any,
    ) -> torch.Tensor:
        """Compute attention; see `AttentionBackend.run`."""
        (num_heads, width), num_kv_heads = q.shape[1:], k_pool.shape[1]
        heads = self._plan.AttentionSpec(num_heads, num_kv_heads, width, v_pool.shape[2], q.dtype)
        out = plan.out(heads, q) if isinstance(plan, CapturedPlans) else None
        return self._attention.tree_attention(q, k_pool, v_pool, plan.of(heads), out=out, **options)


class _Plans:
    """The plans of one forward: one for each shape of attention that its layers have."""

    def __init__(self, make: Callable[[AttentionSpec], TreePlan]) -> None:
        self._make = make
        self._plans: dict[AttentionSpec, TreePlan] = {}

    def of(self, heads: AttentionSpec) -> TreePlan:
        if heads not in self._plans:
            self._plans[heads] = self._make(heads)
        return self._plans[heads]


class CapturedPlans:
    """Plans of attention at fixed addresses, which a CUDA graph can keep.

    They serve one forward, or several decode steps. There is a plan for each shape of attention,
    made when a layer first asks for it; it has room for the forest that was last loaded or enlarged
    for.

    Args:
        make: makes a plan of a forest for a shape; its third argument is the capacity of an
            earlier plan that was too small, or None.
        growth: decode steps that one load serves; 0 if the forest must hold the step's own entries.
        num_rows: queries at most.
    """

    _forest: Forest

    def __init__(
        self,
        make: Callable[[Forest, AttentionSpec, Capacity | None], TreePlan],
        growth: int,
        num_rows: int,
    ) -> None:
        self.growth = growth
        self._make = make
        self._num_rows = num_rows
        self._plans: dict[AttentionSpec, TreePlan] = {}
        self._outgrown: dict[AttentionSpec, Capacity] = {}
        self._outputs: dict[AttentionSpec, torch.Tensor] = {}

    def load(self, forest: Forest) -> bool:
        """Plan another forest, without waiting for the device.

        Returns:
            False if there is no room for it. True if there may be room; `had_room` is certain.
        """
        self._forest = forest
        try:
            for plan in self._plans.values():
                plan.update(forest)
        except CapacityExceeded:
            return False
        return True

    def status(self) -> torch.Tensor:
        """Return what `had_room` reads, int32 on the device. Device work only."""
        return torch.cat([plan.status for plan in self._plans.values()])

    def had_room(self, status: torch.Tensor) -> bool:
        """Whether there was room for the last forest; if not, attention wrote nothing.

        Args:
            status: a copy of `self.status()` on the host.

        Raises:
            ValueError: a query sees nothing.
        """
        try:
            for plan, part in zip(
                self._plans.values(), status.chunk(len(self._plans)), strict=True
            ):
                plan.check(part)
        except CapacityExceeded:
            return False
        return True

    def fit(self, forest: Forest) -> bool:
        """Load a forest, wait for the device, and return whether there was room for it."""
        return self.load(forest) and (not self._plans or self.had_room(self.status().cpu()))

    def enlarge(self, forest: Forest) -> None:
        """Make room for a forest that had none.

        New plans are made as layers ask for them, so a graph that was captured before must not be
        launched again.
        """
        self._forest = forest
        self._outgrown |= {heads: plan.capacity for heads, plan in self._plans.items()}
        self._plans.clear()

    def advance(self) -> None:
        """Lengthen every path by one entry. Device work only."""
        if self.growth:
            for plan in self._plans.values():
                plan.advance()

    def of(self, heads: AttentionSpec) -> TreePlan:
        """Return the plan for a shape of attention; the first call for it makes the plan."""
        if heads not in self._plans:
            outgrown = self._outgrown.get(heads)
            self._plans[heads] = self._make(self._forest, heads, outgrown)
            if self.growth:
                self._plans[heads].advance()
        return self._plans[heads]

    def out(self, heads: AttentionSpec, q: torch.Tensor) -> torch.Tensor:
        """Return the output that all layers of a shape share, [num_rows, HQ, DV].

        Rows beyond the last query keep what they held, zero at first.
        """
        if heads not in self._outputs:
            shape = (self._num_rows, heads.num_heads, heads.dv)
            self._outputs[heads] = q.new_zeros(shape)
        return self._outputs[heads]


BACKENDS = ("torch", *VARIANTS)
"""Names of all attention backends."""


def make_backend(name: str, device: torch.device | str) -> TorchAttention | DeftAttention:
    """Return the attention backend of a name.

    Raises:
        ValueError: there is none, or it does not run on the device.
    """
    if name not in BACKENDS:
        raise ValueError(f"attention={name!r} is not one of {', '.join(BACKENDS)}")
    return TorchAttention(device) if name == "torch" else DeftAttention(device, name)


class TreeBatch:
    """What the layers of one forward share.

    Args:
        backend: computes the attention.
        pool: holds keys and values.
        slots: [N] int64, where each token's keys and values go.
        plan: the backend's plan of the forward.

    Attributes:
        options: options of `AttentionBackend.run` by layer, as each layer asked for them.
    """

    def __init__(
        self, backend: AttentionBackend, pool: KVPool, slots: torch.Tensor, plan: Any
    ) -> None:
        self.backend = backend
        self.pool = pool
        self.slots = slots
        self.plan = plan
        self.options: dict[int, dict[str, Any]] = {}


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
    """Compute attention as `transformers.AttentionInterface` calls it; KV goes to `tree.pool`.

    KV is written here and not where a cache is updated: some networks update a cache with
    compressed latents (MLA), and some layers that share the KV of others update none, but attention
    is always called with all of its keys and values. Every argument that changes the result is
    honoured or refused.

    Args:
        module: the layer's attention module.
        query: [1, HQ, N, D] after rotary embedding.
        key: [1, HK, N, D] after rotary embedding, of the same tokens.
        value: [1, HK, N, DV].
        attention_mask: must be None.
        scaling: factor of the scores; None is D^-0.5.
        dropout: ignored, since nothing is trained.
        sliding_window: number of latest keys that a query sees; None is all.
        softcap: bound of the scores (Gemma 2); None is none.
        s_aux: [HQ] attention sinks; None is none.
        tree: the forward's plan and pool, passed on by the model's forward.
        kwargs: others are ignored, but for `position_bias`, which must be None.

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
    options = tree.options[layer] = {
        "scale": query.shape[-1] ** -0.5 if scaling is None else scaling,
        "sliding_window": sliding_window,
        "softcap": softcap,
        "sinks": s_aux,
    }
    k, v = key[0].transpose(0, 1), value[0].transpose(0, 1)
    tree.backend.write(k, v, tree.pool, layer, tree.slots)
    k_pool, v_pool = tree.pool.keys[layer], tree.pool.values[layer]
    output = tree.backend.run(query[0].transpose(0, 1), k_pool, v_pool, tree.plan, **options)
    return output[None], None
