"""A child process in which the scorers of other packages mark replies.

A scorer may evaluate the reply as a program, run forever, exit or exhaust the memory. It runs here
in one process that is started once and used again: without network, without writing files, with an
empty environment and with limits of time and memory, which `child.py` sets. Requests and results
are lines of JSON, so that the parent never loads an object that the child made.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CHILD = Path(__file__).with_name("child.py")
_LONGEST_RESULT = 2**28  # bytes of a line; a process that writes more is ended
_PASSED_ON = ("LD_LIBRARY_PATH",)  # some installations find the interpreter's libraries by it
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # sets of texts have the same order in every process
    "OMP_NUM_THREADS": "1",  # the limit of memory includes that of NumPy's threads
    "OPENBLAS_NUM_THREADS": "1",
}
_REPLIES = ({"result", "events"}, {"error", "message", "events"})
_log = logging.getLogger(__name__)


class SandboxFailure(Exception):
    """A call that gave no result.

    Attributes:
        kind: "raised", "exited" or "timed_out".
        error: the class name of what the called function raised; "" for the other kinds.
    """

    def __init__(self, kind: str, message: str, error: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.error = error


def check_seconds(seconds: float) -> None:
    """Check a limit of wall time for a call.

    Raises:
        ValueError: it is no number from 0.1 to 3600.
    """
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and 0.1 <= seconds <= 3600):
        raise ValueError(f"seconds={seconds!r} must be a number from 0.1 to 3600")


class Sandbox:
    """Calls functions of a module in a child process, one at a time.

    Args:
        module: the module whose functions are called.
        factory: a function or class of the module. If given, methods of the object that it returns
            are called instead.
        arguments: the factory's arguments, values of JSON.
        imports: modules that are loaded before the limits are set.
        seconds: wall time in seconds for a call, 0.1 to 3600. A process that takes longer is ended,
            and another is started.

    Raises:
        OSError: the system has no POSIX limits, or the process cannot be started.
        SandboxFailure: the module or the factory raised.
        ValueError: `seconds` is out of its bound.
    """

    def __init__(
        self,
        module: str,
        factory: str | None = None,
        arguments: Sequence[Any] = (),
        *,
        imports: Sequence[str] = (),
        seconds: float = 5.0,
    ) -> None:
        if os.name != "posix":
            raise OSError("marking replies in a process of its own needs a POSIX system")
        check_seconds(seconds)
        self.seconds = seconds
        self.failures: Counter[str] = Counter()
        """The number of calls that failed, by kind."""
        self.events: dict[str, int] = {}
        """The number of audit events of the last call by kind, such as `compile` or `open`."""
        self._start_line = _line(
            {
                "path": [os.path.abspath(e) if os.path.exists(e or ".") else e for e in sys.path],
                "imports": list(imports),
                "module": module,
                "factory": factory,
                "arguments": list(arguments),
                "seconds": seconds,
            }
        )
        self._was_loaded = False
        self._start()
        try:
            self._wait_until_loaded()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def call(self, method: str, *arguments: Any, is_limited: bool = True, **keywords: Any) -> Any:
        """Call a function.

        Args:
            method: the function's name.
            *arguments: values of JSON. Texts may hold lone surrogates and NULs.
            is_limited: whether the limit of time holds and a failure is counted. False is for calls
                that read no reply of a model.
            **keywords: values of JSON.

        Returns:
            The result, a value of JSON.

        Raises:
            OSError: the process ended earlier and cannot be started again.
            SandboxFailure: the function raised, the process ended, or the call took too long.
        """
        if not self.is_running:  # it ended between two calls
            self._restart()
        try:
            self._wait_until_loaded()
            request = {
                "method": method,
                "arguments": arguments,
                "keywords": keywords,
                "is_limited": is_limited,
            }
            return self._exchange(_line(request), self.seconds if is_limited else None)
        except SandboxFailure as failure:
            if is_limited:
                self._count(failure, method)
            raise
        except BaseException:  # an interrupt: the next call must not read this one's result
            self._restart()
            raise

    def close(self) -> None:
        """End the process; a later call starts another."""
        self._finalizer()

    def _start(self) -> None:
        # `-P -s` and this environment do what `-I` does, and set the hash seed besides.
        self._process = subprocess.Popen(
            [sys.executable, "-X", "utf8", "-B", "-P", "-s", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env=_ENVIRONMENT | {k: os.environ[k] for k in _PASSED_ON if k in os.environ},
            start_new_session=True,  # an interrupt from the terminal reaches only the parent
        )
        self._finalizer = weakref.finalize(self, _end, self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        self._is_loaded = False

    def _restart(self) -> None:
        self._finalizer()
        self._start()

    def _wait_until_loaded(self) -> None:
        if self._is_loaded:
            return
        try:
            self._exchange(self._start_line, None)
        except SandboxFailure as failure:
            if self._was_loaded:  # the failure is not a reply's
                raise OSError(f"the process cannot be started again: {failure}") from failure
            raise
        self._is_loaded = self._was_loaded = True

    def _exchange(self, line: bytes, seconds: float | None) -> Any:
        """Send a line and read the line that answers it; if none comes, end the process."""
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            self._send(line, deadline)
            reply = _read_reply(self._receive(deadline))
        except TimeoutError:
            self._restart()
            raise SandboxFailure("timed_out", f"no result within {seconds:g} s") from None
        except (OSError, EOFError, ValueError) as error:
            self._finalizer()
            code = self._process.returncode
            self._start()
            message = f"the process ended with exit code {code}"
            raise SandboxFailure("exited", message) from error
        self.events = reply["events"]
        if "error" in reply:
            raise SandboxFailure("raised", reply["message"], reply["error"])
        return reply["result"]

    def _send(self, line: bytes, deadline: float | None) -> None:
        assert self._process.stdin is not None
        pipe, rest = self._process.stdin.fileno(), memoryview(line)
        while rest:
            _wait_for(pipe, select.POLLOUT, deadline)
            rest = rest[os.write(pipe, rest[: select.PIPE_BUF]) :]

    def _receive(self, deadline: float | None) -> bytes:
        assert self._process.stdout is not None
        pipe, parts, num_bytes = self._process.stdout.fileno(), [b""], 0
        while not parts[-1].endswith(b"\n"):
            _wait_for(pipe, select.POLLIN, deadline)
            parts.append(os.read(pipe, 2**16))
            num_bytes += len(parts[-1])
            if not parts[-1] or num_bytes > _LONGEST_RESULT:
                raise EOFError
        return b"".join(parts)

    def _count(self, failure: SandboxFailure, method: str) -> None:
        self.failures[failure.kind] += 1
        if self.failures[failure.kind] == 1:
            what = " ".join(filter(None, (failure.error, str(failure))))
            text = "%s: a reply gets 0 marks, the first of this kind (%s: %s)"
            _log.warning(text, method, failure.kind.replace("_", " "), what[:200])


def _line(value: Mapping[str, Any]) -> bytes:
    """Return a line of JSON in ASCII, which keeps every text of Python."""
    return json.dumps(value, default=_plain).encode("ascii") + b"\n"


def _read_reply(line: bytes) -> dict[str, Any]:
    """Read a line that `child.py` wrote.

    Raises:
        ValueError: the line is not of that form.
    """
    try:
        reply = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if isinstance(reply, dict) and set(reply) in _REPLIES:
        return reply
    raise ValueError("neither a result nor an error")


def _plain(value: Any) -> Any:
    """Return a configuration of another library as a dictionary or a list."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise ValueError(f"{value!r} is no value of JSON")


def _wait_for(pipe: int, event: int, deadline: float | None) -> None:
    """Wait until a pipe is ready.

    Raises:
        TimeoutError: the deadline (of time.monotonic) has passed.
    """
    poll = select.poll()  # select.select takes no descriptor above 1,023
    poll.register(pipe, event)
    if deadline is None:
        poll.poll()
    else:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
