"""The garbage collector is slowed during a search and works as before after it."""

import gc
import weakref

import pytest

from treeshare.experiments.runs.gc_tuning import rare_collections


class Cycle:
    def __init__(self):
        self.itself = self


def test_what_was_there_is_not_looked_at_meanwhile():
    thresholds, old = gc.get_threshold(), Cycle()
    is_gone = weakref.ref(old)
    with pytest.raises(KeyError), rare_collections():
        assert gc.get_threshold() > thresholds
        del old
        new = weakref.ref(Cycle())
        gc.collect()
        assert new() is None and is_gone() is not None
        raise KeyError
    assert gc.get_threshold() == thresholds and gc.get_freeze_count() == 0
    gc.collect()
    assert is_gone() is None
