"""Run a hydra program: compose its configuration, run its jobs, report errors in one line.

The jobs of a multirun may run in other processes. What they give back is read from the disk, by
`results/jobs.py`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import treeshare
from treeshare.experiments.results.comparison import comparison
from treeshare.experiments.results.jobs import (
    JobRecord,
    JobResult,
    Multirun,
    RecordFolder,
    RecordList,
    Refusal,
    standard_streams,
)

from .config import USER_ERRORS, SetupError, one_line
from .openmp import set_wait_policy
from .renamed_keys import refusal, refuse_renamed

JobFunction = Callable[[DictConfig], JobResult | int]
"""Runs one composed configuration, and returns its result or only its exit code.

It is a function of a module, so that it can be sent to another process. It raises a SetupError for
a configuration that cannot be run.
"""


def run_command(program: str, config_name: str, job: JobFunction) -> int:
    """Compose the configuration that the command line asks for, and run its job or jobs.

    A multirun (`-m`) has several jobs, and ends with a table that compares them. Without
    `HYDRA_FULL_ERROR=1` a configuration that cannot be run is reported in one line.

    Args:
        program: the name in front of messages.
        config_name: the name of a file of `conf/`, whose `hydra.callbacks` has a `Multirun`.
        job: is called for each job.

    Returns:
        The largest exit code of the jobs; 2 for a configuration that cannot be run; 130 after an
        interrupt.
    """
    is_traced = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra then raises its errors and does not print them
    Multirun.latest = None
    records = RecordList()
    task = _TaskFunction(program, job, records, is_traced=is_traced)
    run_jobs = hydra.main(
        version_base="1.3", config_path="pkg://treeshare.conf", config_name=config_name
    )(task)
    raised: BaseException | None = None
    try:
        run_jobs()
    except Refusal as error:
        return print_error(program, str(error), 2)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        raised = error
    is_interrupted = isinstance(raised, KeyboardInterrupt)
    try:
        jobs = records.collect(wait=not is_interrupted)
    except KeyboardInterrupt:  # the launcher has ended, and jobs are still at work
        is_interrupted = True
        jobs = records.collect(wait=False)
    if is_interrupted:
        jobs = [job for job in jobs if job.has_ended]
    code = _print_jobs(program, jobs)
    if is_interrupted:
        begins_again = any(word.lstrip("+").lower() == "overwrite=true" for word in sys.argv[1:])
        command = "without overwrite=true the command" if begins_again else "the same command"
        return print_error(program, f"interrupted; {command} resumes", 130)
    if raised is None:
        return code
    # It is of a job in this process, or of hydra, a launcher or a sweeper. A launcher raises errors
    # of any kind after a job was killed, and a sweeper if no job has a value.
    is_bug = any(raised is bug for bug in task.bugs)
    if is_traced or is_bug or not (code or isinstance(raised, USER_ERRORS)):
        raise raised
    if not jobs:
        return print_error(program, _composition_error(raised, sys.argv[1:]), 2)
    reason = shorten(one_line(raised), 500, placeholder=" ...")  # submitit's ends with a whole log
    return print_error(program, f"{type(raised).__name__}: {reason}", code or 2)


def prepare_process() -> None:
    """Prepare a process for jobs, before PyTorch is imported. A second call does nothing.

    A configuration can then name the user's own modules in the working directory, and PyTorch's
    threads wait as suits the machine.
    """
    here = os.getcwd()
    if here not in sys.path:
        # In an editable installation the checkout is on the path as well. It holds folders with
        # names that a user's module may have, such as `tasks`: the user's module is found first.
        checkout = str(Path(treeshare.__file__).parents[1])
        is_installed_as_path = checkout in sys.path and os.path.exists(f"{checkout}/pyproject.toml")
        sys.path.insert(sys.path.index(checkout) if is_installed_as_path else len(sys.path), here)
    set_wait_policy()


class _TaskFunction:
    """What hydra calls for each job. A launcher may send it to another process.

    Args:
        program: the name in front of messages.
        job: is called with the configuration.
        records: get the result of each job.
        is_traced: errors of the configuration keep their traceback.
    """

    def __init__(
        self,
        program: str,
        job: JobFunction,
        records: RecordList | RecordFolder,
        *,
        is_traced: bool,
    ) -> None:
        self._program = program
        self._job = job
        self._records = records
        self._is_traced = is_traced
        self.bugs: list[Exception] = []  # of jobs in this process

    def __call__(self, cfg: DictConfig) -> float | None:
        """Run a job.

        Returns:
            The value that a sweeper optimizes; None for a job that failed.
        """
        if self._records.is_elsewhere:
            prepare_process()
        hydra_cfg = HydraConfig.get()
        is_of_multirun = hydra_cfg.mode == RunMode.MULTIRUN
        number = int(hydra_cfg.job.num) if is_of_multirun else None
        record = JobRecord(number, list(hydra_cfg.overrides.task))
        with self._records.recording(record):
            self._run(cfg, record)
            _print_result(self._program, record)
            record.streams = standard_streams()
        return record.result.value

    def _run(self, cfg: DictConfig, record: JobRecord) -> None:
        try:
            _refuse_renamed(cfg)
            result = self._job(cfg)
            record.result = JobResult(result) if isinstance(result, int) else result
        except Exception as error:
            is_refused = isinstance(error, SetupError)
            if is_refused and not self._is_traced:
                record.result = JobResult(2, error=str(error))
            elif self._records.is_elsewhere:
                traceback.print_exc()  # which an exception loses on its way to the command
                message = f"{type(error).__name__}: {one_line(error)}"
                record.result = JobResult(2 if is_refused else 1, error=message)
            else:
                record.result = JobResult(1)
                self.bugs.append(error)
                raise


def _print_result(program: str, job: JobRecord) -> None:
    """Print the table and the error of a job. Its result changes if they cannot be written."""
    result, is_of_multirun = job.result, job.number is not None
    overrides = " ".join(job.overrides)
    try:
        if result.table:
            print_output(f"\n{overrides}\n{result.table}" if is_of_multirun else result.table)
    except SetupError as error:
        job.result = result = replace(result, code=2, error=str(error))
    if result.error:
        name = f"job {job.number} ({overrides}): " if is_of_multirun else ""
        print_error(program, f"{name}{result.error}", result.code)


def _print_jobs(program: str, jobs: Sequence[JobRecord]) -> int:
    """Print what jobs elsewhere have not printed here, and the comparison of all jobs.

    Returns:
        The largest exit code.
    """
    here = standard_streams()
    for job in jobs:
        if job.streams != here:
            _print_result(program, job)
    code = max((job.result.code for job in jobs), default=0)
    if len(jobs) > 1 and any(job.result.totals for job in jobs):
        table = comparison([(job.overrides, job.result.totals) for job in jobs])
        best = Multirun.latest.best() if Multirun.latest else ""
        try:
            print_output(f"\n{table}" + (f"\n\n{best}" if best else ""))
        except SetupError as error:
            return print_error(program, str(error), 2)
    return code


def print_output(text: str) -> None:
    """Print to standard output, and make sure that it is written.

    Raises:
        SetupError: it cannot be written, because the reader of a pipe has ended or a disk is full.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        # Python would write the rest of the buffer when it ends, and would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SetupError(f"standard output: {error.strerror}") from error


