"""The frame of a hydra command: its jobs, its errors in one line, its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import hydra
from omegaconf import DictConfig

from .config import USER_ERRORS, SetupError, one_line


def run_command(program: str, config_name: str, job: Callable[[DictConfig], int]) -> int:
    """Compose what the command line asks for and run its job, or those of a multirun.

    Args:
        program: the name in front of messages.
        config_name: a file of `conf/`.
        job: returns its exit code; a SetupError it raises is a mistake of the user's.

    Returns:
        The largest code of the jobs; 2 for a configuration that cannot be run; 130 if interrupted.
    """
    is_traced = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra then raises, and does not print, its errors
    codes: list[int] = []  # of the jobs begun

    def launch(cfg: DictConfig) -> None:
        codes.append(1)
        try:
            codes[-1] = job(cfg)
        except SetupError as error:
            if is_traced:
                raise
            codes[-1] = complain(program, str(error), 2)

    command = hydra.main(
        version_base="1.3", config_path="pkg://treeshare.conf", config_name=config_name
    )
    try:
        command(launch)()
    except USER_ERRORS as error:
        if codes or is_traced:
            raise  # a bug: what a user can get wrong in a job is a SetupError
        return complain(program, f"{one_line(error)}{_swept(error, sys.argv[1:])}", 2)
    except KeyboardInterrupt:
        return complain(program, "interrupted; the same command resumes", 130)
    return max(codes, default=0)


def _swept(error: BaseException, arguments: Sequence[str]) -> str:
    """What to do if a multirun takes several options of the group that has an unknown key: Hydra
    looks for the key in the default option, before it takes those."""
    key = str(getattr(error.__cause__, "full_key", None))
    for argument in arguments:
        group, _, options = argument.partition("=")
        if "," in options and key.startswith(f"{group.replace('/', '.')}."):
            return f" (in the default option; for those of {argument} write ++{key}=...)"
    return ""


def show(text: str) -> None:
    """Print to standard output, and see that it arrives.

    Raises:
        SetupError: it cannot be written to; whoever read it has gone, or its disk is full.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        # what is left in the buffer would be tried again, and fail again, when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SetupError(f"standard output: {error.strerror}") from error


def complain(program: str, message: str, code: int) -> int:
    """Print one line to stderr, whatever characters the message holds; returns the code."""
    line = "".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in message)
    print(f"{program}: {line}", file=sys.stderr)
    return code
