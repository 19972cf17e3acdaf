"""Kernels that are launched before the one ahead of them ends, and wait there (programmatic
dependent launch), on the GPUs that can."""

from __future__ import annotations

import torch


def early(tensor: torch.Tensor) -> dict[str, bool]:
    """Options of a kernel that calls `gdc_wait` if its `PDL` is true, launched on that device."""
    if not tensor.is_cuda or torch.cuda.get_device_properties(tensor.device).major < 9:
        return {"PDL": False}
    return {"PDL": True, "launch_pdl": True}
