"""The example of docs/add_a_task.md is a task, and its tables are complete."""

import inspect
import re
import sys

import pytest
from page_examples import example
from places import ROOT

from treeshare import tasks
from treeshare.experiments.run import main
from treeshare.tasks import task as protocols

PAGE = (ROOT / "docs" / "add_a_task.md").read_text()
PROTOCOLS = {name: kind for name, kind in vars(protocols).items() if re.match("Has[A-Z]", name)}


@pytest.fixture
def doubling(tmp_path, monkeypatch):
    """Import the example as a module."""
    code, _ = example(PAGE, "doubling.py")
    (tmp_path / "doubling.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "doubling", raising=False)
    import doubling

    return doubling


def test_the_example_has_what_the_page_says(doubling):
    task = doubling.Doubling()
    for protocol in (tasks.Task, tasks.HasMoves, tasks.HasValues, tasks.HasHeuristic):
        assert isinstance(task, protocol)
    verifier = tasks.verifier_of(task)
    problem = task.problems()[1]
    root = task.root(problem)
    (step,) = task.parse("step", root, " 2\n")
    assert step.state == root.to(2)
    assert "".join(task.prompt("step", step.state)).startswith("".join(task.prompt("step", root)))
    assert [found.text for found in task.parse("propose", step.state, "4\n3\nfive")] == [" 4", " 3"]
    (whole,) = task.parse("cot", root, " 2 4 5 10 11")
    assert verifier.check(problem, task.answer(whole.state))
    (wrong,) = task.parse("cot", root, " 2 5 11")
    assert not verifier.check(problem, task.answer(wrong.state))
    assert isinstance(task.parse("step", root, "7"), tasks.ParseFailure)
    assert task.parse_value(root, " sure.") == 1.0


def test_the_command_of_the_page_solves_the_example(doubling, monkeypatch, capfd):
    _, command = example(PAGE, "doubling.py")
    monkeypatch.setattr(sys, "argv", ["treeshare", *command, "engine=mock"])
    assert main() == 0
    assert re.search(r"top-1 +100.0%", capfd.readouterr().out)


def test_the_tables_name_every_member_and_role():
    for name, kind in PROTOCOLS.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*|^\| `grades.*`{name}`.*", PAGE, re.MULTILINE)
        members = [key for key in vars(kind) if not key.startswith("_")]
        members += [key for key in inspect.get_annotations(kind) if key not in members]
        for member in members:
            assert f"`{member}" in row, (name, member)
    section = PAGE.partition("## Roles")[2].partition("\n## ")[0]
    roles = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    items = re.findall("^- (.*?):", inspect.getdoc(protocols.Task.prompt), re.MULTILINE)
    assert roles == re.findall(r"`(\w+)`", " ".join(items))
