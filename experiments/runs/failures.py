"""What is kept of an error that one puzzle raised, and the line of the user's code it came from."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

from treeshare.experiments.results.rows import FailedSearch

_PACKAGE = Path(__file__).resolve().parents[2]
_FOLDERS = ("conf", "experiments", "kernels", "llm_backend", "search", "tasks", "treeshare")
_MOST_CAUSES = 10  # of one error; they may go in a circle
_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")
_FOREIGN = tuple(
    f"{path}{os.sep}"
    for path in {
        *(str(_PACKAGE / folder) for folder in _FOLDERS),
        *(os.path.realpath(sysconfig.get_path(kind)) for kind in _INSTALLED),
    }
)


def failure_of(problem_id: str, error: BaseException) -> FailedSearch:
    """The line of failures.jsonl for an error."""
    report = traceback.TracebackException.from_exception(error)  # survives a `__str__` that raises
    return FailedSearch(
        problem=problem_id,
        error=type(error).__name__,
        message=next(iter(str(report).splitlines()), ""),
        traceback="".join(report.format()),
        where=failing_line(error),
    )


def failing_line(error: BaseException) -> str:
    """File and line of the innermost call that is neither this package's nor an installed
    library's, in the error or in those that caused it (`raise ... from ...`). Without any, the
    innermost of all; empty for an error that was never raised.

    A file below the working directory is named from there on.
    """
    innermost = ""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None:
            break
        frames = [
            (frame.f_code.co_filename, n) for frame, n in traceback.walk_tb(cause.__traceback__)
        ]
        own = [(file, line) for file, line in frames if _is_own(file)]
        if own:
            return _named(*own[-1])
        if frames and not innermost:
            innermost = _named(*frames[-1])
        cause = cause.__cause__
    return innermost


def _named(file: str, line: int) -> str:
    return f"{file.removeprefix(f'{os.getcwd()}{os.sep}')}:{line}"


def _is_own(file: str) -> bool:
    return not file.startswith("<") and not os.path.realpath(file).startswith(_FOREIGN)
