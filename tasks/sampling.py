"""How a task's replies are sampled: its defaults by role, with the user's fields in their place.

Knows no task and no engine; the fields are those of `llm_backend.api.Sampling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RoleSampling = Mapping[str, Mapping[str, Any]]


def merged(defaults: RoleSampling, overrides: RoleSampling | None) -> dict[str, dict[str, Any]]:
    """The defaults with the fields of `overrides` in place of their own.

    Raises:
        ValueError: `overrides` names a role that generates nothing.
    """
    given = overrides or {}
    for role in given:
        if role not in defaults:
            raise ValueError(f"sampling: role {role!r} must be one of {', '.join(defaults)}")
    return {role: {**fields, **given.get(role, {})} for role, fields in defaults.items()}
