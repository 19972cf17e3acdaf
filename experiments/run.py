"""Runs an experiment: `treeshare search=tot_bfs task.limit=5`, resumed by the same command.

`treeshare` starts this file. It imports next to nothing by itself, so that an interrupt while the
rest is imported ends the command without a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from treeshare.experiments.results.summary import Summary


def main() -> int:
    """The console command.

    Returns:
        0; 1 if a puzzle failed; 2 for a configuration that cannot be run, or files that cannot be
        read or written; 130 if interrupted.
    """
    with _interruptible():
        sys.path.append(os.getcwd())  # the user's own policies; last, so that they shadow nothing
        from treeshare.experiments.runs.openmp import set_wait_policy

        set_wait_policy()
        from treeshare.experiments.results.summary import comparison
        from treeshare.experiments.runs.command import complain, run_command, show
        from treeshare.experiments.runs.config import SetupError
        from treeshare.experiments.runs.resumable_run import launch
    finished: list[tuple[list[str], Summary]] = []  # jobs, by their overrides
    code = run_command("treeshare", "config", lambda cfg: launch(cfg, finished))
    if len(finished) > 1:
        try:
            show(f"\n{comparison(finished)}")
        except SetupError as error:
            return complain("treeshare", str(error), 2)
    return code


def run(cfg: DictConfig) -> Summary:
    """Run a composed configuration, or the rest of it if it was run before.

    Raises:
        SetupError: it cannot be run, or its files cannot be read or written.
    """
    from treeshare.experiments.runs.resumable_run import run_or_resume

    return run_or_resume(cfg)


@contextmanager
def _interruptible() -> Iterator[None]:
    """End the process at once when it is interrupted meanwhile. An exception would be raised inside
    what is being imported, and printed or lost there; nothing has begun that has to be ended."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        if is_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> None:
    os.write(2, b"treeshare: interrupted; the same command resumes\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
