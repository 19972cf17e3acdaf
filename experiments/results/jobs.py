"""The records of a command's jobs, of which some may run in other processes.

Hydra's launchers run the jobs of a multirun in the command's process (basic), in processes of the
same machine (joblib, submitit_local) or on other machines (submitit_slurm). A job elsewhere writes
its record into a folder that the command can read, and holds a lock as long as its process runs.
Without the lock a job that was killed would look like one that is still at work.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import yaml  # type: ignore[import-untyped]
from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from .directory import write_atomically
from .summary import Totals


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job gives back to its command."""

    code: int  # 0; 1 if a puzzle failed; 2 for a configuration that cannot be run
    table: str = ""  # for standard output
    error: str = ""  # one line for standard error
    totals: Totals | None = None  # of its run
    value: float | None = None  # what a sweeper optimizes; None marks a failed trial


_NO_RESULT = JobResult(1, error="ended without a result")


@dataclass(slots=True)
class JobRecord:
    """A job that has begun, and its result if it has ended."""

    number: int | None  # in its multirun, from 0; None if it is of none
    overrides: list[str]  # its part of the command line
    result: JobResult = _NO_RESULT
    streams: list[str] | None = None  # where the result was printed; None if it was not

    @property
    def has_ended(self) -> bool:
        """Whether there is a result. There is none of a job that is at work or was killed."""
        return self.result != _NO_RESULT

    @classmethod
    def of_file(cls, path: Path) -> JobRecord:
        """Read a record that `RecordFolder` wrote."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        result = fields.pop("result")
        if result["totals"] is not None:
            result["totals"] = Totals(**result["totals"])
        return cls(result=JobResult(**result), **fields)


class Refusal(BaseException):
    """Ends a command before its first job. The message is one line for the user.

    It is no `Exception`, because hydra turns an `Exception` of a callback into a warning.
    """


class Multirun(Callback):  # type: ignore[misc]
    """Keeps what hydra says of a multirun before its first job.

    Hydra makes one for each command, because `hydra.callbacks` of the configuration names it.
    """

    latest: ClassVar[Multirun | None] = None
    """That of the multirun that this process has begun."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Keep the directory of the multirun, and what its sweeper optimizes."""
        self.directory = Path(config.hydra.sweep.dir)
        self._optimize = str(config.get("optimize", "value"))
        self._results = self.directory / "optimization_results.yaml"
        self._earlier = self._version()
        Multirun.latest = self

    def best(self) -> str:
        """Say what the sweeper found to be best; nothing if it has optimized nothing."""
        if self._version() == self._earlier:
            return ""
        found = yaml.safe_load(self._results.read_text(encoding="utf-8"))
        if "best_value" not in found:  # there are several objectives
            return f"optimized       {self._results}"
        parameters = " ".join(f"{key}={value}" for key, value in found["best_params"].items())
        value = f"{self._optimize} {found['best_value']:g}"
        return f"best            {parameters}: {value}\noptimized       {self._results}"

    def _version(self) -> int | None:
        return self._results.stat().st_mtime_ns if self._results.exists() else None


class RecordList:
    """The records of a command, in its own process.

    If a launcher sends it to another process, a `RecordFolder` arrives there.
    """

    is_elsewhere = False

    def __init__(self) -> None:
        self._records: list[JobRecord] = []
        self._folder: Path | None = None

    def __reduce__(self) -> tuple[type[RecordFolder], tuple[Path]]:
        if self._folder is None:
            assert Multirun.latest is not None, "hydra.callbacks of the configuration has none"
            self._folder = Multirun.latest.directory.absolute() / f".jobs-{uuid4().hex}"
            self._folder.mkdir(parents=True)
        return RecordFolder, (self._folder,)

    @contextmanager
    def recording(self, record: JobRecord) -> Iterator[None]:
        """The block is the job; it changes the record."""
        self._records.append(record)
        yield

    def collect(self, *, wait: bool = True) -> list[JobRecord]:
        """Return the records of all jobs that have begun, and remove the folder.

        Args:
            wait: wait for the jobs that are still at work.
        """
        records = list(self._records)
        if self._folder is not None:
            for path in self._folder.glob("*.json"):
                with suppress(Timeout), FileLock(_lock_of(path), timeout=-1 if wait else 0):
                    pass
                records.append(JobRecord.of_file(path))
            shutil.rmtree(self._folder, ignore_errors=True)
        return sorted(records, key=lambda record: record.number or 0)


class RecordFolder:
    """Where the jobs of other processes write their records.

    Args:
        folder: it is there as long as the command waits for records.
    """

    is_elsewhere = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def recording(self, record: JobRecord) -> Iterator[None]:
        """The block is the job; it changes the record."""
        path = self._folder / f"{record.number}.json"
        with ExitStack() as stack:
            if self._folder.is_dir():
                stack.enter_context(FileLock(_lock_of(path)))
                self._write(path, record)
            yield
            self._write(path, record)

    def _write(self, path: Path, record: JobRecord) -> None:
        with suppress(FileNotFoundError):  # the command has ended: no one reads the record
            write_atomically(path, json.dumps(asdict(record)))


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")


def standard_streams() -> list[str]:
    """Identify what standard output and standard error are connected to."""
    try:
        stats = [os.fstat(number) for number in (1, 2)]
    except OSError:  # closed
        return []
    return [platform.node(), *(f"{stat.st_dev}:{stat.st_ino}" for stat in stats)]
