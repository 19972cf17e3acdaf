"""A check of how exact an attention is, and memory that shows what was never written."""

from contextlib import contextmanager
from functools import reduce

import torch

from treeshare.kernels.attention.naive import tree_attention_reference
from treeshare.kernels.attention.tree_attention import tree_attention
from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.tree_plan import TreePlan
from treeshare.kernels.planning.work_list import Capacity

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # without CUDA the kernels are interpreted


@contextmanager
def poisoned():
    """Fill what is allocated meanwhile with NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def device_plan(tree, heads, variant="deft", width=16, dtype=torch.float32, **options):
    """A plan of a tree on the device; `heads` is (HQ, HK), `width` is D or (D, DV)."""
    head_dim, value_dim = (width, None) if isinstance(width, int) else width
    table = torch.from_numpy(tree.table).to(DEVICE)
    with poisoned():
        spec = AttentionSpec(*heads, head_dim, value_dim, dtype)
        return TreePlan(tree.forest, table, spec, variant, **options)


def capacity_of(*plans):
    """Room for any of the plans, and a little more."""
    return reduce(Capacity.union, (plan.capacity for plan in plans)).times(1.1)


def run_poisoned(q, k, v, plan, **options):
    with poisoned():
        return tree_attention(q, k, v, plan, **options)


def same_dtype_attention(
    q, k_pool, v_pool, paths, *, scale, sliding_window=None, softcap=None, sinks=None
):
    """Hugging Face's eager attention, a query at a time: all but the softmax in the dtype of q."""
    group = q.shape[1] // k_pool.shape[1]
    outputs = []
    for b_q, path in zip(q, paths, strict=True):
        seen = path if sliding_window is None else path[-sliding_window:]
        k = k_pool[seen].repeat_interleave(group, dim=1)
        v = v_pool[seen].repeat_interleave(group, dim=1)
        scores = torch.einsum("hd,lhd->hl", b_q, k) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if sinks is not None:
            scores = torch.cat([scores, sinks.to(scores)[:, None]], dim=1)
        weights = torch.softmax(scores, dim=1, dtype=torch.float32)[:, : len(seen)].to(q.dtype)
        outputs.append(torch.einsum("hl,lhd->hd", weights, v))
    return torch.stack(outputs)


def assert_accurate(actual, q, k, v, paths, **options):
    """At most twice the error of PyTorch in the same dtype, and an RMS error of at most 5e-3."""
    double = [tensor.double() for tensor in (q, k, v)]
    expected = tree_attention_reference(*double, paths, **options)
    usual = same_dtype_attention(q, k, v, paths, **options)
    assert actual.dtype == q.dtype and actual.shape == expected.shape
    error, bound = (actual - expected).abs().max(), (usual - expected).abs().max()
    assert error <= 2 * bound + 1e-5, f"error {error:.2e}, PyTorch's {bound:.2e}"
    rms = (actual - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert rms <= 5e-3, f"RMS error {rms:.2e}"
