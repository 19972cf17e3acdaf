"""Checks of hyper-parameters, shared by the policies, expanders and evaluators."""

from __future__ import annotations

from collections.abc import Collection


def at_least(bound: float, **parameters: float | None) -> None:
    """Check parameters by name; None is no limit.

    Raises:
        ValueError: one is below `bound`, or no number.
    """
    for name, value in parameters.items():
        if value is not None and not (isinstance(value, int | float) and value >= bound):
            raise ValueError(f"{name}={value!r} must be at least {bound}")


def one_of(choices: Collection[str], **parameters: str) -> None:
    """Check parameters by name.

    Raises:
        ValueError: one is not among `choices`.
    """
    for name, value in parameters.items():
        if value not in choices:
            raise ValueError(f"{name}={value!r} must be one of {', '.join(choices)}")
