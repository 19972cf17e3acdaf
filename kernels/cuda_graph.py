"""Work that is launched as one CUDA graph; where there is no CUDA, the work itself."""

from __future__ import annotations

from collections.abc import Callable

import torch


def captured(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What launches all that `run` does on the device.

    On CUDA `run` is run once for real before it is captured, on the side, so that nothing is
    compiled or made while capturing.
    """
    if device.type != "cuda":
        return run
    current, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        run()
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
