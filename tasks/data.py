"""The rows of a data set: a file, a data set of the Hugging Face hub, or one saved by `datasets`.

A path is

- a file of JSON lines, or of one JSON list (`.json`), or a `.parquet` file;
- `hf://<data set>/<config>/<split>`, such as `hf://openai/gsm8k/main/test`;
- a directory that `Dataset.save_to_disk` made; of a saved `DatasetDict`, the directory of a split.

The hub, saved directories and `.parquet` need the extra `datasets`.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

HUB = "hf://"
"""What the path of a data set of the Hugging Face hub begins with."""

_EXAMPLES = "hf://openai/gsm8k/main/test or hf://HuggingFaceH4/MATH-500/default/test"


class Field(NamedTuple):
    """The value of one field of a row.

    Attributes:
        where: names the row in errors, such as `test.jsonl:7`.
        text: the value as text.
    """

    where: str
    text: str


def read_fields(path: str, name: str) -> list[Field]:
    """Read one field of every row.

    The rows of the last few paths are kept, so that a task and its verifier read a file, or load a
    data set, once.

    Args:
        path: where the rows are (see above).
        name: the field, which holds a text or a number.

    Returns:
        The fields in the order of the rows. Of a number in JSON it is the text in the file, so
        `1e-07` stays exact; of a class of `datasets` it is the class's name.

    Raises:
        ImportError: the path needs the extra `datasets`.
        OSError: the rows cannot be read or loaded.
        ValueError: a row lacks the field or has an empty one, or there is no row.
    """
    fields = [
        Field(where, _checked(value, name, where))
        for where, value in _column(_load(path, _version(path)), path, name)
    ]
    if not fields:
        raise ValueError(f"{path}: no problems; at least one line is needed")
    return fields


def _version(path: str) -> tuple[int, int] | None:
    """Return what changes when a file is replaced; None if there is none."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4)
def _load(path: str, version: tuple[int, int] | None) -> Any:
    """Return a list of rows in JSON, each with its place, or a `datasets.Dataset`."""
    if path.startswith(HUB):
        return _from_hub(path)
    if version is None:
        raise FileNotFoundError(
            f"there is no file {path!r}; data sets of the Hugging Face hub are named as {_EXAMPLES}"
        )
    if Path(path).is_dir():
        return _from_directory(path)
    if path.endswith(".parquet"):
        with _explained(path) as datasets:
            return datasets.Dataset.from_parquet(path)
    return _from_json(path)


def _column(rows: Any, path: str, name: str) -> Iterable[tuple[str, Any]]:
    """Yield the place and the value of a field in every row."""
    if isinstance(rows, list):
        for where, row in rows:
            yield where, row.get(name) if isinstance(row, dict) else None
        return
    if name not in rows.column_names:
        raise ValueError(f"{path}: no field {name!r} among {', '.join(rows.column_names)}")
    to_name = getattr(rows.features[name], "int2str", None)  # of a ClassLabel
    for number, value in enumerate(rows[name]):
        yield f"{path}, row {number}", to_name(value) if to_name and value is not None else value


def _checked(value: Any, name: str, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: no text or number in a field {name!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: the field {name!r} is {value}, which is no number")
    text = str(value)
    if not text.strip():
        raise ValueError(f"{where}: the field {name!r} is empty")
    return text


def _from_json(path: str) -> list[tuple[str, Any]]:
    """Read a file of JSON lines, or a `.json` file with one list."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a file in UTF-8: {error}") from error
    if path.endswith(".json") and text.lstrip().startswith("["):
        return [(f"{path}, row {i}", row) for i, row in enumerate(_parsed(text, path))]
    lines = ((f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), start=1))
    return [(where, _parsed(line, where)) for where, line in lines if line.strip()]


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_float=str, parse_int=str, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {error}") from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _from_hub(path: str) -> Any:
    parts = path.removeprefix(HUB).split("/")
    if len(parts) not in (3, 4) or not all(parts):
        raise ValueError(f"{path} is not hf://<data set>/<config>/<split>, such as {_EXAMPLES}")
    *name, config, split = parts
    with _explained(path) as datasets:
        return datasets.load_dataset("/".join(name), config, split=split)


def _from_directory(path: str) -> Any:
    with _explained(path) as datasets:
        rows = datasets.load_from_disk(path)
    if isinstance(rows, datasets.DatasetDict):
        splits = ", ".join(str(Path(path, split)) for split in rows)
        raise ValueError(f"{path} holds several splits; name one of {splits}")
    return rows


@contextmanager
def _explained(path: str) -> Iterator[Any]:
    """Yield the package `datasets`, and turn whatever it raises into an OSError of one line.

    The hub's client logs each of its retries. They are silenced, because the error says enough.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f'{path} needs `pip install "treeshare[datasets]"`') from error
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield datasets
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, ConnectionError):
            message += "; without internet, give a file of JSON lines in place of this path"
        raise OSError(f"{path}: {message}") from error
    finally:
        client.setLevel(level)
