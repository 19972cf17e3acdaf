"""Ends a piece of Python code that runs too long, such as a policy's `while True: pass`.

A timer's signal raises an exception in the code that runs. Python delivers signals to the main
thread, between two bytecodes: a search in another thread, or one call into C that never returns, is
not ended. Nothing is set while another interval timer runs (that of pytest-timeout, say).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .budget import OutOfBudget

GRACE = 1.0  # seconds that a step may always take, so that only code that is stuck is ended


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """Raise `OutOfBudget("seconds")` in the block once `seconds`, and at least `GRACE`, are over;
    again after every further `GRACE`, for code that catches it. Infinite seconds set no timer.

    The signal's handler is put back afterwards.
    """
    if not (seconds < threading.TIMEOUT_MAX and _can_be_set()):
        yield
        return

    is_on = True

    def bark(_signal: int, _frame: FrameType | None) -> None:
        if is_on:
            raise OutOfBudget("seconds")

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, GRACE), GRACE)
    try:
        yield
    finally:
        try:
            is_on = False
        finally:  # a signal may come before that line is done
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _can_be_set() -> bool:
    return (
        hasattr(signal, "setitimer")  # not on Windows
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) is not None  # None: set by C code, cannot be put back
        and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    )
