"""Two ways to launch work sooner: as one CUDA graph, and before the preceding kernel has ended."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

_keepers: dict[torch.device, Any] = {}


def captured(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Capture all that `run` launches on the device as one CUDA graph; without CUDA it is `run`.

    `run` is called once before it is captured, on a stream of its own, so that nothing is compiled
    or allocated while capturing. All graphs of a device share the memory that they work in: launch
    them one after the other, and read what one leaves there before the next. What `run` changes for
    good must lie in memory that was allocated before.

    Args:
        run: launches device work on the current stream, without waiting for it.
        device: where.

    Returns:
        A function that launches the graph.
    """
    if device.type != "cuda":
        return run
    current, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        run()
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_memory_pool(device)):
        run()
    return graph.replay


def pdl(tensor: torch.Tensor) -> dict[str, bool]:
    """Keyword arguments that launch a kernel early, where the tensor's GPU can.

    By programmatic dependent launch (PDL), which Hopper GPUs and later ones have, a kernel starts
    before the preceding one has ended. It must call `gdc_wait` if its argument `PDL` is true, and
    before that call it may read only what the preceding kernel does not write.

    Args:
        tensor: on the device where the kernel runs.
    """
    if not tensor.is_cuda or not _can_launch_early(tensor.device):
        return {"PDL": False}
    return {"PDL": True, "launch_pdl": True}


@lru_cache
def _can_launch_early(device: torch.device) -> bool:
    return torch.cuda.get_device_properties(device).major >= 9


def _memory_pool(device: torch.device) -> Any:
    """The memory pool shared by all graphs of a device.

    A tiny graph is kept alive so that the pool outlives the graphs that use it.
    """
    if device not in _keepers:
        _keepers[device] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(_keepers[device]):
            torch.zeros(1, device=device)
    return _keepers[device].pool()
