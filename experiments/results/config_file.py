"""Read the config.yaml of a run in bounded time, even if it is hostile.

In YAML a few bytes can stand for billions of nodes (an alias of a list of aliases). The
configuration that a run writes has no aliases, so any alias is refused before anything is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

_MAX_BYTES = 256 * 1024  # a run writes one or two kilobytes
_MAX_DEPTH = 50  # nested collections

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where it is installed


def read_bounded(path: Path, most: int) -> bytes:
    """Read a file of at most `most` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, or longer; the message names it.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path} has more than {most:,} bytes")
    return data


def read_config(path: Path) -> dict[str, Any]:
    """Read a run's configuration as plain data.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a YAML mapping with text keys, or it is longer or nested deeper than
            the bounds above; the message names the file.
    """
    data = read_bounded(path, _MAX_BYTES)
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
    """Refuse aliases, deep nesting, and numbers too long for Python to print.

    Raises:
        ValueError: one of these occurs.
        yaml.YAMLError: it is not YAML.
    """
    depth = 0
    for event in yaml.parse(data, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has an alias, *{event.anchor}")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent):
            is_number = (event.implicit[0] or event.tag) and event.value[:1] in "+-.0123456789"
            if is_number and len(event.value) > 1000:
                raise ValueError("it has a number of more than 1,000 digits")
