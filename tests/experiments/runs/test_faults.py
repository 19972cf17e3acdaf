"""A run that is killed, interrupted or out of disk space at any write can be resumed.

No result is lost, doubled or changed.
"""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from places import PARTS, ROOT

from treeshare.experiments.results.directory import FailedSearch, JsonLines, write_atomically
from treeshare.experiments.runs.config import SetupError

BARE = {
    "task": {"_target_": "bare_task.Bare", "size": 3, "verifier": {"_target_": "bare_task.Likely"}},
    "record": True,
}
ROW = FailedSearch("p/1", "ValueError", "no", "trace")


class Disk:
    """Counts writes, syncs and replacements below a folder, and lets one of them fail."""

    def __init__(self, monkeypatch, folder):
        self.at, self.fault, self.count = None, None, 0
        self.fsync, self.replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self._fsync)
        monkeypatch.setattr(os, "replace", self._replace)

    def arm(self, at, fault):
        self.at, self.fault, self.count = at, fault, 0

    def _point(self):
        self.count += 1
        if self.count == self.at:
            raise self.fault

    def _fsync(self, fd):
        self._point()
        self.fsync(fd)
        self._point()

    def _replace(self, source, target, **more):
        self._point()
        self.replace(source, target, **more)
        self._point()


@pytest.fixture
def disk(monkeypatch, tmp_path):
    return Disk(monkeypatch, tmp_path)


def results(directory):
    rows = [json.loads(line) for line in (directory / "results.jsonl").read_text().splitlines()]
    trees = {path.name: path.read_text() for path in (directory / "trees").iterdir()}
    return [{**row, "seconds": 0, "session": 0} for row in rows], trees


@pytest.mark.parametrize("kind", ["no space", "interrupt"])
def test_every_point_of_a_run(kind, disk, run_with, run_directory, tmp_path):
    disk.arm(None, None)
    run_with(**BARE)
    num_points, whole = disk.count, results(run_directory())
    assert num_points > 30
    run_directory().rename(tmp_path / "whole")
    for point in range(1, num_points + 1, 3):
        if kind == "interrupt":
            disk.arm(point, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                run_with(**BARE)
        else:
            disk.arm(point, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            with pytest.raises(SetupError, match="No space left on device") as info:
                run_with(**BARE)
            assert "\n" not in str(info.value)
        disk.arm(None, None)
        assert not run_with(**BARE).failures
        assert results(run_directory()) == whole
        assert not list(run_directory().rglob("*.tmp"))
        run_directory().rename(tmp_path / f"after-{point}")


def test_a_row_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path, disk):
    path = tmp_path / "rows.jsonl"
    lines = JsonLines(path, FailedSearch)
    lines.append(ROW)
    before = path.read_bytes()
    disk.arm(1, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(OSError, match=r"No space left on device: '.*rows\.jsonl'"):
        lines.append(ROW)
    assert path.read_bytes() == before and lines.rows == [ROW]
    lines.append(ROW)
    assert path.read_bytes() == 2 * before
    lines.close()


def test_half_a_row_is_taken_back(tmp_path):
    """A limit on the file's size writes part of a line, as a full disk does."""
    code = """
import resource, sys
from pathlib import Path
from treeshare.experiments.results.directory import FailedSearch, JsonLines, write_atomically
folder = Path(sys.argv[1])
lines = JsonLines(folder / "rows.jsonl", FailedSearch)
row = FailedSearch("p", "E", "m", "t" * 300)
lines.append(row)
size = (folder / "rows.jsonl").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
for write in (lambda: lines.append(row), lambda: write_atomically(folder / "t.json", "x" * 9999)):
    try:
        write()
    except OSError as error:
        print(error)
assert (folder / "rows.jsonl").stat().st_size == size
print(sorted(path.name for path in folder.iterdir()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    first, second, names = done.stdout.splitlines()
    assert first == f"[Errno 27] File too large: '{tmp_path}/rows.jsonl'"
    assert second == f"[Errno 27] File too large: '{tmp_path}/t.json'"
    assert names == "['rows.jsonl']"


KILLS = """
import os, signal, sys
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf, open_dict
from treeshare.experiments.results import directory as record
from treeshare.experiments.runs import resumable_run

record.software = dict
with initialize_config_module("treeshare.conf", version_base="1.3"):
    cfg = compose("config", ["engine=mock", "search=io", "expander=sample", "evaluator=logprob"])
with open_dict(cfg):
    cfg.update(eval(sys.argv[1]))
fsync, replace, count = os.fsync, os.replace, 0

def run(at):
    def point():
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
    def synced(fd):
        point(); fsync(fd); point()
    def replaced(*args):
        point(); replace(*args); point()
    if (child := os.fork()) == 0:
        os.fsync, os.replace = synced, replaced
        resumable_run.run_or_resume(cfg)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for at in range(1, 60, 4):
    cfg.output_dir = f"at-{at}"
    assert run(at) in (-9, 0) and run(0) == 0
    print(at)
"""


def test_kills(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLS, repr(BARE)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PARTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [results(path.parent) for path in sorted(tmp_path.rglob("results.jsonl"))]
    assert len(found) == len(done.stdout.split()) == 15
    assert all(sorted(rows, key=str) == sorted(found[0][0], key=str) for rows, _ in found)
    assert all(trees == found[0][1] and len(trees) == 3 for _, trees in found)


def test_kills_at_random_moments():
    """A round of each kind; the program does any number."""
    script = ROOT / "tests/support/kill_rounds.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "5 rounds, " in done.stdout


def test_interrupted_write_leaves_no_temporary_file(tmp_path, disk):
    path = tmp_path / "tree.json"
    write_atomically(path, "old")
    disk.arm(1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["tree.json"]


IMPORTING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job may ignore it
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "omegaconf":
            print("importing", flush=True)
            while True:
                time.sleep(0.01)
sys.meta_path.insert(0, Slow())
from treeshare.experiments.run import main
sys.exit(main())
"""


def test_interrupt_while_importing_is_one_line_and_code_130(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTING, "engine=mock"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 130
        finally:
            process.kill()  # leaving the block waits for it
        assert process.stderr.read() == "treeshare: interrupted; the same command resumes\n"


def test_output_that_cannot_be_written_is_one_line(treeshare, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        done = treeshare("engine=mock", "task.limit=1")
    assert done.code == 2
    assert done.err == "treeshare: standard output: No space left on device\n"
