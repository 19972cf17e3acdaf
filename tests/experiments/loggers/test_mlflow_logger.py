"""The MLflow logger, with MLflow's local store, which MLflow's client reads back."""

import os

import pytest
from logged_points import expected_points

from treeshare.experiments.loggers.mlflow_logger import MLflowLogger
from treeshare.experiments.results.summary import replayed

pytest.importorskip("mlflow", reason="needs the extra `mlflow`")
pytest.importorskip("sqlalchemy", reason="needs the extra `mlflow`")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
LOGGER = {"_target_": "treeshare.experiments.loggers.mlflow_logger.MLflowLogger"}
FAILED_GAME = "1 5 7 8"  # the third of the three puzzles


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """The bytes of a store with MLflow's tables, which are slow to make."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path.read_bytes()


@pytest.fixture
def client(tmp_path, empty_store, monkeypatch):
    """A client of MLflow's default store for runs in `tmp_path`."""
    import mlflow

    (tmp_path / "mlflow.db").write_bytes(empty_store)
    monkeypatch.chdir(tmp_path)
    return mlflow.MlflowClient()


def only_run(client, experiment="treeshare"):
    found = client.get_experiment_by_name(experiment)
    (run,) = client.search_runs([found.experiment_id])
    return run


def points(client, run):
    """Metric -> its points, as (step, value)."""
    return {
        name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def test_resumed_and_finished_runs_have_each_point_once(client, run_logged, disk_rows):
    run_logged(LOGGER, refused=FAILED_GAME)
    run = only_run(client)
    assert run.info.status == "FAILED"
    assert points(client, run)["failed"] == [(1, 0), (2, 0), (2, 1)]
    for _ in range(2):  # resumed, then finished
        run_logged(LOGGER)
        run = only_run(client)
        assert run.info.status == "FINISHED"
        logged, wanted = points(client, run), expected_points(*disk_rows())
        assert logged.pop("failed") == [(1, 0), (2, 0), (2, 1), (3, 0)]
        del wanted["failed"]
        assert logged == wanted


def test_params_tags_and_files(client, run_logged, run_directory):
    run_logged(LOGGER | {"tags": {"machine": "a"}})
    run = only_run(client)
    assert run.info.run_name == "game24 IO Refusing seed 0"
    assert run.data.params["search._target_"] == "treeshare.search.IO"
    assert run.data.params["task.limit"] == "3" and "logger._target_" not in run.data.params
    assert run.data.tags["machine"] == "a" and "mlflow.user" in run.data.tags
    assert run.data.tags["treeshare.run"].startswith(run_directory().name)
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "results.jsonl"}


def test_keys_and_variables(client, run_logged, empty_store, tmp_path, monkeypatch):
    """A key beats its variable."""
    import mlflow

    for name in ("variable.db", "key.db"):
        (tmp_path / name).write_bytes(empty_store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/variable.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the variable")
    run_logged(LOGGER)
    assert only_run(mlflow.MlflowClient(), "of the variable")
    uri = f"sqlite:///{tmp_path}/key.db"
    run_logged(LOGGER | {"tracking_uri": uri, "experiment": "of the key", "name": "mine"})
    assert only_run(mlflow.MlflowClient(uri), "of the key").info.run_name == "mine"


def test_run_without_a_server_is_refused_in_one_line(run_logged, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Exception, match=r"^logger: mlflow: .*127.0.0.1") as caught:
        run_logged(LOGGER | {"tracking_uri": "http://127.0.0.1:9"})
    assert type(caught.value).__name__ == "SetupError" and "\n" not in str(caught.value)


def test_many_puzzles_and_keys(client, tmp_path, make_row):
    """Requests are bounded: 1,000 metrics or 100 parameters. A grade's name may be any text."""
    rows = [make_row(f"p/{i}", grades={"a (b)": 0.5}) for i in range(60)]
    logger = MLflowLogger()
    logger.start(tmp_path, "title", {f"key{i}": i for i in range(250)})
    for row, totals in replayed(rows, []):
        logger.puzzle(row, totals)
    logger.finish(None)
    run = only_run(client)
    assert len(run.data.params) == 251  # with the directory
    logged = points(client, run)
    assert {len(found) for found in logged.values()} == {60}
    assert logged["grades/a _b_"] == [(i, 0.5) for i in range(1, 61)]


def test_telemetry_is_off(client):
    MLflowLogger()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
