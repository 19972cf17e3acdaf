"""The process in which code of others marks replies: what it prevents, and how it ends."""

import logging
import os
import signal
import subprocess
import sys
import time

import misbehaving
import pytest

from treeshare.tasks.sandbox.parent import Sandbox, SandboxFailure

SECONDS = 1.0


@pytest.fixture(scope="module")
def sandbox():
    sandbox = Sandbox("misbehaving", seconds=SECONDS)
    yield sandbox
    sandbox.close()


def failure(sandbox, *call):
    with pytest.raises(SandboxFailure) as info:
        sandbox.call(*call)
    assert sandbox.call("echo", "next") == ["next"]  # never another call's result
    return info.value


def is_alive(pid):
    """Return whether a process runs; one that ended and was not waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


VALUES = ["", "\0", "\ud800", "é\u202e\U0001f6d1", "a\nb\r\n", "x" * 300_000, None, 0.1, 2**70]


@pytest.mark.parametrize("value", [*VALUES, [[1], {"a": None}]], ids=lambda v: repr(v)[:12])
def test_values_come_back_unchanged(sandbox, value):
    assert sandbox.call("echo", value) == [value]
    assert sandbox.call("echo", 1, key=value) == [1, {"key": value}]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("stop", "exit"), "SystemExit"),
        (("stop", "interrupt"), "KeyboardInterrupt"),
        (("stop", "generator"), "GeneratorExit"),
        (("raise_unreadable",), "Unreadable"),
        (("return_object",), "TypeError"),
        (("nest_a_result", 10**5), "RecursionError"),
        (("take", 8), "MemoryError"),
        (("stop", "unknown"), "KeyError"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_a_call_raises_is_a_failure(sandbox, call, error):
    pid = sandbox.pid
    found = failure(sandbox, *call)
    assert (found.kind, found.error) == ("raised", error)
    assert sandbox.pid == pid


@pytest.mark.parametrize("call", [("exit_at_once", 0), ("exit_at_once", 3), ("crash",)])
def test_a_process_that_ends_is_started_again(sandbox, call):
    assert failure(sandbox, *call).kind == "exited"


@pytest.mark.parametrize("call", ["spin", "sleep"])
def test_a_call_ends_with_its_time(sandbox, call):
    with pytest.raises(SandboxFailure, match=r"no result within 1 s") as info:
        sandbox.call(call)
    assert info.value.kind == "timed_out"
    assert sandbox.call("echo", 1) == [1]


def test_failures_are_counted_by_kind_and_logged_once(caplog):
    sandbox = Sandbox("misbehaving", seconds=SECONDS)
    with caplog.at_level(logging.WARNING):
        for call in (("stop", "exit"), ("stop", "interrupt"), ("exit_at_once", 1)):
            failure(sandbox, *call)
        with pytest.raises(SandboxFailure):
            sandbox.call("stop", "exit", is_limited=False)  # sees no reply
    assert sandbox.failures == {"raised": 2, "exited": 1}
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "SystemExit" in caplog.text and "exited" in caplog.text
    sandbox.close()


def test_what_is_printed_is_no_result(sandbox):
    assert sandbox.call("chatter") == ""
    assert sandbox.call("echo", 1) == [1]


@pytest.mark.parametrize(
    "what",
    [
        *("write", "append", "create", "read", "remove", "folder", "connect", "look up"),
        *("shell", "process", "fork", "spawn", "kill", "C"),
    ],
)
def test_nothing_outside_is_reached(sandbox, tmp_path, what):
    path = tmp_path / "file"
    if what in ("read", "remove"):
        path.write_text("here")
    before = path.exists()
    assert sandbox.call("attempt", what, str(path)) == "PermissionError"
    assert path.exists() == before


def test_the_system_limits_the_process(sandbox):
    """These limits hold for C code as well."""
    with open(f"/proc/{sandbox.pid}/limits") as file:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in file}
    assert limits["Max file size"] == ["0", "0"] and limits["Max core file size"] == ["0", "0"]
    assert limits["Max open files"] == ["32", "32"] and limits["Max processes"] == ["0", "0"]
    assert 0 < int(limits["Max address space"][0]) < 2**33
    assert limits["Max cpu time"][0].isdigit()


def test_the_environment_is_empty(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "of the parent")
    fresh = Sandbox("misbehaving")
    allowed = {"PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LD_LIBRARY_PATH"}
    assert set(fresh.call("environment")) - {"LC_CTYPE"} <= allowed
    fresh.close()


def test_sets_have_the_same_order_in_every_process(sandbox, monkeypatch):
    """Several data sets of reasoning-gym make their questions in the order of a set."""
    texts = [str(i) for i in range(50)]
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    fresh = Sandbox("misbehaving")
    assert fresh.call("order_of_a_set", texts) == sandbox.call("order_of_a_set", texts)
    fresh.close()


def test_an_interrupted_call_leaves_no_result_behind():
    sandbox = Sandbox("misbehaving", seconds=30)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            sandbox.call("sleep")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert sandbox.call("echo", 2) == [2]
    assert not sandbox.failures
    sandbox.close()


def test_one_process_serves_all_calls_and_ends_when_it_is_closed():
    sandbox = Sandbox("misbehaving", "Counter", [5])
    assert [sandbox.call("count") for _ in range(3)] == [6, 7, 8]
    pid = sandbox.call("process")
    assert pid == sandbox.pid and is_alive(pid)
    os.kill(pid, signal.SIGKILL)  # between two calls: nobody's failure
    assert wait_until(lambda: not sandbox.is_running)
    assert sandbox.call("count") == 6 and not sandbox.failures
    pid = sandbox.call("process")
    sandbox.close()
    assert not is_alive(pid)


def test_it_ends_with_its_owner_without_being_closed():
    sandbox = Sandbox("misbehaving")
    pid = sandbox.pid
    del sandbox
    assert not is_alive(pid)


@pytest.mark.parametrize("doing", ["nothing", "sleep", "spin", "compute"])
def test_it_ends_when_the_parent_is_killed(doing):
    """The limit of processor time ends a call that never lets another thread run."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from treeshare.tasks.sandbox.parent import Sandbox\n"
        "sandbox = Sandbox('misbehaving', seconds=1)\n"
        "print(sandbox.pid, flush=True)\n"
        "sys.stdin.read() if sys.argv[2] == 'nothing' else sandbox.call(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, os.path.dirname(misbehaving.__file__), doing]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert doing != "nothing" or is_alive(pid)
        time.sleep(0.3)  # until the call has begun
        parent.kill()
    assert wait_until(lambda: not is_alive(pid), seconds=60)


