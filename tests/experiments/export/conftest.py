"""Finished runs on the mock engine, and the export command."""

import json
import shutil
import sys

import pytest
from hydra import compose, initialize_config_module
from places import PARTS

from treeshare.experiments.export.export import main
from treeshare.experiments.run import run


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(PARTS)])


@pytest.fixture(scope="session")
def searched(tmp_path_factory):
    """Runs a configuration once, and returns the directory of the run, which must not be edited."""
    done = {}

    def call(*overrides):
        if overrides not in done:
            output = f"output_dir={tmp_path_factory.mktemp('searched')}"
            with initialize_config_module("treeshare.conf", version_base="1.3"):
                cfg = compose("config", ["engine=mock", "progress=false", output, *overrides])
            done[overrides] = run(cfg).directory
        return done[overrides]

    return call


@pytest.fixture
def solved(searched, tmp_path):
    """A copy of a run of two training puzzles of the Game of 24, which the oracle solves."""
    directory = searched("task.split=all", "task.limit=2", "evaluator=oracle")
    return shutil.copytree(directory, tmp_path / directory.name)


@pytest.fixture
def export(monkeypatch, capfd):
    """The command; returns its exit code, its lines, and what it prints to standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["treeshare-export", *map(str, arguments)])
        code = main()
        out, err = capfd.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return call


@pytest.fixture
def edit():
    """Changes each line of a file of JSON lines, in place; a tree is one line."""

    def call(path, change):
        data = [json.loads(line) for line in path.read_text().splitlines()]
        for one in data:
            change(one)
        path.write_text("".join(json.dumps(one) + "\n" for one in data))

    return call
