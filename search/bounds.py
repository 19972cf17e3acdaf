"""Checks of the parameters of policies, expanders and evaluators."""

from __future__ import annotations

from collections.abc import Collection


def at_least(bound: float, **parameters: float | None) -> None:
    """Check that parameters are at least `bound`. None passes: it means no limit.

    Args:
        bound: the least value.
        parameters: the values by name.

    Raises:
        ValueError: a value is below `bound`, NaN, or not a number; the message names it.
    """
    for name, value in parameters.items():
        if value is not None and not (isinstance(value, int | float) and value >= bound):
            raise ValueError(f"{name}={value!r} must be at least {bound}")


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
