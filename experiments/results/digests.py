"""Compute digests of values and of files.

A run is identified by digests of the files that its results depend on, and each row keeps the
digest of its puzzle's data.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

_LENGTH = 32  # of a digest, in hexadecimal digits
_WHOLE = 16 * 2**20  # bytes; a larger file is sampled
_BLOCK, _NUM_BLOCKS = 4096, 256  # bytes; the first block has the header of safetensors
_MODEL_FILES = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".gguf", ".py"}


def digest_of(value: Any) -> str:
    """Compute a digest of a value that is equal for equal values, in any process.

    An object without a representation of its contents counts by its class's name.
    """
    return sha256(json.dumps(_canonical(value)).encode()).hexdigest()[:_LENGTH]


def file_digest(path: Path) -> str:
    """Compute a digest of a file's size and bytes.

    Of a file of more than 16 MiB, 256 blocks at equal distances are read, 1 MiB in all.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    digest = sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for i in range(_NUM_BLOCKS):
                file.seek((size - _BLOCK) * i // (_NUM_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:_LENGTH]


def model_digests(path: Path) -> dict[str, str]:
    """Compute the digests of the files of a model, by name.

    Of a directory, these are weights, configuration, tokenizer and code.

    Raises:
        OSError: a file cannot be read.
    """
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in inside if file.suffix in _MODEL_FILES]
    return {file.name: file_digest(file) for file in files if file.is_file()}


def data_digests(path: Path) -> dict[str, str]:
    """Compute the digest of a file, or those of all files below a directory, by name.

    Raises:
        OSError: a file cannot be read.
    """
    if path.is_file():
        return {path.name: file_digest(path)}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file_digest(file) for file in files}


def _canonical(value: Any) -> Any:
    """Convert a value to JSON data that are equal for equal values, in any process."""
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
