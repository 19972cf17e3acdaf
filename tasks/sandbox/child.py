"""The program of `sandbox.Sandbox`: calls functions under limits and writes their results.

It runs as a script of its own, in a fresh interpreter, and imports nothing of this package but what
the first line of its input names. Each further line is a request `{"method", "arguments",
"keywords", "is_limited"}`; each gets one line, `{"result", "events"}` or `{"error", "message",
"events"}`.

What is called here cannot reach the network (a namespace without devices where the system gives
one; an audit hook everywhere), cannot write files or start processes, can read files of Python's
libraries alone, and has limits of memory and processor time. The hook sees what Python code does,
not what C code does; so whoever calls a scorer here checks the text before.
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
_OPEN_FILES = 32
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_COUNTED = frozenset({"open", "exec", "compile", "socket", "subprocess", "os", "ctypes", "shutil"})
_NEVER = frozenset(
    {"socket", "subprocess", "shutil", "pty", "tempfile", "urllib", "ftplib", "smtplib", "http"}
    | {"imaplib", "poplib", "nntplib", "telnetlib", "webbrowser", "sqlite3", "syslog", "fcntl"}
)
"""First parts of the names of audit events that are always refused."""
_LOADING = frozenset(
    {"os.listdir", "os.scandir", "os.putenv", "os.unsetenv", "os.add_dll_directory"}
)
"""Events of `os` that modules need while they are loaded."""


class AuditHook:
    """Counts the audit events of a call, and refuses those that reach outside the process."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.libraries: tuple[str, ...] | None = None
        """Folders that may be read; None, while modules are loaded, for every file."""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        kind = event.partition(".")[0]
        if kind in _COUNTED:
            self.events[kind] += 1
        if self._is_refused(kind, event, arguments):
            raise PermissionError(f"{event} is refused where replies are marked")

    def _is_refused(self, kind: str, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = arguments
            return bool(flags & _WRITING) or not self._is_readable(path)
        if kind == "os":
            return event not in _LOADING or (self.libraries is not None and event != "os.listdir")
        return kind in _NEVER or (kind == "ctypes" and self.libraries is not None)

    def _is_readable(self, path: Any) -> bool:
        if self.libraries is None:
            return True
        if not isinstance(path, str | bytes):
            return False
        return os.path.realpath(os.fsdecode(path)).startswith(self.libraries)


def main() -> None:
    requests, results = _take_pipes()
    start = json.loads(requests.readline())
    _leave_the_network()
    threading.Thread(target=_end_with_parent, args=(requests.fileno(),), daemon=True).start()
    hook = AuditHook()
    sys.addaudithook(hook)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    warnings.simplefilter("ignore")  # nobody reads them, and one opens the file that it quotes
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
    _limit(resource.RLIMIT_NPROC, 0)  # no threads and processes but those that there are
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_AS, _memory_in_use() + _MEMORY)
    hook.libraries = _libraries()
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
    except BaseException as error:  # SystemExit and KeyboardInterrupt as well
        return _described(error)
    return {"result": result}


def _described(error: BaseException) -> dict[str, Any]:
    try:
        message = str(error)[:1000]
    except BaseException:  # a class of the scorer's own may do anything
        message = ""
    return {"error": type(error).__name__, "message": message, "events": {}}


def _write(results: BinaryIO, value: dict[str, Any]) -> None:
    results.write(json.dumps(value).encode("ascii") + b"\n")
    results.flush()


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the parent; what else is printed or read goes to, or comes from, nowhere."""
    requests, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nothing, fd)
    os.close(nothing)
    return requests, results


def _leave_the_network() -> None:
    """Enter a network namespace without devices, if the system allows it. The process must have one
    thread."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        unshare = ctypes.CDLL(None).unshare
        if unshare(_CLONE_NEWNET):  # refused without rights, which a user namespace gives
            unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _end_with_parent(requests: int) -> None:
    """Wait until the parent has closed its end of the pipe, or is gone. A call that never lets this
    thread run is ended by the limit of processor time."""
    poll = select.poll()
    poll.register(requests, 0)  # reports the hang-up alone
    poll.poll()
    os._exit(0)


def _limit_processor_time(seconds: float | None) -> None:
    """Leave the call somewhat more than its wall time, for the case that the parent is gone."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = hard
    if seconds is not None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(usage.ru_utime + usage.ru_stime + seconds) + 1
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _limit(kind: int, value: int) -> None:
    """Lower both limits to `value`, or leave them where they are lower."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS has no limit of address space
        resource.setrlimit(kind, (value, value))


def _libraries() -> tuple[str, ...]:
    """Folders of Python and of installed packages, without that of the user's own files."""
    installed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    folders = {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), *installed}
    return tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)


def _memory_in_use() -> int:
    """Bytes of address space; 3 GiB, more than ever, where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return 3 * 2**30


if __name__ == "__main__":
    main()
