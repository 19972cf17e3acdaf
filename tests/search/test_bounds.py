"""Checks of parameters: what is refused, and with which line."""

import dataclasses
import typing

import numpy as np
import pytest

from treeshare import search
from treeshare.search.bounds import at_least, one_of, whole_at_least
from treeshare.search.policies.catalog import describe

PARTS = [getattr(search, name) for name in search.__all__]
COUNTS = [
    (part, field.name)
    for part in PARTS
    if dataclasses.is_dataclass(part) and hasattr(part, "asks")
    for field in dataclasses.fields(part)
    if field.init
    and str(typing.get_type_hints(part)[field.name]) in ("<class 'int'>", "int | None")
]


@pytest.mark.parametrize("value", [2.5, 2.0, "2", float("nan"), True, [2], 2j], ids=repr)
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match=r"breadth=.* must be a whole number"):
        whole_at_least(1, breadth=value)


def test_bounds_hold():
    whole_at_least(1, breadth=1, depth=None, width=np.int64(3))
    at_least(0, weight=0.5)
    one_of(("a", "b"), rule="b")
    with pytest.raises(ValueError, match="breadth=0 must be at least 1"):
        whole_at_least(1, breadth=0)
    with pytest.raises(ValueError, match="weight='much' must be a number"):
        at_least(0, weight="much")
    with pytest.raises(ValueError, match="weight=nan must be at least 0"):
        at_least(0, weight=float("nan"))
    with pytest.raises(ValueError, match="rule='c' must be one of a, b"):
        one_of(("a", "b"), rule="c")


def test_parts_have_counts():
    assert len(COUNTS) > 40 and len(describe()) > 20


@pytest.mark.parametrize(("part", "name"), COUNTS, ids=lambda one: getattr(one, "__name__", one))
def test_a_count_that_is_no_whole_number_is_refused_by_every_part(part, name):
    """In the constructor, not in the middle of a search."""
    others = {"algorithm": None} if part is search.AskTell else {}
    for value in (2.5, "abc"):
        with pytest.raises(ValueError, match=rf"{name}={value!r} must be a whole number"):
            part(**others, **{name: value})
