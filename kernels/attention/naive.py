"""Attention one query at a time: the slow reference that every tree attention is tested against.

Scores each query against the slots of its own path, in fp32 or fp64. It shares no code with the
fast implementations, so that they do not share a mistake.
"""

from __future__ import annotations

import torch


def tree_attention_reference(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    paths: list[list[int]],
    *,
    scale: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of each query over the slots of its own path.

    Args:
        q: [N, HQ, D].
        k_pool: [num_slots, HK, D].
        v_pool: [num_slots, HK, DV].
        paths: for each query the slots it may see, in order of position, its own last.
        scale: factor on the scores.
        sliding_window: a query sees the last `sliding_window` slots of its path; None sees all.
        softcap: scores become softcap * tanh(scores / softcap).
        sinks: [HQ], a logit per head that joins the softmax and has no value.

    Returns:
        [N, HQ, DV] in fp32, or fp64 for fp64 input.
    """
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    group = q.shape[1] // k_pool.shape[1]
    outputs = []
    for row, path in enumerate(paths):
        seen = path if sliding_window is None else path[-sliding_window:]
        k = k_pool[seen].to(dtype).repeat_interleave(group, dim=1)  # [L, HQ, D]
        v = v_pool[seen].to(dtype).repeat_interleave(group, dim=1)  # [L, HQ, DV]
        scores = torch.einsum("hd,lhd->hl", q[row].to(dtype), k) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if sinks is not None:
            scores = torch.cat([scores, sinks.to(dtype)[:, None]], dim=1)
        weights = torch.softmax(scores, dim=1)[:, : len(seen)]
        outputs.append(torch.einsum("hl,lhd->hd", weights, v))
    return torch.stack(outputs)
