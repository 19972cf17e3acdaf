"""The wandb logger, offline."""

import json
import os

import pytest

from treeshare.experiments.loggers.wandb_logger import WandbLogger

WANDB = ["engine=mock", "search=io", "task.limit=2", "logger=wandb", "logger.tags=[quick]"]


CONNECTIONS = """
import json, os, sys
def audit(event, args):
    if event.startswith("socket.") and event.partition(".")[2] in ("connect", "getaddrinfo"):
        where = args[1] if event == "socket.connect" else args[0]
        host = where[0] if isinstance(where, tuple) else where
        if event != "socket.connect" or args[0].family != 1:  # AF_UNIX
            with open(os.environ["CONNECTIONS"], "a") as file:
                file.write(json.dumps([event, str(host)]) + "\\n")
sys.addaudithook(audit)
"""


def test_offline_run_sends_nothing_and_keeps_its_files_in_the_run_directory(
    treeshare_process, tmp_path, run_directory
):
    (tmp_path / "sitecustomize.py").write_text(CONNECTIONS)
    log = tmp_path / "connections"
    env = {"HOME": str(tmp_path / "home"), "CONNECTIONS": str(log), "PYTHONPATH": str(tmp_path)}
    done = treeshare_process(*WANDB, **env)
    assert done.code == 0, done.err
    (folder,) = (run_directory() / "wandb").glob("offline-run-*")
    assert folder.name.endswith(run_directory().name)
    assert (folder / f"run-{run_directory().name}.wandb").stat().st_size > 0
    assert list(folder.glob("files/media/table/*.json"))
    assert list((run_directory() / "wandb/data").rglob("staging/*"))
    assert not (tmp_path / "wandb").exists() and not (tmp_path / "artifacts").exists()
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    lines = log.read_text().splitlines() if log.exists() else []
    hosts = [json.loads(line)[1] for line in lines]
    assert not [host for host in hosts if not host.startswith(("127.", "localhost", "::1"))]


class FakeRun:
    def __init__(self):
        self.metrics, self.logged, self.exit_code = {}, [], None

    def define_metric(self, name, step_metric=None):
        self.metrics[name] = step_metric

    def log(self, values):
        self.logged.append(values)

    def log_artifact(self, artifact):
        self.logged.append(artifact.type)

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture
def wandb_run(monkeypatch, tmp_path):
    """Records what the logger sends to wandb, and the arguments of `wandb.init`."""
    import wandb

    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    run = FakeRun()

    def init(**arguments):
        run.arguments = arguments
        return run

    monkeypatch.setattr(wandb, "init", init)
    return run


def puzzles_of(run):
    return [values["puzzles"] for values in run.logged if "puzzles" in values]


@pytest.mark.parametrize(("mode", "again"), [("offline", [1, 2, 3]), ("online", [3])])
def test_resumed_offline_run_logs_all_puzzles(mode, again, run_with, wandb_run, monkeypatch):
    """wandb cannot append to an offline run; online it appends by itself."""
    import wandb

    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setenv("REFUSED", "1 5 7 8")
    parts = {
        "task": {
            "_target_": "treeshare.tasks.Game24",
            "limit": 3,
            "verifier": {"_target_": "treeshare.tasks.Game24Verifier"},
        },
        "engine": {"_target_": "troubled_engines.Refusing"},
        "logger": {
            "_target_": "treeshare.experiments.loggers.wandb_logger.WandbLogger",
            "mode": mode,
        },
    }
    assert run_with(**parts).failures
    assert puzzles_of(wandb_run) == [1, 2]
    first = list(wandb_run.logged)
    wandb_run.logged.clear()
    monkeypatch.delenv("REFUSED")
    assert not run_with(**parts).failures
    assert puzzles_of(wandb_run) == again
    if mode == "offline":
        assert wandb_run.logged[:2] == first[:2]


def test_earlier_offline_runs_are_moved_away(wandb_run, tmp_path):
    for number in range(1, 3):
        logger = WandbLogger()
        logger.start(tmp_path, "title", {})
        logger.finish(None)
        (tmp_path / "wandb" / "offline-run-20260101_000000-x").mkdir(parents=True)
        found = sorted(path.parent.name for path in tmp_path.rglob("offline-run-*"))
        assert found == sorted([*(f"earlier-{i}" for i in range(1, number)), "wandb"])


def test_folders_of_wandb_are_set_for_an_offline_run_alone(wandb_run, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_DATA_DIR")
    monkeypatch.setenv("WANDB_CACHE_DIR", "mine")
    logger = WandbLogger()
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    logger.start(tmp_path, "title", {})
    assert os.environ["WANDB_DATA_DIR"] == str(tmp_path / "wandb/data")
    assert os.environ["WANDB_CACHE_DIR"] == "mine"
    logger.finish(None)
    assert "WANDB_DATA_DIR" not in os.environ and os.environ["WANDB_CACHE_DIR"] == "mine"
    logger = WandbLogger(mode="disabled")
    logger.start(tmp_path, "title", {})
    assert "WANDB_DATA_DIR" not in os.environ


def test_curves_are_drawn_over_three_axes(treeshare, wandb_run, run_directory):
    treeshare(*WANDB)
    for axis in ("puzzles", "completion_tokens", "seconds"):
        assert wandb_run.metrics[axis] is None
        assert wandb_run.metrics[f"by_{axis}/*"] == axis
    first, second, table, artifact = wandb_run.logged
    assert (first["puzzles"], second["puzzles"]) == (1, 2)
    assert first["by_puzzles/top1"] == first["by_seconds/top1"] == 0.0
    assert second["completion_tokens"] > first["completion_tokens"]
    assert "puzzle/parse_failures" in first and "puzzles_table" in table and artifact == "trees"


def test_resumed_run_continues_under_the_same_id(treeshare, wandb_run, run_directory, monkeypatch):
    arguments = [*WANDB, "engine._target_=troubled_engines.Refusing", "logger.project=p"]
    monkeypatch.setenv("REFUSED", "1 5 6 7")
    treeshare(*arguments)
    first = wandb_run.arguments
    assert wandb_run.exit_code == 1
    monkeypatch.delenv("REFUSED")
    treeshare(*arguments)
    assert wandb_run.exit_code == 0
    assert wandb_run.arguments["id"] == first["id"] == run_directory().name
    assert wandb_run.arguments["resume"] == "allow"
    assert wandb_run.arguments["group"] == run_directory().name.removesuffix("-seed0")
    assert (first["project"], first["mode"], first["tags"]) == ("p", "offline", ["quick"])
    assert first["config"]["task"]["limit"] == 2


def test_run_that_breaks_off_is_finished_as_failed(treeshare, wandb_run, monkeypatch):
    monkeypatch.setenv("BREAK_AT", "1")
    done = treeshare(*WANDB, "engine._target_=troubled_engines.Interrupted")
    assert done.code == 130
    assert wandb_run.exit_code == 1


def test_unreachable_server_is_one_line(treeshare, monkeypatch):
    import wandb

    def init(**_):
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr(wandb, "init", init)
    done = treeshare(*WANDB)
    assert (done.code, done.err) == (2, "treeshare: logger: wandb: no route to host\n")


def test_online_without_a_login_is_refused(monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "login", lambda **_: False)
    with pytest.raises(ValueError, match="mode=online needs `wandb login`"):
        WandbLogger(mode="online")
