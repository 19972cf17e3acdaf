"""One workload of tree attention on a device: its tensors, its check and its times.

A result is compared with a dense fp32 computation before its time is taken. One CUDA graph runs
over layers with distinct KV, so that the cache is cold in each layer, as it is in a model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from treeshare.kernels.attention.tree_attention import tree_attention
from treeshare.kernels.launch import captured
from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.forest import Forest
from treeshare.kernels.planning.tree_plan import TreePlan

from .tables import Measurement
from .workloads import Workload

# Layers of one graph: enough that their KV is five times the cache of an H100.
MIN_KV_BYTES, MIN_LAYERS, MAX_LAYERS = 250e6, 4, 32


class Case:
    """A workload for one shape of attention: the tensors of all layers, and the exact first output.

    Args:
        workload: the forest.
        spec: the attention.
        device: where.
        seed: of the random tensors.

    Raises:
        ValueError: not even one layer fits in the device's memory.
    """

    def __init__(
        self, workload: Workload, spec: AttentionSpec, device: torch.device, seed: int
    ) -> None:
        self.forest, self.spec, self.device = workload.forest, spec, device
        num_slots, num_queries = int(self.forest.length.sum()), int(self.forest.num_queries.sum())
        kv_shape = (num_slots, spec.num_kv_heads, spec.head_dim)
        q_shape = (num_queries, spec.num_heads, spec.head_dim)
        layer_bytes = 2 * spec.dtype.itemsize * (math.prod(kv_shape) + math.prod(q_shape))
        self.note, self.layers = "", 1
        if device.type == "cuda":
            least = 2 * spec.dtype.itemsize * math.prod(kv_shape)
            wanted = min(max(math.ceil(MIN_KV_BYTES / least), MIN_LAYERS), MAX_LAYERS)
            torch.cuda.empty_cache()
            self.layers = min(wanted, int(0.7 * torch.cuda.mem_get_info()[0] / layer_bytes))
            if self.layers < 1:
                raise ValueError(f"a layer of {layer_bytes / 1e9:.1f} GB does not fit in memory")
            if self.layers < wanted:
                self.note = f"memory for {self.layers} of {wanted} layers"
        generator = torch.Generator(device).manual_seed(seed)

        def random(shape: tuple[int, ...]) -> list[torch.Tensor]:
            options: dict[str, Any] = {"dtype": spec.dtype, "device": device}
            return [torch.randn(shape, generator=generator, **options) for _ in range(self.layers)]

        self.q, self.k, self.v = random(q_shape), random(kv_shape), random(kv_shape)
        self.out = [torch.full_like(q, math.nan) for q in self.q]
        self.table = torch.arange(num_slots, dtype=torch.int32, device=device)
        self.scale = spec.head_dim**-0.5
        self.exact, same = dense_attention(
            self.forest, self.q[0], self.k[0], self.v[0], scale=self.scale
        )
        self.torch_error = self.error(same)

    def error(self, out: torch.Tensor) -> float:
        """The relative root mean square error of [B, HQ, DV], the first layer's output."""
        return float((out.float() - self.exact).norm() / self.exact.norm())

    def run(self, plan: TreePlan, layer: int) -> torch.Tensor:
        """Launch the attention of one layer; returns its output, [B, HQ, DV]."""
        tensors = self.q[layer], self.k[layer], self.v[layer]
        return tree_attention(*tensors, plan, scale=self.scale, out=self.out[layer])


def measure(case: Case, variant: str, repeats: int, row: Measurement) -> Measurement:
    """Check a variant on a workload and take its time.

    Args:
        case: the workload and its tensors.
        variant: a name of `variants.VARIANTS`.
        repeats: replays of the graph, of which the median counts.
        row: the measurement as far as the workload determines it.

    Returns:
        `row` with the variant's columns filled in; without times where the result is wrong or the
        device is a CPU.
    """
    row = replace(row, torch_error=case.torch_error, layers=case.layers, note=case.note)
    plan = TreePlan(case.forest, case.table, case.spec, variant)
    plan_ms = _plan_milliseconds(plan, case.forest) if case.device.type == "cuda" else None
    work = plan.work
    case.out[0].fill_(math.nan)
    first = case.run(plan, 0).clone()
    error = case.error(first)
    row = replace(
        row,
        ok=error <= 2 * case.torch_error + 1e-5,
        error=error if math.isfinite(error) else None,
        num_reads=work.num_reads,
        partial_rows=work.num_partials,
        items=len(work.items),
        counted_mb=_counted_bytes(case, plan) / 1e6,
    )
    if not row.ok:
        return replace(row, note=f"error {error:.2e} exceeds 2 x {case.torch_error:.2e} + 1e-5")
    if case.device.type != "cuda":
        return row
    case.out[0].fill_(math.nan)

    def run_layers() -> None:
        for layer in range(case.layers):
            case.run(plan, layer)

    seconds = _seconds(captured(run_layers, case.device), repeats)
    if not torch.equal(case.out[0], first):
        return replace(row, ok=False, note="the graph's output is not that of the single launch")
    return replace(row, us=1e6 * seconds / case.layers, plan_ms=plan_ms)


