"""Checks of the parameters of policies, expanders and evaluators."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import fields
from functools import cache
from numbers import Real
from typing import TYPE_CHECKING, Any, get_type_hints

from treeshare.llm_backend.api import MOST_NUMBER, whole_number

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_NUMBERS = {int: (int, False), int | None: (int, True), float: (float, False)}
"""By annotation of a field, the kind of number, and whether None is allowed."""


def check_numbers(part: DataclassInstance, **least: float) -> None:
    """Check all fields of a data class that are annotated as `int`, `int | None` or `float`.

    Args:
        part: an object of the data class.
        **least: the least values of fields, by name. Other fields have no bound.

    Raises:
        ValueError: a value is no whole number where the field is an `int`, no finite number where
            it is a `float`, None where that is not allowed, or below its bound. The message names
            field, value and bound.
    """
    for name, (kind, is_optional) in _numeric_fields(type(part)).items():
        value, bound = getattr(part, name), least.get(name)
        if value is None and is_optional:
            continue
        if kind is int:
            low = -MOST_NUMBER if bound is None else int(bound)
            whole_number(name, value, low, otherwise=", or null" if is_optional else "")
        elif isinstance(value, bool) or not isinstance(value, Real):
            raise ValueError(f"{name}={value!r} must be a number")
        elif not math.isfinite(value):
            raise ValueError(f"{name}={value!r} must be a finite number")
        elif bound is not None and value < bound:
            raise ValueError(f"{name}={value!r} must be at least {bound}")


@cache
def _numeric_fields(kind: Any) -> dict[str, tuple[type, bool]]:
    hints = get_type_hints(kind)
    numeric = (field.name for field in fields(kind) if hints[field.name] in _NUMBERS)
    return {name: _NUMBERS[hints[name]] for name in numeric}


def one_of(choices: Collection[str], **parameters: str) -> None:
    """Check that parameters are among `choices`.

    Args:
        choices: the allowed names.
        parameters: the values by name.

    Raises:
        ValueError: a value is not among them; the message names it.
    """
    for name, value in parameters.items():
        if value not in choices:
            raise ValueError(f"{name}={value!r} must be one of {', '.join(choices)}")
