"""Compute digests of the problems and files that a run's results depend on.

The configuration only names these: the task's problems, the files that the task reads, and the
model's files. A run stores their digests in meta.json. A resumed run compares them, so that rows of
a replaced file or model are never mixed with new ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from treeshare.tasks.task import Problem

Digests = dict[str, dict[str, str]]
"""Digests by what was read, such as `engine.model.name`, then by the file's name."""

_WHOLE = 16 * 2**20  # bytes; a larger file is sampled
_BLOCK, _NUM_BLOCKS = 4096, 256  # bytes; the first block has the header of safetensors
_MODEL_FILES = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".gguf"}
_EMBEDDED = Path(__file__).parents[2] / "llm_backend" / "embedded"


def digests_of(config: Mapping[str, Any], problems: Iterable[Problem]) -> Digests:
    """Compute the digests of a run.

    Args:
        config: the resolved configuration. The files named in its task, and the model directories
            named in its engine and reward model, are read. A model that is an id on the Hugging
            Face hub has no digest.
        problems: the task's problems.

    Raises:
        OSError: a file cannot be read.
    """
    found: Digests = {"problems": {"all": _of_problems(problems)}}
    for key, text in _texts(config.get("task"), "task"):
        if _is_file(text):
            found[key] = {Path(text).name: _of_file(Path(text))}
    for group in ("engine", "reward_model"):
        for key, text in _texts(config.get(group), group):
            if key.endswith(".name") and (directory := _model_directory(text)) is not None:
                found[key] = _of_directory(directory)
    return found


def difference(then: object, now: Digests) -> str | None:
    """Compare digests.

    Entries that only one side has are not compared: runs of earlier versions have no digests, and a
    finished run can be shown on a machine without its model.

    Args:
        then: the digests in meta.json, or any other JSON value.
        now: the digests of the present problems and files.

    Returns:
        A sentence that names the first change; None if there is none.
    """
    if not isinstance(then, dict):
        return None
    for key, files in now.items():
        before = then.get(key)
        if not isinstance(before, dict) or before == files:
            continue
        if key == "problems":
            return "the task's problems have changed"
        names = sorted(before.keys() | files.keys())
        name = next(name for name in names if before.get(name) != files.get(name))
        return f"{key}: the file {name} has changed"
    return None


def _texts(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """All text values of a configuration, each with its key."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from _texts(value, f"{key}.{name}")


def _is_file(text: str) -> bool:
    """Whether a text names a file. A single word is an option, such as `split=test`."""
    try:
        return ("." in text or os.sep in text) and os.path.isfile(text)
    except ValueError:  # a null character
        return False


def _model_directory(name: str) -> Path | None:
    if name == "embedded":
        return _EMBEDDED
    try:
        return Path(name) if os.path.isdir(name) else None
    except ValueError:
        return None


def _of_directory(directory: Path) -> dict[str, str]:
    files = (path for path in sorted(directory.iterdir()) if path.suffix in _MODEL_FILES)
    return {path.name: _of_file(path) for path in files if path.is_file()}


def _of_file(path: Path) -> str:
    """A digest of a file's size and bytes. Of a large file, blocks at equal distances are read."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for i in range(_NUM_BLOCKS):
                file.seek((size - _BLOCK) * i // (_NUM_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:32]


def _of_problems(problems: Iterable[Problem]) -> str:
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps([problem.id, _canonical(problem.data)]).encode() + b"\n")
    return digest.hexdigest()[:32]


def _canonical(value: Any) -> Any:
    """Convert a value to JSON data that are equal for equal values, in any process.

    An object without a representation of its contents is replaced by its class's name.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        items = [[_canonical(key), _canonical(item)] for key, item in value.items()]
        return {"map": sorted(items, key=repr)}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted((_canonical(item) for item in value), key=repr)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        data = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return [type(value).__qualname__, _canonical(data)]
    if callable(getattr(value, "tolist", None)):  # NumPy's arrays and numbers, PyTorch's tensors
        return _canonical(value.tolist())
    representation: Any = type(value).__repr__
    if representation is object.__repr__:
        return type(value).__qualname__
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
