"""Describes the parts of a run as plain data, so that its directory can be found again.

A command's run is described by its hydra configuration. In Python the parts are objects: each is
described by its class and by the values of its constructor's parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

_MISSING = object()


def describe(part: object, where: str) -> dict[str, Any]:
    """Describe an object in the form of a hydra node: `_target_` and parameters.

    The value of a parameter is read from the attribute of that name, with or without a leading
    underscore. An object that keeps its arguments (`treeshare.tasks.arguments`) is described by
    those that were given.

    Args:
        part: a task, a policy, an expander, an evaluator, a verifier, a budget or an engine.
        where: names the part in errors, such as `policy`.

    Returns:
        Plain data that JSON and YAML can hold.

    Raises:
        ValueError: a parameter is not an attribute too, or has no plain description. Two different
            runs would then have the same directory.
    """
    kind = type(part)
    described: dict[str, Any] = {"_target_": f"{kind.__module__}.{kind.__qualname__}"}
    arguments = getattr(part, "arguments", None)
    if isinstance(arguments, Mapping):
        return described | {name: plain(arguments[name], f"{where}.{name}") for name in arguments}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(
                f"{where}: {kind.__name__}(*{name}) has no fixed parameters, which the "
                "directory of a run needs"
            )
        value = getattr(part, name, getattr(part, f"_{name}", _MISSING))
        if value is _MISSING:
            raise ValueError(
                f"{where}: {kind.__name__} does not keep its parameter {name!r}, which the "
                f"directory of a run needs: set self.{name} in the constructor"
            )
        described[name] = plain(value, f"{where}.{name}")
    return described


def plain(value: Any, where: str) -> Any:
    """Turn the value of a parameter into plain data; an object becomes its description.

    Raises:
        ValueError: it has no plain description.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted((plain(item, where) for item in value), key=repr)
    if callable(getattr(value, "tolist", None)):  # numbers and arrays of NumPy and PyTorch
        return plain(value.tolist(), where)
    for kind in (int, float, str):  # a member of an IntEnum, say
        if isinstance(value, kind):
            return kind(value)
    if inspect.isroutine(value) or inspect.isclass(value):
        name = f"{value.__module__}.{value.__qualname__}"
        # of a lambda, a function in another one and a method, the name says too little
        if "<" in name or inspect.ismethod(value):
            raise ValueError(f"{where}={name} must be a function of a module, with a name")
        return name
    return describe(value, where)
