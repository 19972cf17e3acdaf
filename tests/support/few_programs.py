"""Smaller plans for Triton's interpreter."""

from dataclasses import replace

import torch

from treeshare.kernels.planning import tree_plan


def few_idle_programs(monkeypatch):
    """Make plans as for a GPU of two multiprocessors where there is no GPU.

    The interpreter takes a millisecond for a program that ends as it begins.
    """
    if torch.cuda.is_available():
        return
    real = tree_plan.estimate_capacity

    def estimate_capacity(queries, entries, spec, gpu, rows):
        return real(queries, entries, spec, replace(gpu, num_sms=2), rows)

    monkeypatch.setattr(tree_plan, "estimate_capacity", estimate_capacity)
