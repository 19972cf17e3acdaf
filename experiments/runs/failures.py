"""Find the line of the user's code that an exception came from, and record a puzzle's failure."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator

from treeshare.experiments.results.rows import FailedSearch
from treeshare.experiments.results.sources import is_users_file

_MAX_CAUSES = 10  # of one exception; a chain of causes may be circular


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

    A path below the working directory is given relative to it.

    Returns:
        File and line; empty for an exception that did not pass through the user's code, such as
        that of a prompt that is too long.
    """
    return next((line for line, _ in own_errors(error)), "")


def own_errors(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    """Find the user's own code in an exception and its causes (`raise ... from ...`).

    Yields:
        The innermost line that is neither in this package nor in an installed library, such as
        `my_policies.py:12`, and the exception that came from there.
    """
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None:
            return
        frames = traceback.walk_tb(cause.__traceback__)
        lines = [(frame.f_code.co_filename, number) for frame, number in frames]
        if isinstance(cause, SyntaxError) and cause.filename:
            lines.append((cause.filename, cause.lineno or 1))
        own = [(file, number) for file, number in lines if _is_own(file)]
        if own:
            file, number = own[-1]
            yield f"{file.removeprefix(f'{os.getcwd()}{os.sep}')}:{number}", cause
        cause = cause.__cause__


def _is_own(file: str) -> bool:
    """Whether a file is the user's; the code of a notebook's cell has the name of a missing one."""
    return is_users_file(file) or (os.path.isabs(file) and not os.path.exists(file))
