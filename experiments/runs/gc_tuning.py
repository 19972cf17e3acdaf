"""Freeze and slow Python's garbage collector during a search.

A search makes hundreds of thousands of small objects that live until it ends, and the imported
libraries hold as many. The collector would visit all of them again and again without freeing any.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG = 10_000  # new objects that start a collection; Python's default is 700


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect garbage less often inside, and only among objects made inside."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_YOUNG, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
