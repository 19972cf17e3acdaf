"""Functions that do in the sandbox what a scorer should not."""

import ctypes
import os
import socket
import subprocess
import sys
import time
from pathlib import Path


def echo(*values, **keywords):
    return [*values, keywords] if keywords else list(values)


def stop(kind):
    raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "generator": GeneratorExit}[kind]()


class Unreadable(Exception):
    def __str__(self):
        raise SystemExit


def raise_unreadable():
    raise Unreadable


def exit_at_once(code):
    os._exit(code)


def crash():
    os.abort()


def spin():
    while True:
        pass


def compute():
    """Some minutes in C, where no other thread runs meanwhile."""
    return 3 ** (10**9) % 7


def sleep():
    time.sleep(60)


def nest_a_result(depth):
    result = []
    for _ in range(depth):
        result = [result]
    return result


def return_object():
    return object()


def take(gibibytes):
    return len(bytearray(int(gibibytes * 2**30)))


def chatter():
    print('{"result": 7, "events": {}}')
    os.write(1, b'{"result": 7, "events": {}}\n')
    return sys.stdin.read()


def order_of_a_set(texts):
    return list(set(texts))


def environment():
    return dict(os.environ)


def attempt(what, path):
    """Do it, and say what stopped it; None if nothing did."""
    attempts = {
        "write": lambda: Path(path).write_text("x"),
        "append": lambda: os.open(path, os.O_APPEND | os.O_WRONLY),
        "create": lambda: os.open(path, os.O_CREAT | os.O_WRONLY),
        "read": lambda: Path(path).read_text(),
        "remove": lambda: os.remove(path),
        "folder": lambda: os.mkdir(path),
        "connect": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
        "look up": lambda: socket.getaddrinfo("localhost", 80),
        "shell": lambda: os.system(f"touch {path}"),
        "process": lambda: subprocess.run(["touch", path], check=True),
        "fork": os.fork,
        "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "kill": lambda: os.kill(os.getppid(), 0),
        "C": lambda: ctypes.CDLL(None),
    }
    try:
        attempts[what]()
    except OSError as error:
        return type(error).__name__
    return None


class Counter:
    """What a factory makes: the number of calls shows whether the process is the same."""

    def __init__(self, start):
        if start < 0:
            raise ValueError(f"start={start} must be at least 0")
        self.calls = start

    def count(self):
        self.calls += 1
        return self.calls

    def process(self):
        return os.getpid()
