"""Kernels run on the GPU where there is one, and else in Triton's interpreter."""

import logging
import os

import pytest
import torch

torch.set_num_threads(1)  # two processes share two cores; two threads in each would wait and spin
HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel's module is imported


@pytest.fixture(autouse=True)
def logging_as_before():
    """Restores Python's logging, which a command configures for its process."""
    loggers = [logging.getLogger(name) for name in ("", "treeshare", "treeshare.experiments")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:] = handlers


@pytest.fixture(autouse=True)
def auto_is_the_cpu(request, monkeypatch):
    """Keeps `device=auto` on the CPU, whose results tests expect, unless a test needs the GPU."""
    if HAS_GPU and not request.node.get_closest_marker("gpu"):
        monkeypatch.setattr("treeshare.llm_backend.model.device.has_gpu", lambda: False)


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if not HAS_GPU and item.get_closest_marker("gpu"):
            item.add_marker(skip)
