"""Read and write the files of a run's directory.

Rows are appended as JSON lines, and each is synced to disk before the next. The one process that
may write holds locks, which the kernel releases if it is killed. docs/runs.md describes the files.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from io import FileIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from filelock import FileLock, Timeout, lock_descriptor
from omegaconf import OmegaConf

from .meta import RunMeta, read_meta
from .rows import FailedSearch, Row, Session

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


SettingType = TypeVar("SettingType", bound="DataclassInstance")
RowType = TypeVar("RowType", Row, FailedSearch, Session)


class JsonLines(Generic[RowType]):
    """An append-only file of rows, locked while it is open.

    Opening it removes an incomplete last line, which a killed process leaves.

    Args:
        path: the file; it is created if `writable`.
        row_type: makes a row from the keys of a line.
        writable: False only reads the rows, without a lock, and changes and creates nothing.

    Raises:
        BlockingIOError: another process uses it.
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
            if not lock_descriptor(self._file.fileno(), blocking=False):
                raise BlockingIOError(f"another process is at work in {path.parent}")
            self._file.seek(0)
            data = self._file.readall()
            if rest := len(data) - (data.rfind(b"\n") + 1):
                self._file.truncate(len(data) - rest)
            self.rows = _parse_rows(data, row_type, path)
        except BaseException:
            self.close()
            raise

    def append(self, row: RowType) -> None:
        """Write a row; it is on disk when this returns.

        If it cannot be written, the file is left as it was.

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
        """Remove all rows."""
        assert self._file is not None, "the file is open for reading alone"
        self._file.truncate(0)
        self.rows = []

    def close(self) -> None:
        """Close the file, which releases its lock."""
        if self._file is not None:
            self._file.close()


class RunDirectory:
    """The files of one run.

    Args:
        path: the run's directory; it must exist.
        writable: True locks the files, so that only one process writes. False only reads, which
            also works while another process runs and on a read-only file system.

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

    def describe(self, config: Mapping[str, Any], meta: RunMeta) -> None:
        """Write config.yaml and meta.json when the run begins; later calls change nothing."""
        if not (self.path / "meta.json").exists():
            began = datetime.now(UTC).isoformat(timespec="microseconds")
            about = {**asdict(meta), "began": began, **software()}
            write_atomically(self.path / "config.yaml", OmegaConf.to_yaml(config))
            write_atomically(self.path / "meta.json", json.dumps(about, indent=1) + "\n")

    def check(self, meta: RunMeta) -> None:
        """Refuse to go on with another run, or with one whose code has changed since it began.

        Args:
            meta: what the run is now.

        Raises:
            OSError: meta.json cannot be read.
            ValueError: it cannot be read as such, or something has changed; the message says what.
        """
        if (self.path / "meta.json").exists():
            meta.check(read_meta(self.path))

    def save_tree(self, problem_id: str, tree: str) -> None:
        """Write a search's graph, which is given as text."""
        path = self.tree_path(problem_id)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, tree)

    def tree_path(self, problem_id: str) -> Path:
        """The path of a puzzle's tree.

        The id is escaped so that each has its own file inside the folder; `/` becomes `+`. An id
        that is too long for a file name is cut, and its digest is added.
        """
        name = quote(problem_id, safe="", errors="surrogatepass").replace("%2F", "+")
        if len(name) > _LONGEST_NAME:
            digest = sha256(problem_id.encode(errors="surrogatepass")).hexdigest()
            name = f"{name[:100]}={digest[:32]}"  # `=` is in no escaped id
        return self.path / "trees" / f"{name}.json"

    def close(self) -> None:
        """Close all files, which releases their locks."""
        self._files.close()


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Keep other processes from writing to a directory, which need not exist, in the block.

    The lock is a hidden file next to the directory, so that the directory can be moved.

    Raises:
        BlockingIOError: another process is at work there.
        OSError: the lock cannot be made.
    """
    path = directory.with_name(f".{directory.name}.lock")
    for attempts_left in range(9, -1, -1):
        made = [folder for folder in path.parents if not folder.exists()]  # the deepest first
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(blocking=False)
            ours = path.stat()
            break
        except Timeout:
            raise BlockingIOError(f"another process is at work in {directory}") from None
        except FileNotFoundError:  # another process has just removed its empty folders
            if not attempts_left:
                raise
    try:
        yield
    finally:
        with suppress(OSError):  # such as: it was moved with the folder that it is in
            if os.path.samestat(path.stat(), ours):
                path.unlink()  # while it is held, so that it is no one else's
        lock.release()
        for folder in made:  # those that stay empty: the run could not begin
            with suppress(OSError):
                folder.rmdir()


def set_aside(directory: Path) -> None:
    """Rename a run's directory, if it exists, to the first free `<name>.earlier-<number>`.

    Raises:
        OSError: it cannot be renamed.
    """
    names = (f"{directory.name}.earlier-{number}" for number in count(1))
    free = next(path for name in names if not (path := directory.with_name(name)).exists())
    if directory.exists():
        directory.rename(free)


_LONGEST_NAME = 255 - len(".json.tmp")  # bytes, of a tree's file while it is written


def read_rows(path: Path, row_type: Callable[..., RowType]) -> list[RowType]:
    """Read the complete lines of a file that another process may extend; no lock is taken.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is not a row.
    """
    _refuse_special(path)
    return _parse_rows(path.read_bytes(), row_type, path)


def _refuse_special(path: Path) -> None:
    """Refuse a path that is not a regular file: reading a pipe could block without end.

    Raises:
        ValueError: it is not a regular file.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file")


def _naming(error: OSError, path: Path) -> OSError:
    """The error, with the file's name in its message."""
    if error.errno is None:
        return OSError(f"{path}: {error}")
    return OSError(error.errno, error.strerror, str(path))


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: a reader finds either all of `text` or the former contents.

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
    """Read the setting under which the rows of a benchmark's directory were measured.

    Args:
        path: the file that `write_setting` wrote.
        setting: this run's setting, a data class.
        measured: the names of fields that are measured; they may differ.

    Returns:
        The setting in the file; None if there is no file.

    Raises:
        ValueError: a field that is not measured differs.
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
    """Write a data class for `kept_setting` to read, and return it."""
    write_atomically(path, json.dumps(asdict(setting), indent=1) + "\n")
    return setting


def _parse_rows(data: bytes, row_type: Callable[..., RowType], path: Path) -> list[RowType]:
    """The rows of a file's complete lines."""
    *lines, _ = data.split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(row_type(**_renamed(json.loads(line))))
        except (ValueError, TypeError, RecursionError) as error:
            kind = getattr(row_type, "__name__", "row")
            raise ValueError(f"{path}:{number} is not a {kind}: {error}") from None
    return rows


def _renamed(fields: Any) -> dict[str, Any]:
    """The fields by their present names: version 0.1.0 wrote a row's requests as `calls`.

    Raises:
        TypeError: the line is not a JSON object.
    """
    if not isinstance(fields, dict):
        raise TypeError("it is not a JSON object")
    return {"requests" if name == "calls" else name: value for name, value in fields.items()}


def software() -> dict[str, Any]:
    """The versions of Python and of the packages in use, and the checkout's commit."""
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
