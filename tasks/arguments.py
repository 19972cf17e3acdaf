"""Makes the tasks of a class keep what they were made of, so that a run can be described by it."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import Any, TypeVar

Kind = TypeVar("Kind", bound=type)


def keeps_arguments(kind: Kind) -> Kind:
    """Make each object of a class keep the arguments of its constructor, as `arguments`.

    Use it as a decorator. The attribute maps the names of parameters to the values that were given.
    A subclass with a constructor of its own does not have it, unless it is decorated too.
    """
    make: Any = kind.__init__  # type: ignore[misc]
    signature = inspect.signature(make)

    @wraps(make)
    def make_and_keep(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        if type(self).__init__ is make_and_keep:
            _, *given = signature.bind(self, *args, **kwargs).arguments.items()
            self.arguments = dict(given)

    kind.__init__ = make_and_keep  # type: ignore[misc]
    return kind