def print_error(program: str, message: str, code: int) -> int:
    """Print one line to standard error, whatever characters the message holds.

    Returns:
        The exit code that was given.
    """
    line = "".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in message)
    print(f"{program}: {line}", file=sys.stderr)
    return code


def _refuse_renamed(cfg: DictConfig) -> None:
    config = OmegaConf.to_container(cfg, resolve=False)
    try:
        refuse_renamed(cast(Mapping[str, Any], config))
    except ValueError as error:
        raise SetupError(str(error)) from error


def _composition_error(error: BaseException, arguments: Sequence[str]) -> str:
    """The line for a configuration that hydra cannot compose."""
    key = str(getattr(error.__cause__, "full_key", ""))  # the key that hydra did not find
    target = f"{key.rpartition('.')[0]}._target_="
    is_ours = not any(argument.startswith(target) for argument in arguments)
    renamed = refusal(key) if is_ours else None
    return renamed or f"{one_line(error)}{_multirun_hint(key, arguments)}"


def _multirun_hint(key: str, arguments: Sequence[str]) -> str:
    """What to write where a multirun takes several options of the group that lacks the key.

    Hydra looks for the key in the group's default option, before it takes the options given.
    """
    for argument in arguments:
        group, _, options = argument.partition("=")
        if "," in options and key.startswith(f"{group.replace('/', '.')}."):
            return f" (in the default option; for those of {argument} write ++{key}=...)"
    return ""
