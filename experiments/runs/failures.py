"""Record an exception that one puzzle raised, with the line of the user's code it came from."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

from treeshare.experiments.results.rows import FailedSearch

_PACKAGE = Path(__file__).resolve().parents[2]
_FOLDERS = ("conf", "experiments", "kernels", "llm_backend", "search", "tasks", "treeshare")
_MAX_CAUSES = 10  # of one exception; a chain of causes may be circular
_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")
_FOREIGN = tuple(
    f"{path}{os.sep}"
    for path in {
        *(str(_PACKAGE / folder) for folder in _FOLDERS),
        *(os.path.realpath(sysconfig.get_path(kind)) for kind in _INSTALLED),
    }
)


def failure_of(problem_id: str, error: BaseException) -> FailedSearch:
    """The row of failures.jsonl for an exception."""
    report = traceback.TracebackException.from_exception(error)  # survives a `__str__` that raises
    return FailedSearch(
        problem=problem_id,
        error=type(error).__name__,
        message=next(iter(str(report).splitlines()), ""),
        traceback="".join(report.format()),
        where=failing_line(error),
    )


def failing_line(error: BaseException) -> str:
    """The line of the user's own code that an exception came from, such as `my_policies.py:12`.

    This is the innermost call that is neither in this package nor in an installed library, in the
    traceback of the exception or of its causes (`raise ... from ...`). If there is no such call, it
    is the innermost call of all. A path below the working directory is given relative to it.

    Returns:
        File and line; empty for an exception that was never raised.
    """
    innermost = ""
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
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
