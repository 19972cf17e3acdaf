"""Choose how PyTorch's CPU threads wait for each other: spinning briefly, or sleeping.

By default GNU OpenMP spins for milliseconds. That is fast on an idle machine. If another process is
busy, a step takes up to twenty times as long, because the thread that the others wait for gets no
core.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from statistics import median

_SAMPLES, _PAUSE = 5, 0.01  # counts of running threads; seconds between them
_SPINS = 1000  # tens of microseconds, longer than most waits in a step of a small model


def set_wait_policy(
    environment: MutableMapping[str, str] = os.environ,
    busy_cores: Callable[[], float] | None = None,
) -> None:
    """Choose by the load of the machine, unless the user's environment already sets a policy.

    This must be called before PyTorch is imported, because OpenMP reads the choice only then.

    Args:
        environment: gets OMP_WAIT_POLICY and GOMP_SPINCOUNT.
        busy_cores: counts the cores that other processes use at present; by default it reads
            /proc/stat.
    """
    if "OMP_WAIT_POLICY" in environment or "GOMP_SPINCOUNT" in environment:
        return
    environment["OMP_WAIT_POLICY"] = "passive"
    is_quiet = (busy_cores or count_busy_cores)() < 0.5
    environment["GOMP_SPINCOUNT"] = str(_SPINS if is_quiet else 0)


def count_busy_cores() -> float:
    """The number of running threads of other processes.

    Where the system does not count them, it is the load average of the last minute.
    """
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
