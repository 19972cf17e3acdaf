"""The wandb logger, offline."""

import pytest

from treeshare.experiments.loggers import WandbLogger

WANDB = ["engine=mock", "search=io", "task.limit=2", "logger=wandb", "logger.tags=[quick]"]


def test_offline_run_writes_its_files_in_the_run_directory(
    treeshare_process, tmp_path, run_directory
):
    done = treeshare_process(*WANDB, HOME=str(tmp_path / "home"))
    assert done.code == 0, done.err
    (folder,) = (run_directory() / "wandb").glob("offline-run-*")
    assert folder.name.endswith(run_directory().name)
    assert (folder / f"run-{run_directory().name}.wandb").stat().st_size > 0
    assert list(folder.glob("files/media/table/*.json"))
    assert not (tmp_path / "wandb").exists()


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
    """What the logger told wandb, and with which arguments it began."""
    import wandb

    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    run = FakeRun()

    def init(**arguments):
        run.arguments = arguments
        return run

    monkeypatch.setattr(wandb, "init", init)
    return run


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
