"""The task of a run is made again, without running code that its configuration names."""

import pytest
from task_options import FILES

from treeshare.experiments.export.run_task import make_task
from treeshare.experiments.runs.config import SetupError
from treeshare.tasks import Countdown, CountdownVerifier, Game24

COUNTDOWN = {"_target_": "treeshare.tasks.Countdown", "numbers": 3, "limit": 4}
CALL = {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": ["a"]}]}


def made(node, wanted=(), trust=False):
    return make_task({"task": node}, wanted, trust=trust)


def test_task_and_verifier_are_the_runs():
    run = made({**COUNTDOWN, "shard": "0/2", "verifier": None})
    assert isinstance(run.task, Countdown) and isinstance(run.verifier, CountdownVerifier)
    assert list(run.problems) == [problem.id for problem in run.task.problems()]
    assert len(run.problems) == 4
    assert run.parameters["numbers"] == 3 and run.parameters["largest"] == 25  # its default
    assert "shard" not in run.parameters


def test_verifier_has_its_parameters():
    path = str(FILES / "math.jsonl")
    verifier = {"_target_": "treeshare.tasks.MathVerifier", "path": path, "answer": "level"}
    node = {"_target_": "treeshare.tasks.MathProblems", "path": path, "verifier": verifier}
    assert made(node).verifier.answer == "level"


@pytest.mark.parametrize(
    "target", ["treeshare.tasks.arithmetic.game24.Game24", "treeshare.tasks.Game24"]
)
def test_classes_are_known_by_both_names(target):
    assert isinstance(made({"_target_": target, "limit": 1}).task, Game24)


HOSTILE = {
    "function": {"_target_": "os.mkdir", "path": "made"},
    "call": CALL,
    "through our modules": {"_target_": "treeshare.tasks.sandbox.parent.os.mkdir", "path": "made"},
    "our own other classes": {"_target_": "treeshare.tasks.sandbox.parent.Sandbox", "module": "os"},
    "verifier": {**COUNTDOWN, "verifier": {"_target_": "os.mkdir", "path": "made"}},
    "user's": {"_target_": "bare_task.Bare", "size": 3},
}


@pytest.mark.parametrize("node", HOSTILE.values(), ids=HOSTILE)
def test_other_classes_are_refused_and_not_called(node, tmp_path):
    with pytest.raises(SetupError, match=r"^task(\.verifier)?=.* is not of this package: --trust"):
        made(node)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "more",
    [{"sampling": CALL}, {"prompts": {"step": CALL}}, {"seed": CALL}, {"_partial_": True}, CALL],
    ids=["sampling", "prompts", "seed", "partial", "arguments"],
)
def test_parameters_that_name_classes_make_nothing(more, tmp_path):
    with pytest.raises(SetupError):
        made({**COUNTDOWN, **more, "_target_": COUNTDOWN["_target_"]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("node", [None, "text", {}, {"_target_": 3}], ids=range(4))
def test_task_without_a_class_is_refused(node):
    with pytest.raises(SetupError, match="task names no class"):
        made(node)


def test_trusted_classes_are_made():
    verifier = {"_target_": "bare_task.Likely"}
    run = made({"_target_": "bare_task.Bare", "size": 3, "verifier": verifier}, trust=True)
    assert list(run.problems) == ["bare/0", "bare/1", "bare/2"]
    assert run.verifier.check(None, "likely")
    assert run.parameters["size"] == 3


def test_puzzles_of_a_larger_limit_are_found():
    wanted = {problem.id for problem in Countdown(numbers=3, limit=9).problems()}
    assert made(COUNTDOWN, wanted).problems.keys() == wanted
    games = {problem.id for problem in Game24(limit=30).problems()}
    node = {"_target_": "treeshare.tasks.Game24", "limit": 2}
    assert made(node, games).problems.keys() > games
    assert len(made(COUNTDOWN, {"countdown/unknown"}).problems) == 4
