"""A run's directory: what is on disk after every puzzle, and where a run that broke off goes on.

Rows are appended as JSON lines and synced one at a time; a file's only writer holds a lock on it.
Hydra, wandb and the making of a row have no place here.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from hashlib import sha256
from importlib import metadata
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from omegaconf import OmegaConf

from .digests import Digests, difference
from .rows import FailedSearch, Row, Session

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


SettingType = TypeVar("SettingType", bound="DataclassInstance")
RowType = TypeVar("RowType", Row, FailedSearch, Session)


class JsonLines(Generic[RowType]):
    """An append-only file of rows, locked while it is open.

    Opening it cuts off a last line without an end, which is what a killed process leaves.

    Args:
        writable: false reads the rows alone, without a lock, and changes and creates nothing.

    Raises:
        BlockingIOError: another process has it open.
        OSError: it cannot be read or written; names the file.
        ValueError: a line is not a row.
    """

    def __init__(
        self, path: Path, row_type: Callable[..., RowType], *, writable: bool = True
    ) -> None:
        self.path = path
        self._file: FileIO | None = None
        if not writable:
            self.rows: list[RowType] = read_rows(path, row_type) if path.exists() else []
            return
        _refuse_special(path)
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.seek(0)
            data = self._file.readall()
            if rest := len(data) - (data.rfind(b"\n") + 1):
                self._file.truncate(len(data) - rest)
            self.rows = _parse_rows(data, row_type, path)
        except BlockingIOError:
            self.close()
            raise BlockingIOError(f"another process is at work in {path.parent}") from None
        except BaseException:
            self.close()
            raise

    def append(self, row: RowType) -> None:
        """Write a row; it is on disk when this returns. If it cannot be written, the file is left
        as it was.

        Raises:
            OSError: it cannot be written; names the file.
        """
        assert self._file is not None, "the file is open for reading alone"
        line = memoryview(json.dumps(asdict(row)).encode() + b"\n")
        end = self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise _naming(error, self.path) from error
        self.rows.append(row)

    def clear(self) -> None:
        assert self._file is not None, "the file is open for reading alone"
        self._file.truncate(0)
        self.rows = []

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class RunDirectory:
    """The files of one run. The directory must exist.

    Args:
        writable: true locks the files: one process at a time. False reads what is there, of a run
            under way or on a read-only file system too.

    Raises:
        BlockingIOError: another process has the run open.
        OSError: a file cannot be read or written.
        ValueError: a file holds a line that is not a row.
    """

    def __init__(self, path: Path, *, writable: bool = True) -> None:
        self.path = path
        with ExitStack() as files:

            def opened(name: str, row_type: Callable[..., RowType]) -> JsonLines[RowType]:
                lines = JsonLines(path / name, row_type, writable=writable)
                return files.enter_context(closing(lines))

            self.results = opened("results.jsonl", Row)
            self.failures = opened("failures.jsonl", FailedSearch)
            self.sessions = opened("sessions.jsonl", Session)
            self._files = files.pop_all()

    def describe(self, config: Mapping[str, Any], digests: Digests) -> None:
        """Write down what is run and with which software, as it was when the run began."""
        if not (self.path / "meta.json").exists():
            about = {**software(), "digests": digests}
            write_atomically(self.path / "config.yaml", OmegaConf.to_yaml(config))
            write_atomically(self.path / "meta.json", json.dumps(about, indent=1) + "\n")

    def check_digests(self, digests: Digests) -> None:
        """Refuse a task or a model that is not what it was when the run began.

        Raises:
            OSError: meta.json cannot be read.
            ValueError: it holds no JSON object, or something has changed; says what.
        """
        path = self.path / "meta.json"
        if not path.exists():
            return
        _refuse_special(path)
        try:
            about = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        if not isinstance(about, dict):
            raise ValueError(f"{path} holds no JSON object")
        if changed := difference(about.get("digests"), digests):
            raise ValueError(f"{changed} since {self.path} was begun; move the directory away")

    def save_tree(self, problem_id: str, tree: str) -> None:
        path = self.tree_path(problem_id)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, tree)

    def tree_path(self, problem_id: str) -> Path:
        """The id is escaped: no two share a file, none leaves the folder; `/` reads `+`. An id that
        is too long for a file's name is cut, and a digest of it added."""
        name = quote(problem_id, safe="", errors="surrogatepass").replace("%2F", "+")
        if len(name) > _LONGEST_NAME:
            digest = sha256(problem_id.encode(errors="surrogatepass")).hexdigest()
            name = f"{name[:100]}={digest[:32]}"  # `=` is in no escaped id
        return self.path / "trees" / f"{name}.json"

    def close(self) -> None:
        self._files.close()


_LONGEST_NAME = 255 - len(".json.tmp")  # bytes, of a tree's file while it is written


def read_rows(path: Path, row_type: Callable[..., RowType]) -> list[RowType]:
    """The finished lines of a file that may still grow; takes no lock.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is not a row.
    """
    _refuse_special(path)
    return _parse_rows(path.read_bytes(), row_type, path)


def _refuse_special(path: Path) -> None:
    """Refuse a directory, and a pipe, which would be waited for without end.

    Raises:
        ValueError: it is one.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file")


def _naming(error: OSError, path: Path) -> OSError:
    """The error, with the file's name in its message."""
    if error.errno is None:
        return OSError(f"{path}: {error}")
    return OSError(error.errno, error.strerror, str(path))


def write_atomically(path: Path, text: str) -> None:
    """Whoever reads `path` finds all of `text` or what was there before.

    Raises:
        OSError: it cannot be written; names the file.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _naming(error, path) from error
        raise


def kept_setting(path: Path, setting: SettingType, measured: Collection[str]) -> SettingType | None:
    """The setting under which a directory's rows were measured; None if there is no such file.

    Args:
        path: where `write_setting` put it.
        setting: a data class, of this run.
        measured: its fields that are found by measuring, and may differ.

    Raises:
        ValueError: another field differs.
    """
    if not path.exists():
        return None
    there = type(setting)(**json.loads(path.read_text()))
    for key, value in asdict(setting).items():
        if key not in measured and value != getattr(there, key):
            raise ValueError(
                f"{path}: the rows there have {key}={getattr(there, key)!r}, not {value!r}; "
                "take another output_dir"
            )
    return there


def write_setting(path: Path, setting: SettingType) -> SettingType:
    """Keep a data class for `kept_setting`; returns it."""
    write_atomically(path, json.dumps(asdict(setting), indent=1) + "\n")
    return setting


def _parse_rows(data: bytes, row_type: Callable[..., RowType], path: Path) -> list[RowType]:
    """The rows of a file's whole lines."""
    *lines, _ = data.split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(row_type(**json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            kind = getattr(row_type, "__name__", "row")
            raise ValueError(f"{path}:{number} is not a {kind}: {error}") from None
    return rows


def software() -> dict[str, Any]:
    """The versions of what runs, and the checkout's commit."""
    names = ("treeshare", "torch", "transformers", "triton", "hydra-core", "omegaconf", "wandb")
    installed = {name for name in names if list(metadata.distributions(name=name))}
    return {
        "packages": {name: metadata.version(name) for name in names if name in installed},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": _git_commit(Path(__file__).resolve().parents[2]),
    }


def _git_commit(root: Path) -> str | None:
    """The checkout's commit, marked if it has changes; None for an installed copy."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git here, or no commit yet
        return None