def test_what_cannot_be_loaded_is_said():
    with pytest.raises(SandboxFailure, match="start=-1 must be at least 0") as info:
        Sandbox("misbehaving", "Counter", [-1])
    assert info.value.error == "ValueError"
    with pytest.raises(SandboxFailure, match="no_such_module"):
        Sandbox("no_such_module")
    with pytest.raises(ValueError, match="is no value of JSON"):
        Sandbox("misbehaving", "Counter", [object()])


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "5", None])
def test_a_limit_out_of_its_bound_is_refused(seconds):
    with pytest.raises(ValueError, match=r"seconds=.* must be a number from 0.1 to 3600"):
        Sandbox("misbehaving", seconds=seconds)


def test_a_module_may_write_while_it_is_loaded_and_not_later(tmp_path, monkeypatch):
    """matplotlib, which reasoning-gym loads, writes a cache on a machine that has none yet."""
    code = f"""
import os, subprocess, sys
os.makedirs({str(tmp_path / "cache")!r})
subprocess.run([sys.executable, "-c", "pass"], check=True)

def write():
    open({str(tmp_path / "later")!r}, "w")

def echo(*values):
    return list(values)
"""
    (tmp_path / "writes_a_cache.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    sandbox = Sandbox("writes_a_cache", seconds=SECONDS)
    assert (tmp_path / "cache").is_dir()
    assert failure(sandbox, "write").error == "PermissionError"
    assert not (tmp_path / "later").exists()
