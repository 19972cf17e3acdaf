"""Run an experiment: `treeshare search=tot_bfs task.limit=5`. The same command resumes it.

This module is the entry point of the command `treeshare`. It imports the rest of the package inside
`main`, so that an interrupt during the slow imports ends the command without a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
    if sys.argv[1:] == ["--version"]:  # hydra has no such option
        print(f"treeshare {treeshare.__version__}")
        return 0
    with _interruptible():
        _add_working_directory()
        from treeshare.experiments.runs.openmp import set_wait_policy

        set_wait_policy()
        from treeshare.experiments.results.comparison import comparison
        from treeshare.experiments.runs.command import print_error, print_output, run_command
        from treeshare.experiments.runs.config import SetupError
        from treeshare.experiments.runs.launch import launch
    finished: list[tuple[list[str], Summary]] = []  # the overrides and the summary of each job
    code = run_command("treeshare", "config", lambda cfg: launch(cfg, finished))
    if len(finished) > 1:
        try:
            print_output(f"\n{comparison(finished)}")
        except SetupError as error:
            return print_error("treeshare", str(error), 2)
    return code


def run(cfg: DictConfig) -> Summary:
    """Run a composed configuration; puzzles that an earlier run finished are not searched again.

    Raises:
        SetupError: it cannot be run, or its files cannot be read or written.
    """
    from treeshare.experiments.runs.resumable_run import run_or_resume

    return run_or_resume(cfg)


def _add_working_directory() -> None:
    """Let a configuration name the user's own modules, without shadowing an installed one.

    In an editable installation the checkout is on the path as well. It holds folders with names
    that a user's module may have, such as `tasks`; the user's module is found first.
    """
    checkout = str(Path(treeshare.__file__).parents[1])
    is_installed_as_path = checkout in sys.path and os.path.exists(f"{checkout}/pyproject.toml")
    at = sys.path.index(checkout) if is_installed_as_path else len(sys.path)
    sys.path.insert(at, os.getcwd())


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
