"""The attention seam: `plan` once per forward, `write` and `run` once per layer, and Hugging Face's
way in. What has a `window` can decode several steps on one plan (`decoder.py`).

`hf_attention` is what a Hugging Face model calls in place of its own attention. Everything it is
handed that changes the result is honoured or refused; knows no weights and no tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
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
    from treeshare.kernels.planning.tree_plan import Capacity, Heads, TreePlan


class AttentionBackend(Protocol):
    def plan(self, query_positions: Sequence[int], segments: Sequence[Segment]) -> Any: ...

    def write(
        self, k: torch.Tensor, v: torch.Tensor, pool: KVPool, layer: int, slots: torch.Tensor
    ) -> None:
        """Store k [N, HK, D] and v [N, HK, DV] of one layer in `slots` [N] int64."""
        ...

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

    def write(
        self, k: torch.Tensor, v: torch.Tensor, pool: KVPool, layer: int, slots: torch.Tensor
    ) -> None:
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
        return tree_attention(q, k_pool, v_pool, plan, **options)


class DeftAttention:
    """The Triton kernels, on a CUDA device.

    Args:
        device: where.
        variant: a name of `kernels.variants.VARIANTS`.

    Raises:
        ValueError: the device is not a CUDA device.
    """

    def __init__(self, device: torch.device | str = "cuda", variant: str = "deft") -> None:
        # Imported here: Triton decides at import whether it compiles or interprets.
        from treeshare.kernels.attention import tree_attention
        from treeshare.kernels.planning import tree_plan

        if torch.device(device).type != "cuda" and not tree_attention.IS_INTERPRETED:
            raise ValueError(f"attention={variant!r} needs a CUDA device, not {str(device)!r}")
        self.variant = variant
        self.can_grow = variant in GROWING
        self.can_update = variant != "tree_mask"  # whose mask is new with each plan
        self._device = device
        self._attention, self._plan = tree_attention, tree_plan

    def plan(self, query_positions: Sequence[int], segments: Sequence[Segment]) -> _Plans:
        positions = np.asarray(query_positions, dtype=np.int64)
        arrays, slots = Segments.of_list(segments, positions)
        table = torch.from_numpy(slots).to(self._device)
        make = self._plan.TreePlan.of_segments
        return _Plans(lambda heads: make(arrays, positions, table, heads, self.variant))

    def window(
        self, table: torch.Tensor, num_rows: int, steps: int = 0, *, is_ample: bool = False
    ) -> Window:
        """Plans in fixed memory for `num_rows` queries or fewer, which may grow by `steps` entries
        each. `table` [entries] int32 holds the slots that forests name. There is room for twice the
        first forest; if it `is_ample`, for about any of so many queries."""
        growth = steps if self.can_grow else 0
        variant, planner = self.variant, self._plan

        def make(forest: Forest, heads: Heads, outgrown: Capacity | None) -> TreePlan:
            needed = planner.needed_capacity(
                forest, heads, variant, growth=growth, device=table.device
            )
            room = replace(needed.times(2), queries=num_rows)
            if outgrown is not None:
                # Were the planner of the device to ask for more than that of the host, this would
                # find the room nevertheless.
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

        return Window(make, growth, num_rows)

    def write(
        self, k: torch.Tensor, v: torch.Tensor, pool: KVPool, layer: int, slots: torch.Tensor
    ) -> None:
        """In one launch; what has slot -1 is left out."""
        self._attention.write_kv(k, v, pool.keys[layer], pool.values[layer], slots)

    def run(
        self,
        q: torch.Tensor,
        k_pool: torch.Tensor,
        v_pool: torch.Tensor,
        plan: _Plans | Window,
        **options: Any,
    ) -> torch.Tensor:
        (num_heads, width), num_kv_heads = q.shape[1:], k_pool.shape[1]
        heads = self._plan.Heads(num_heads, num_kv_heads, width, v_pool.shape[2], q.dtype)
        out = plan.out(heads, q) if isinstance(plan, Window) else None
        return self._attention.tree_attention(q, k_pool, v_pool, plan.of(heads), out=out, **options)


class _Plans:
    """One forward's work: a plan for each shape of attention that its layers have."""

    def __init__(self, make: Callable[[Heads], TreePlan]) -> None:
        self._make = make
        self._plans: dict[Heads, TreePlan] = {}

    def of(self, heads: Heads) -> TreePlan:
        if heads not in self._plans:
            self._plans[heads] = self._make(heads)
        return self._plans[heads]


