"""Checks of parameters: what is refused, and with which line."""

import dataclasses
import typing
from typing import ClassVar

import numpy as np
import pytest

from treeshare import search
from treeshare.search.bounds import check_numbers, one_of
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


@dataclasses.dataclass
class Part:
    """A part with numbers of every kind, and other parameters."""

    breadth: int = 5
    depth: int | None = None
    weight: float = 1.0
    threshold: float = 0.0
    mode: str = "sample"

    few: ClassVar[int] = 4

    def __post_init__(self):
        check_numbers(self, breadth=1, depth=1, weight=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(
            ({"breadth": value}, "must be a whole number")
            for value in (2.5, 2.0, "2", float("nan"), True, [2], 2j, None)
        ),
        ({"breadth": 0}, "breadth=0 must be at least 1"),
        ({"depth": 2.5}, "depth=2.5 must be a whole number, or null"),
        ({"depth": -1}, "depth=-1 must be at least 1, or null"),
        *(({"weight": value}, "must be a number") for value in ("much", True, None, [1.0])),
        ({"weight": float("nan")}, "weight=nan must be a finite number"),
        ({"weight": float("1e400")}, "weight=inf must be a finite number"),
        ({"weight": -0.5}, "weight=-0.5 must be at least 0"),
        ({"threshold": "low"}, "threshold='low' must be a number"),
    ],
    ids=str,
)
def test_numbers_are_checked_by_type_and_bound(given, message):
    with pytest.raises(ValueError, match=message) as error:
        Part(**given)
    assert str(error.value).startswith("".join(given))


def test_numbers_within_their_bounds_pass():
    Part(breadth=1, depth=np.int64(3), weight=np.float32(0.5), threshold=-7, mode=None)
    Part(depth=None, weight=0)


def test_names_are_among_the_choices():
    one_of(("a", "b"), rule="b")
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
