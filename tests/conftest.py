"""Kernels run on the GPU where there is one, and else in Triton's interpreter."""

import os

import pytest
import torch

torch.set_num_threads(1)  # two processes share two cores; two threads in each would wait and spin
HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel's module is imported


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if not HAS_GPU and item.get_closest_marker("gpu"):
            item.add_marker(skip)
