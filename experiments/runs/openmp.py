"""How PyTorch's CPU threads wait for one another: with a short spin, or asleep on a busy machine.

By default GNU's OpenMP spins for milliseconds. That is fast alone, but beside another busy process
a step takes up to twenty times as long, since the thread that is waited for has no core.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from statistics import median

_SAMPLES, _PAUSE = 5, 0.01  # of the number of running threads, seconds apart
_SPINS = 1000  # tens of microseconds: most waits of a small model's step end within it


def set_wait_policy(
    environment: MutableMapping[str, str] = os.environ,
    busy_cores: Callable[[], float] | None = None,
) -> None:
    """Choose by the load of the machine, where the user's environment does not say. It has to be
    called before PyTorch is imported, which reads the choice.

    Args:
        environment: where OMP_WAIT_POLICY and GOMP_SPINCOUNT are set.
        busy_cores: counts the cores that other processes keep busy now.
    """
    if "OMP_WAIT_POLICY" in environment or "GOMP_SPINCOUNT" in environment:
        return
    environment["OMP_WAIT_POLICY"] = "passive"
    is_quiet = (busy_cores or _busy_cores)() < 0.5
    environment["GOMP_SPINCOUNT"] = str(_SPINS if is_quiet else 0)


def _busy_cores() -> float:
    """The number of running threads of other processes; the last minute's load where the system
    does not count them."""
    counts = []
    try:
        for _ in range(_SAMPLES):
            lines = Path("/proc/stat").read_text().splitlines()
            (running,) = (line.split()[1] for line in lines if line.startswith("procs_running"))
            counts.append(int(running) - 1)  # without this thread
            time.sleep(_PAUSE)
    except (OSError, ValueError):
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 1.0
    return median(counts)
