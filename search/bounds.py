"""Checks of the parameters of policies, expanders and evaluators."""

from __future__ import annotations

from collections.abc import Collection

from treeshare.llm_backend.api import whole_number


def at_least(bound: float, **parameters: float | None) -> None:
    """Check that parameters are at least `bound`. None passes: it means no limit.

    Args:
        bound: the least value.
        parameters: the values by name.

    Raises:
        ValueError: a value is below `bound`, NaN, or not a number; the message names it.
    """
    for name, value in parameters.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name}={value!r} must be a number")
        if not value >= bound:  # NaN is below every bound
            raise ValueError(f"{name}={value!r} must be at least {bound}")


def whole_at_least(bound: int, **parameters: int | None) -> None:
    """Check that parameters are whole numbers of at least `bound`. None passes: it means no limit.

    Args:
        bound: the least value.
        parameters: the values by name.

    Raises:
        ValueError: a value is no whole number, or below `bound`; the message names it.
    """
    for name, value in parameters.items():
        if value is not None:
            whole_number(name, value, bound)


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
