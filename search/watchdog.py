"""Ends a piece of Python code that runs too long, such as a policy's `while True: pass`.

The signal of a timer raises an exception in the running code. Python delivers signals to the main
thread, between two bytecodes, so a search in another thread, or one call into C code that never
returns, is not ended. No timer is set while another interval timer runs (such as that of
pytest-timeout).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .budget import OutOfBudget

GRACE = 1.0  # seconds that every step may take, so that only code that is stuck is ended


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """Raise `OutOfBudget("seconds")` in the block when it runs too long.

    It is raised again after every further `GRACE`, because the code may catch it. The handler of
    the signal is restored afterwards.

    Args:
        seconds: when to raise; never before `GRACE` is over. Infinity sets no timer.
    """
    if not (seconds < threading.TIMEOUT_MAX and _can_be_set()):
        yield
        return

    is_on = True

    def on_alarm(_signal: int, _frame: FrameType | None) -> None:
        if is_on:
            raise OutOfBudget("seconds")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, GRACE), GRACE)
    try:
        yield
    finally:
        try:
            is_on = False
        finally:  # the alarm may come while that line runs
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _can_be_set() -> bool:
    return (
        hasattr(signal, "setitimer")  # not on Windows
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) is not None  # None: set by C code, cannot be restored
        and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    )
