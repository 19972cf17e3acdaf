"""Reads and writes meta.json, in which a run keeps what it is.

It holds the run's identity, and digests of the files that its results depend on. It may come from
another machine, so its contents are not trusted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from .config_file import read_bounded, read_config

LAYOUT = 2
"""The layout of the directories that this version writes. That of version 0.1.0 is 1."""
GROUPS = ("task", "search", "expander", "evaluator", "budget", "engine", "reward_model")
"""The groups of a configuration that decide a run's results, together with the seed."""

_MAX_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class RunMeta:
    """What a run is."""

    task: str
    name: str  # the policy's, or the one that the user gave
    model: str  # short name
    identity: dict[str, Any]  # nested: what decides the results, by group, and the seed
    digests: dict[str, Any] = field(default_factory=dict)  # by the key of the file, then by file
    sources: dict[str, str] = field(default_factory=dict)  # the user's own files to their digests
    defaults: dict[str, Any] = field(default_factory=dict)  # by key; they are not in the identity
    layout: int = LAYOUT

    @property
    def run_id(self) -> str:
        """The name of the run's directory. The part before `-seed` is shared by all seeds."""
        counted = {key: value for key, value in self.identity.items() if key != "seed"}
        text = json.dumps(counted, sort_keys=True)
        return f"{sha256(text.encode()).hexdigest()[:10]}-seed{self.identity['seed']}"

    def check(self, then: RunMeta) -> None:
        """Refuse to go on with another run, or one whose code or defaults have changed.

        What only one side has is not compared.

        Args:
            then: what the run was when it began.

        Raises:
            ValueError: something has changed; the message says what, and what to do.
        """
        for group in GROUPS:  # equal by the directory's name, unless it was moved by hand
            if then.layout == LAYOUT and then.identity.get(group) != self.identity.get(group):
                raise ValueError(changed(group))
        for name, digest in self.sources.items():
            if name in then.sources and _is_another(then.sources[name], digest):
                raise ValueError(changed(name))
        for key, value in self.defaults.items():
            if then.defaults.get(key, value) != value:
                raise ValueError(changed(f"the default of {key}"))


def changed(what: str) -> str:
    """The line that refuses to go on with a run of which something has changed."""
    return (
        f"{what} has changed since this run began: overwrite=true starts it again, "
        "name=... keeps both"
    )


def read_meta(directory: Path) -> RunMeta:
    """Read what the run in a directory is.

    A run of version 0.1.0 has its names in the path and its identity in config.yaml, values equal
    to defaults included.

    Raises:
        OSError: a file cannot be read.
        ValueError: the directory holds no run, or a file of it has other contents than a run
            writes; the message names the file.
    """
    path = directory / "meta.json"
    about = read_about(path) if path.exists() else {}
    if "layout" not in about:
        return _of_first_layout(directory, about)
    if about["layout"] != LAYOUT:
        raise ValueError(f"{path} has layout={about['layout']!r}; this version reads {LAYOUT}")
    texts, mappings = ("task", "name", "model"), ("identity", "digests", "sources", "defaults")
    return RunMeta(
        **{name: _typed(about, name, str, path) for name in texts},
        **{name: _typed(about, name, dict, path) for name in mappings},
    )


def read_about(path: Path) -> dict[str, Any]:
    """Read meta.json as plain data.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no JSON object, or is longer than 4 MiB; the message names the file.
    """
    data = read_bounded(path, _MAX_BYTES)
    try:
        about = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(about, dict):
        raise ValueError(f"{path} holds no JSON object")
    return about


def _of_first_layout(directory: Path, about: Mapping[str, Any]) -> RunMeta:
    config = read_config(directory / "config.yaml")
    if "classifier" in config:  # the former name of the group
        config["reward_model"] = config["classifier"]
    names = directory.resolve().parts[-4:]
    if len(names) < 4:
        raise ValueError(f"{directory} is not in folders named by its task, policy and model")
    task, name, model, _ = names
    digests = about.get("digests")
    return RunMeta(
        task=task,
        name=name,
        model=model,
        identity={key: config[key] for key in (*GROUPS, "seed") if key in config},
        digests=digests if isinstance(digests, dict) else {},
        layout=1,
    )


def _is_another(then: object, now: str) -> bool:
    """Whether the digests of a source differ. Of a notebook's code they begin with a version."""
    version, has_version, _ = now.partition(" ")
    return then != now and (not has_version or str(then).startswith(f"{version} "))


def _typed(about: Mapping[str, Any], key: str, kind: type, path: Path) -> Any:
    value = about.get(key)
    if not isinstance(value, kind):
        raise ValueError(f"{path}: {key} is not of type {kind.__name__}")
    return value
