"""The program of `parent.Sandbox`, which calls functions under limits and writes their results.

It runs as a script in a new interpreter, and imports only what the first line of its input names.
Each further line is a request `{"method", "arguments", "keywords", "is_limited"}`. The program
writes one line for each, `{"result", "events"}` or `{"error", "message", "events"}`.

A function called here cannot reach the network (a namespace without devices where the system allows
one, and an audit hook everywhere), cannot write files or start processes, can read files of
Python's libraries alone, and has limits of memory and processor time. The hook sees the actions of
Python code but not those of C code, so a caller must check a text before a scorer sees it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import resource
import select
import sys
import threading
import warnings
from collections import Counter
from typing import Any, BinaryIO

_MEMORY = 2**30  # bytes of address space beyond those in use when everything is loaded
_OPEN_FILES = 32  # file descriptors
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_COUNTED = frozenset({"open", "exec", "compile", "socket", "subprocess", "os", "ctypes", "shutil"})
_NEVER = frozenset(
    {"socket", "subprocess", "shutil", "pty", "tempfile", "urllib", "ftplib", "smtplib", "http"}
    | {"imaplib", "poplib", "nntplib", "telnetlib", "webbrowser", "sqlite3", "syslog", "fcntl"}
    | {"ctypes"}
)
"""First parts of the names of audit events that are always refused."""


class AuditHook:
    """Counts the audit events of a call, and refuses those that reach outside the process.

    Args:
        libraries: folders whose files may be read.
    """

    def __init__(self, libraries: tuple[str, ...]) -> None:
        self.events: Counter[str] = Counter()
        self._libraries = libraries

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count an event.

        Raises:
            PermissionError: the event is refused.
        """
        kind = event.partition(".")[0]
        if kind in _COUNTED:
            self.events[kind] += 1
        if self._is_refused(kind, event, arguments):
            raise PermissionError(f"{event} is refused where replies are marked")

    def _is_refused(self, kind: str, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = arguments
            return bool(flags & _WRITING) or not self._is_readable(path)
        return kind in _NEVER or (kind == "os" and event != "os.listdir")

    def _is_readable(self, path: Any) -> bool:
        if not isinstance(path, str | bytes):
            return False
        return os.path.realpath(os.fsdecode(path)).startswith(self._libraries)


def main() -> None:
    """Serve requests until the input ends."""
    requests, results = _take_pipes()
    start = json.loads(requests.readline())
    _leave_the_network()
    threading.Thread(target=_end_with_parent, args=(requests.fileno(),), daemon=True).start()
    _limit(resource.RLIMIT_CORE, 0)
    warnings.simplefilter("ignore")  # they are not shown, and a warning opens the file it quotes
    sys.path[:] = start["path"]
    try:
        for name in start["imports"]:
            importlib.import_module(name)
        target = importlib.import_module(start["module"])
        if start["factory"] is not None:
            target = getattr(target, start["factory"])(*start["arguments"])
    except BaseException as error:
        _write(results, _described(error))
        return
    # Not before: what is loaded is trusted. matplotlib, which reasoning-gym loads, writes a cache
    # and starts programs when it is loaded on a machine for the first time.
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NPROC, 0)  # no further threads and processes
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_AS, _memory_in_use() + _MEMORY)
    hook = AuditHook(_libraries())
    sys.addaudithook(hook)
    _write(results, {"result": None, "events": {}})
    for line in requests:
        hook.events.clear()
        request = json.loads(line)
        _limit_processor_time(start["seconds"] if request["is_limited"] else None)
        function = getattr(target, request["method"])
        reply = _called(function, request["arguments"], request["keywords"])
        _write(results, reply | {"events": dict(hook.events)})


def _called(function: Any, arguments: list[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    try:
        result = function(*arguments, **keywords)
        json.dumps(result)
    except BaseException as error:  # includes SystemExit and KeyboardInterrupt
        return _described(error)
    return {"result": result}


def _described(error: BaseException) -> dict[str, Any]:
    try:
        message = str(error)[:1000]
    except BaseException:  # the exception's class may be the scorer's own
        message = ""
    return {"error": type(error).__name__, "message": message, "events": {}}


def _write(results: BinaryIO, value: dict[str, Any]) -> None:
    results.write(json.dumps(value).encode("ascii") + b"\n")
    results.flush()


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return the pipes to the parent, and redirect standard input and output to nothing."""
    requests, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nothing, fd)
    os.close(nothing)
    return requests, results


def _leave_the_network() -> None:
    """Enter a network namespace without devices, if the system allows it.

    The process must have only one thread.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        unshare = ctypes.CDLL(None).unshare
        if unshare(_CLONE_NEWNET):  # needs rights, which a user namespace gives
            unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _end_with_parent(requests: int) -> None:
    """End the process when the parent has closed its end of the pipe or has ended.

    The limit of processor time ends a call that never lets this thread run.
    """
    poll = select.poll()
    poll.register(requests, 0)  # reports only that the other end was closed
    poll.poll()
    os._exit(0)


def _limit_processor_time(seconds: float | None) -> None:
    """Allow a call somewhat more processor time than its wall time, if the parent has ended."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = hard
    if seconds is not None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(usage.ru_utime + usage.ru_stime + seconds) + 1
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _limit(kind: int, value: int) -> None:
    """Lower both limits to `value`; lower limits stay."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS has no limit of address space
        resource.setrlimit(kind, (value, value))


def _libraries() -> tuple[str, ...]:
    """Return the folders of Python and of installed packages, but none of the user's own files."""
    installed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    folders = {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), *installed}
    return tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)


def _memory_in_use() -> int:
    """Return the bytes of address space in use; 3 GiB, an upper bound, where they are unknown."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return 3 * 2**30


if __name__ == "__main__":
    main()
