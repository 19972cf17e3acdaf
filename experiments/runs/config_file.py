"""Reads the config.yaml of a run, whoever wrote it, in bounded time.

YAML lets a few bytes stand for billions of nodes (an alias of a list of aliases). The configuration
that a run writes has none, so any alias is refused before anything is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

_MOST_BYTES = 256 * 1024  # a run's own has one or two kilobytes
_MOST_DEPTH = 50

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where it is installed


def read_config(path: Path) -> dict[str, Any]:
    """The configuration as plain data.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML mapping of names, or beyond the bounds above; names the file.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{path} has more than {_MOST_BYTES:,} bytes")
    try:
        _check(data)
        config = yaml.load(data, Loader=_Loader)
    except (yaml.YAMLError, ValueError, TypeError, KeyError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a run's configuration: {reason}") from None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise ValueError(f"{path} is not a run's configuration: no mapping of names")
    return config


def _check(data: bytes) -> None:
    """Refuse aliases, depth, and numbers so long that they cannot be written again.

    Raises:
        ValueError: there are some.
        yaml.YAMLError: it is not YAML.
    """
    depth = 0
    for event in yaml.parse(data, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has an alias, *{event.anchor}")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MOST_DEPTH:
                raise ValueError(f"it is nested more than {_MOST_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent):
            is_number = (event.implicit[0] or event.tag) and event.value[:1] in "+-.0123456789"
            if is_number and len(event.value) > 1000:
                raise ValueError("it has a number of more than 1,000 digits")
