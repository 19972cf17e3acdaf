import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf, open_dict
from places import PARTS

from treeshare.experiments.results import directory as record
from treeshare.experiments.run import main, run

EASY = ["engine=mock", "search=io", "task.limit=3"]


RECORD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ([A-Z]+ .*\n)", re.MULTILINE)


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str  # standard error, without the log records
    log: str  # the log records there, without their times

    @classmethod
    def of(cls, code, out, err):
        return cls(code, out, RECORD.sub("", err), "".join(RECORD.findall(err)))


@pytest.fixture
def treeshare(tmp_path, monkeypatch, capfd):
    """The console command in this process, started in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(PARTS)])

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["treeshare", *args])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        code = main()
        return Done.of(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def mock_config():
    """The configuration of a run on the mock engine, composed once because it is slow."""
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        return compose(
            "config",
            ["engine=mock", "search=io", "expander=sample", "evaluator=logprob", "max_live=1"],
        )


@pytest.fixture
def run_with(mock_config, tmp_path, monkeypatch):
    """Runs the given parts, by group, in `tmp_path`, without the command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record, "software", dict)  # it calls git, which is slow
    monkeypatch.setattr(sys, "path", [*sys.path, str(PARTS)])

    def call(**parts):
        cfg = OmegaConf.create(OmegaConf.to_container(mock_config))
        with open_dict(cfg):
            cfg.update(parts)
        return run(cfg)

    return call


@pytest.fixture
def treeshare_process(tmp_path):
    """The console command as users start it, in `tmp_path`."""

    def call(*args, **env):
        done = subprocess.run(
            [Path(sys.executable).with_name("treeshare"), *args],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PARTS), "CUDA_VISIBLE_DEVICES": "", **env},
            capture_output=True,
            text=True,
            check=False,
        )
        return Done.of(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def run_directory(tmp_path):
    """Finds the only run directory below `tmp_path`."""

    def find():
        (path,) = tmp_path.glob("outputs/*/*/*/[!.]*")  # a killed process leaves a hidden lock
        return path

    return find


@pytest.fixture
def read_rows(run_directory):
    """Reads a JSONL file of the run, without the times and the number of the process."""

    def read(name="results.jsonl"):
        rows = [json.loads(line) for line in (run_directory() / name).read_text().splitlines()]
        left_out = ("seconds", "session")
        return [{key: row[key] for key in row if key not in left_out} for row in rows]

    return read


@pytest.fixture
def write(tmp_path):
    """Writes data to a file of the given name: text as it is, anything else as JSON."""

    def to(name, data):
        path = tmp_path / name
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    return to
