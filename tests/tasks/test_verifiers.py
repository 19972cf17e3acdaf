"""The public names of `treeshare.tasks`: defaults, and the verifier that belongs to each task."""

import inspect
import subprocess
import sys
from functools import cache

import pytest
import yaml
from places import PACKAGE
from task_options import FILES

from treeshare import tasks

MADE = {
    "Blocksworld": {"limit": 1},
    "Countdown": {"limit": 1, "numbers": 3},
    "Crosswords": {"path": f"{FILES}/crosswords.json"},
    "Game24": {"limit": 1},
    "MathProblems": {"path": f"{FILES}/math.jsonl"},
    "SetIntersection": {"limit": 1},
    "Sorting": {"limit": 1},
}
"""`reasoning_gym/test_task.py` tests `ReasoningGym`, whose processes are slow to start."""
VERIFIERS = {name: f"{name.removesuffix('Problems')}Verifier" for name in MADE}


@cache
def make(name):
    return getattr(tasks, name)(**MADE[name])


def task_nodes():
    """Return the configuration of each task class by the file's name."""
    files = sorted((PACKAGE / "conf" / "task").glob("*.yaml"))
    nodes = {path.stem: yaml.safe_load(path.read_text()) for path in files}
    tasks = {name: node.get("task", node) for name, node in nodes.items()}
    return {name: node for name, node in tasks.items() if "_target_" in node}


@pytest.mark.parametrize("name", MADE)
def test_every_task_has_a_verifier_and_it_fits(name):
    task = make(name)
    assert isinstance(task, tasks.Task)
    verifier = tasks.verifier_of(task)
    assert type(verifier).__name__ == VERIFIERS[name]
    assert vars(verifier).keys() >= set(inspect.signature(type(verifier)).parameters)
    problem = task.problems()[0]
    assert verifier.promise(problem, task.root(problem)) == 1.0
    assert verifier.check(problem, "no answer") is False


def test_a_verifier_of_the_same_class_is_found_for_a_subclass():
    class Mine(tasks.Game24):
        pass

    assert isinstance(tasks.verifier_of(Mine(limit=1)), tasks.Game24Verifier)


def test_a_task_without_a_verifier_is_refused():
    class Mine:
        pass

    with pytest.raises(TypeError, match=r"task=Mine has no registered verifier") as error:
        tasks.verifier_of(Mine())
    assert "\n" not in str(error.value)


def test_a_verifier_can_be_registered():
    class Mine:
        def __init__(self, right):
            self.right = right

    class MyVerifier:
        def __init__(self, right):
            self.right = right

    @tasks.verifier_of.register
    def _make_verifier(task: Mine) -> MyVerifier:
        return MyVerifier(task.right)

    assert tasks.verifier_of(Mine("7")).right == "7"


@pytest.mark.parametrize("name", MADE)
def test_no_task_holds_its_verifier(name):
    """A policy reaches its task, so it must not find the verifier there."""
    task = make(name)
    names = {*dir(task), *vars(task)}
    held = [key for key in names if not key.startswith("__") and "erif" in key]
    held += [key for key, value in vars(task).items() if hasattr(value, "check")]
    assert held == []


@pytest.mark.parametrize("name", task_nodes())
def test_a_configuration_has_the_defaults_of_its_class(name):
    """A task made in Python is the command's: it has the same parameters and values."""
    node = task_nodes()[name]
    for part in (node, node["verifier"]):
        target = part["_target_"].removeprefix("treeshare.tasks.")
        given = {key: part[key] for key in part if key not in ("_target_", "verifier")}
        parameters = inspect.signature(getattr(tasks, target)).parameters
        assert list(given) == list(parameters), target
        for key, value in given.items():
            default = parameters[key].default
            if str(value).startswith(("???", "${task.")):
                continue  # the user sets it, or the task's own value is taken
            assert value == default or (value == {} and default is None), f"{target}.{key}"


def test_every_task_class_has_a_configuration():
    targets = {node["_target_"].removeprefix("treeshare.tasks.") for node in task_nodes().values()}
    assert targets == {*MADE, "ReasoningGym"}


def test_the_import_loads_no_other_package():
    code = (
        "import sys, treeshare.tasks as tasks;"
        "assert not {'torch', 'numpy', 'reasoning_gym', 'math_verify', 'treeshare.search'}"
        " & set(sys.modules), sorted(sys.modules);"
        "assert all(hasattr(tasks, name) for name in tasks.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
