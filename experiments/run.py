"""Run an experiment: `treeshare search=tot_bfs task.limit=5`. The same command resumes it.

This module is the entry point of the command `treeshare`. It imports the rest of the package inside
`main`, so that an interrupt during the slow imports ends the command without a traceback.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import treeshare

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from treeshare.experiments.results.summary import Summary


def main() -> int:
    """Run the console command.

    Returns:
        0; 1 if a puzzle failed; 2 for a configuration that cannot be run, or files that cannot be
        read or written; 130 after an interrupt.
    """
    if sys.argv[1:] == ["--version"]:  # hydra has no such option, and not the next one
        print(f"treeshare {treeshare.__version__}")
        return 0
    if sys.argv[1:2] == ["--describe"]:
        return _describe(sys.argv[2:])
    with _interruptible():
        from treeshare.experiments.runs.command import prepare_process, run_command
        from treeshare.experiments.runs.launch import launch

        prepare_process()
    return run_command("treeshare", "config", launch)


def run(cfg: DictConfig) -> Summary:
    """Run a composed configuration; puzzles that an earlier run finished are not searched again.

    Raises:
        SetupError: it cannot be run, or its files cannot be read or written.
    """
    from treeshare.experiments.runs.resumable_run import run_or_resume

    return run_or_resume(cfg)


def _describe(names: list[str]) -> int:
    """Print all options of the configuration, or those of the given names."""
    from treeshare.experiments.runs.command import print_error, print_output
    from treeshare.experiments.runs.config import SetupError

    text = io.StringIO()
    try:
        with redirect_stdout(text):
            if not names:
                treeshare.describe()
            for name in names:
                treeshare.describe(name)
        print_output(text.getvalue().rstrip())
    except (SetupError, ValueError) as error:
        return print_error("treeshare", str(error), 2)
    return 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """End the process at once if it is interrupted inside.

    A KeyboardInterrupt would be raised inside the module that is being imported, and be printed or
    lost there. Nothing has started yet that would have to be ended properly.
    """
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, _exit_at_once)
    try:
        yield
    finally:
        if is_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit_at_once(*_: object) -> None:
    os.write(2, b"treeshare: interrupted; the same command resumes\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
