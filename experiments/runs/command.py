"""Run a hydra program: compose its configuration, run its jobs, report errors in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf

from .config import USER_ERRORS, SetupError, one_line
from .renamed_keys import refusal, refuse_renamed


def run_command(program: str, config_name: str, job: Callable[[DictConfig], int]) -> int:
    """Compose the configuration that the command line asks for, and run its job or jobs.

    A multirun (`-m`) has several jobs. Without `HYDRA_FULL_ERROR=1` a configuration
    that cannot be run is reported in one line.

    Args:
        program: the name in front of messages.
        config_name: the name of a file of `conf/`.
        job: runs one composed configuration and returns its exit code. It raises a SetupError
            for a configuration that cannot be run.

    Returns:
        The largest exit code of the jobs; 2 for a configuration that cannot be run; 130 after an
        interrupt.
    """
    is_traced = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra then raises its errors and does not print them
    codes: list[int] = []  # one for each job that has begun

    def launch(cfg: DictConfig) -> None:
        codes.append(1)
        try:
            _refuse_renamed(cfg)
            codes[-1] = job(cfg)
        except SetupError as error:
            if is_traced:
                raise
            codes[-1] = print_error(program, str(error), 2)

    command = hydra.main(
        version_base="1.3", config_path="pkg://treeshare.conf", config_name=config_name
    )
    try:
        command(launch)()
    except USER_ERRORS as error:
        if codes or is_traced:
            raise  # a bug: what a user can get wrong in a job is a SetupError
        return print_error(program, _composition_error(error, sys.argv[1:]), 2)
    except KeyboardInterrupt:
        return print_error(program, "interrupted; the same command resumes", 130)
    return max(codes, default=0)


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
