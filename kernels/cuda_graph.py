"""Work that is launched as one CUDA graph; where there is no CUDA, the work itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_memory: dict[torch.device, Any] = {}  # that the graphs of a device work in


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
    if device not in _memory:
        _memory[device] = torch.cuda.graph_pool_handle()
    with torch.cuda.graph(graph, pool=_memory[device]):
        run()
    return graph.replay
