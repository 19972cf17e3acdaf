"""A task keeps the arguments that it was made of."""

import inspect

import pytest

from treeshare.tasks import Game24
from treeshare.tasks.arguments import keeps_arguments


@keeps_arguments
class Made:
    """Made of arguments."""

    def __init__(self, first, *, second=2, third=None):
        if first < 0:
            raise ValueError("first")
        self.values = first, second, third


class Same(Made):
    pass


class Other(Made):
    def __init__(self, size):
        super().__init__(size)


def test_the_arguments_that_were_given_are_kept():
    assert Made(1).arguments == {"first": 1}
    assert Same(first=1, third=3).arguments == {"first": 1, "third": 3}
    assert Made(1, second=5).values == (1, 5, None)


def test_a_subclass_with_a_constructor_of_its_own_keeps_none():
    assert not hasattr(Other(1), "arguments")


def test_the_constructor_looks_and_fails_as_before():
    assert list(inspect.signature(Made).parameters) == ["first", "second", "third"]
    with pytest.raises(ValueError, match="first"):
        Made(-1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'first'"):
        Made()


def test_tasks_keep_theirs():
    assert Game24(limit=2).arguments == {"limit": 2}