def dense_attention(
    forest: Forest, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of every query over its own path; the slot of an entry is its number.

    Args:
        forest: its shape.
        q: [B, HQ, D], node by node as the forest numbers them.
        k: [entries, HK, D].
        v: [entries, HK, D].
        scale: factor on the scores.

    Returns:
        [B, HQ, D], computed in fp32; and by PyTorch's attention in the dtype of `q`.
    """
    exact: list[torch.Tensor] = []
    same: list[torch.Tensor] = []
    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]  # cuDNN's would plan for every length
    with sdpa_kernel(backends):
        for node, count in enumerate(forest.num_queries):
            if not count:
                continue
            slots = torch.from_numpy(_path(forest, node)).to(q.device)
            b_k, b_v = k[slots].transpose(0, 1)[None], v[slots].transpose(0, 1)[None]
            wide_k, wide_v = b_k.float(), b_v.float()  # [1, HK, L, D]
            for later in range(count - 1, -1, -1):
                seen = len(slots) - (later if forest.length[node] else 0)
                b_q = q[len(exact)].view(1, k.shape[1], -1, q.shape[2])  # [1, HK, HQ / HK, D]
                scores = b_q.float() @ wide_k[:, :, :seen].transpose(2, 3) * scale
                exact.append((scores.softmax(-1) @ wide_v[:, :, :seen]).flatten(0, 2))
                seen_k, seen_v = b_k[:, :, :seen], b_v[:, :, :seen]
                output = scaled_dot_product_attention(b_q, seen_k, seen_v, scale=scale)
                same.append(output.flatten(0, 2))
    return torch.stack(exact), torch.stack(same)


def machine_rates(dtype: torch.dtype) -> tuple[float, float]:
    """Measure the GPU's bandwidth and its rate of matrix products.

    Args:
        dtype: of the matrices.

    Returns:
        Bytes a second, the larger of those of a copy and of a maximum over 2 GB; and floating point
        operations a second.
    """
    x = torch.empty(10**9, dtype=torch.float16, device="cuda").normal_()
    y = torch.empty_like(x)
    copied = 2 * x.nbytes / _seconds(lambda: y.copy_(x))
    read = x.nbytes / _seconds(lambda: torch.amax(x))
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    return max(copied, read), 2 * 8192**3 / _seconds(lambda: a @ b)


def _counted_bytes(case: Case, plan: TreePlan) -> int:
    """Bytes moved: reads·HK·(D + DV)·e + 2·partial rows·HQ·(DV·e + 4) + B·HQ·(D + DV)·e."""
    spec, size = case.spec, case.spec.dtype.itemsize
    both = (spec.head_dim + spec.dv) * size
    partial = 2 * plan.work.num_partials * spec.num_heads * (spec.dv * size + 4)
    entries = plan.work.num_reads * spec.num_kv_heads + plan.num_queries * spec.num_heads
    return entries * both + partial


def _path(forest: Forest, node: int) -> np.ndarray:
    """The entries from the root to the end of the node."""
    parts = []
    while node >= 0:
        parts.append(np.arange(forest.start[node], forest.start[node] + forest.length[node]))
        node = int(forest.parent[node])
    return np.concatenate(parts[::-1])


def _plan_milliseconds(plan: TreePlan, forest: Forest) -> float:
    """Median time on the host of planning a forest again."""
    times = []
    for _ in range(6):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        plan.update(forest)
        times.append(1e3 * (time.perf_counter() - begun))
    return median(times[1:])


def _seconds(run: Callable[[], object], repeats: int = 10) -> float:
    """Median seconds on the device, after three runs to warm up.

    Other data fills the cache before each run.
    """
    other = torch.ones(1 << 26, device="cuda")
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    times: list[float] = []
    for _ in range(3 + repeats):
        other.sum()
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(1e-3 * begin.elapsed_time(end))
    return median(times[3:])
