"""Work that is launched as one CUDA graph; where there is no CUDA, the work itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_keepers: dict[torch.device, Any] = {}


def captured(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What launches all that `run` does on the device.

    On CUDA `run` is run once for real before it is captured, on the side, so that nothing is
    compiled or made while capturing. All graphs of a device share the memory that they work in, so
    they must be launched one after the other, and what one leaves there, if anything, be read
    before the next. What `run` changes for good must lie in memory made before.
    """
    if device.type != "cuda":
        return run
    current, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        run()
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_memory(device)):
        run()
    return graph.replay


def _memory(device: torch.device) -> Any:
    """What all graphs of a device work in. It would be given back with the last of them, and could
    then not be had again, so one that does next to nothing stays."""
    if device not in _keepers:
        _keepers[device] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(_keepers[device]):
            torch.zeros(1, device=device)
    return _keepers[device].pool()
