"""Python's garbage collector, kept from going over what lives on anyway.

A search makes hundreds of thousands of small objects that stay as long as it does, in a process
whose libraries hold as many before it begins. Knows nothing of either.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG = 10_000  # new objects that set off a collection; Python's own number is 700


@contextmanager
def rare_collections() -> Iterator[None]:
    """Meanwhile look for garbage only among objects that are new since, and less often."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_YOUNG, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