class Window:
    """The work of several decode steps, or of one forward, at fixed addresses that a CUDA graph can
    keep.

    A plan for each shape of attention, made when a layer first asks for it; what is loaded or
    enlarged before is the forest that it has room for. `growth` is the number of steps a load
    serves; 0 where the forest must hold the step's own entries already.
    """

    _forest: Forest

    def __init__(
        self,
        make: Callable[[Forest, Heads, Capacity | None], TreePlan],
        growth: int,
        num_rows: int,
    ) -> None:
        self.growth = growth
        self._make = make
        self._num_rows = num_rows
        self._plans: dict[Heads, TreePlan] = {}
        self._outgrown: dict[Heads, Capacity] = {}
        self._outputs: dict[Heads, torch.Tensor] = {}

    def load(self, forest: Forest) -> bool:
        """Plan another forest, without a wait for the device.

        Returns:
            False if there is no room for it; True if that is not seen yet: `had_room` waits for it.
        """
        self._forest = forest
        try:
            for plan in self._plans.values():
                plan.update(forest)
        except CapacityExceeded:
            return False
        return True

    def status(self) -> torch.Tensor:
        """What `had_room` reads, int32 on the device. Device work only."""
        return torch.cat([plan.status for plan in self._plans.values()])

    def had_room(self, status: torch.Tensor) -> bool:
        """Whether there was room for the last forest; else attention wrote nothing.

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
        """Load a forest and wait for the device; returns whether there was room for it."""
        return self.load(forest) and (not self._plans or self.had_room(self.status().cpu()))

    def enlarge(self, forest: Forest) -> None:
        """Make room for a forest that had none. New plans are made as layers ask for them, so a
        graph that was captured before must not be launched again."""
        self._forest = forest
        self._outgrown |= {heads: plan.capacity for heads, plan in self._plans.items()}
        self._plans.clear()

    def advance(self) -> None:
        """Device work: every path has one entry more."""
        if self.growth:
            for plan in self._plans.values():
                plan.advance()

    def of(self, heads: Heads) -> TreePlan:
        if heads not in self._plans:
            outgrown = self._outgrown.get(heads)
            self._plans[heads] = self._make(self._forest, heads, outgrown)
            if self.growth:
                self._plans[heads].advance()
        return self._plans[heads]

    def out(self, heads: Heads, q: torch.Tensor) -> torch.Tensor:
        """Where all layers write, one after the other; rows that no query has stay zero, or as
        they were."""
        if heads not in self._outputs:
            shape = (self._num_rows, heads.num_heads, heads.dv)
            self._outputs[heads] = q.new_zeros(shape)
        return self._outputs[heads]


BACKENDS = ("torch", *VARIANTS)


def make_backend(name: str, device: torch.device | str) -> TorchAttention | DeftAttention:
    """The attention of that name.

    Raises:
        ValueError: there is none, or it does not run on the device.
    """
    if name not in BACKENDS:
        raise ValueError(f"attention={name!r} is not one of {', '.join(BACKENDS)}")
    return TorchAttention(device) if name == "torch" else DeftAttention(device, name)


class TreeBatch:
    """What one forward's layers share: the plan, the pool, and where the new entries go."""

    def __init__(
        self, backend: AttentionBackend, pool: KVPool, slots: torch.Tensor, plan: Any
    ) -> None:
        self.backend = backend
        self.pool = pool
        self.slots = slots  # [N] int64
        self.plan = plan
        self.options: dict[int, dict[str, Any]] = {}  # of `run`, as each layer asked for them


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
    """Attention as `transformers.AttentionInterface` calls it. Key and value go to `tree.pool`.

    They are written here and not where a cache is updated: some networks update a cache with
    compressed latents (MLA), and some layers that share the KV of others update none, but attention
    is always called with all of its keys and values.

    Args:
        query: [1, HQ, N, D] after rotary embedding.
        key: [1, HK, N, D] after rotary embedding, of the same tokens.
        value: [1, HK, N, DV].
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
