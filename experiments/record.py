"""A run's directory: what is on disk after every puzzle, and where a run that broke off stood.

Rows are appended as JSON lines, flushed and synced one at a time; a file's only writer holds a lock
on it. Knows nothing of hydra, wandb or how a row came about.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar
from urllib.parse import quote

from omegaconf import OmegaConf

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Row:
    """One finished puzzle: a line of results.jsonl."""

    problem: str  # its id
    correct_top1: bool  # the first of the ranking is right
    correct_any: bool  # any of the answers is right (any-of-b)
    mean_accuracy: float  # share of the answers that are right, in [0, 1]; 0 without any
    num_answers: int  # nodes that hold an answer; the others count as wrong
    answers: list[str | None]  # of the first b nodes of the ranking, best first
    nodes: int  # of the graph, the root included
    calls: int  # requests
    rounds: int  # times the search waited for the model
    prompt_tokens: int
    completion_tokens: int
    unique_kv_tokens: int  # KV entries computed
    logical_kv_tokens: int  # KV entries if no sequence shared any
    parse_failures: int
    budget_hit: str | None  # the limit that ended the search
    seconds: float  # wall time from its start to its end, other searches' work included
    oracle: bool  # the evaluator knew the answers
    seed: int
    grades: dict[str, float] = field(default_factory=dict)  # of the first of the ranking


@dataclass(frozen=True, slots=True)
class FailedSearch:
    """One puzzle whose search raised an error: a line of failures.jsonl."""

    problem: str
    error: str  # the exception's type
    message: str  # its first line
    traceback: str


@dataclass(frozen=True, slots=True)
class Session:
    """Counters of one process so far: a line of sessions.jsonl for every puzzle that ends.

    The last line of a process counts; so nothing is lost when it is killed.
    """

    number: int  # of the process, from 1
    requests: int  # sent to the engine
    rounds: int  # times new requests went to the engine
    seconds: float  # wall time since the searches began
    engine: dict[str, float]  # llm_backend.api.EngineStats
    memo_hits: int = 0  # states whose value a memo knew


SettingType = TypeVar("SettingType", bound="DataclassInstance")
RowType = TypeVar("RowType", Row, FailedSearch, Session)


class JsonLines(Generic[RowType]):
    """An append-only file of rows, locked while it is open.

    Opening it cuts off a last line without an end, which is what a killed process leaves.

    Raises:
        BlockingIOError: another process has it open.
        ValueError: a line is not a row.
    """

    def __init__(self, path: Path, row_type: Callable[..., RowType]) -> None:
        self._file: BinaryIO = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.seek(0)
            *lines, rest = self._file.read().split(b"\n")
            if rest:
                self._file.truncate(self._file.tell() - len(rest))
            self.rows: list[RowType] = [
                _read_row(line, row_type, f"{path}:{number}")
                for number, line in enumerate(lines, start=1)
            ]
        except BlockingIOError:
            self._file.close()
            raise BlockingIOError(f"another process is at work in {path.parent}") from None
        except ValueError:
            self._file.close()
            raise

    def append(self, row: RowType) -> None:
        self._file.write(json.dumps(asdict(row)).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows.append(row)

    def clear(self) -> None:
        self._file.truncate(0)
        self.rows = []

    def close(self) -> None:
        self._file.close()


class RunDirectory:
    """The files of one run. The directory must exist; one process at a time.

    Raises:
        BlockingIOError: another process has the run open.
        ValueError: a file holds a line that is not a row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with ExitStack() as files:
            self.results = files.enter_context(closing(JsonLines(path / "results.jsonl", Row)))
            self.failures = files.enter_context(
                closing(JsonLines(path / "failures.jsonl", FailedSearch))
            )
            self.sessions = files.enter_context(
                closing(JsonLines(path / "sessions.jsonl", Session))
            )
            self._files = files.pop_all()

    def describe(self, config: Mapping[str, Any]) -> None:
        """Write down what is run and with which software, as it was when the run began."""
        if not (self.path / "meta.json").exists():
            write_atomically(self.path / "config.yaml", OmegaConf.to_yaml(config))
            write_atomically(self.path / "meta.json", json.dumps(software(), indent=1) + "\n")

    def save_tree(self, problem_id: str, tree: str) -> None:
        path = self.tree_path(problem_id)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, tree)

    def tree_path(self, problem_id: str) -> Path:
        """The id is escaped: no two share a file, none leaves the folder; `/` reads `+`."""
        name = quote(problem_id, safe="").replace("%2F", "+")
        return self.path / "trees" / f"{name}.json"

    def close(self) -> None:
        self._files.close()


def read_rows(path: Path, row_type: Callable[..., RowType]) -> list[RowType]:
    """The finished lines of a file that may still grow; takes no lock.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is not a row.
    """
    *lines, _ = path.read_bytes().split(b"\n")
    return [
        _read_row(line, row_type, f"{path}:{number}") for number, line in enumerate(lines, start=1)
    ]


def write_atomically(path: Path, text: str) -> None:
    """Whoever reads `path` finds all of `text` or what was there before."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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


def _read_row(line: bytes, row_type: Callable[..., RowType], where: str) -> RowType:
    try:
        return row_type(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} is not a {row_type.__name__}: {error}") from None


def software() -> dict[str, Any]:
    """The versions of what runs, and the checkout's commit."""
    names = ("treeshare", "torch", "transformers", "triton", "hydra-core", "omegaconf", "wandb")
    installed = {name for name in names if list(metadata.distributions(name=name))}
    return {
        "packages": {name: metadata.version(name) for name in names if name in installed},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": _git_commit(Path(__file__).resolve().parents[1]),
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
