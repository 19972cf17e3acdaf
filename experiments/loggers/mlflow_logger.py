"""Sends the metrics of a run to MLflow. mlflow is imported in this module only."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from treeshare.experiments.results.rows import FailedSearch, Row
from treeshare.experiments.results.summary import Summary, Totals

from .contents import flat, logged_config, run_key
from .metrics import STEP, Metrics

_MOST_METRICS = 1000  # of one request to MLflow
_MOST_PARAMS = 100  # of one request to MLflow
_SECONDS = 2.0  # between requests, so that quick puzzles share one


class MLflowLogger:
    """Logs to MLflow, with the number of finished puzzles as the step.

    The run at MLflow is found again by its tag `treeshare.run`. A resumed or finished run sends
    only the puzzles that are not there yet, so no point is there twice.

    Args:
        tracking_uri: the server or the local store; None takes MLFLOW_TRACKING_URI, or MLflow's
            default, a file in the working directory.
        experiment: the experiment's name; None takes MLFLOW_EXPERIMENT_NAME, or "treeshare".
        name: the run's name; None takes task, policy, model and seed.
        tags: the run's tags.

    Raises:
        ImportError: mlflow is not installed.
    """

    replays = True
    logs_finished = True

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment: str | None = None,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        try:
            import mlflow
            from mlflow.tracking.context.registry import resolve_tags
        except ImportError as error:
            raise ImportError('logger=mlflow needs `pip install "treeshare[mlflow]"`') from error
        self._mlflow = mlflow
        self._tracking_uri = tracking_uri
        self._experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "treeshare"
        self._name = name
        self._tags = {**resolve_tags(), **(tags or {})}
        self._client: Any = None
        self._run_id = ""
        self._metrics = Metrics()
        self._num_there = 0  # puzzles that the run at MLflow has
        self._waiting: list[Any] = []  # metrics that are not sent yet
        self._sent = 0.0  # when the last were sent

    def start(self, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        """Begin the run at MLflow, or find it there.

        Raises:
            ConnectionError: the server cannot be reached, or refuses the run.
        """
        self._metrics, self._num_there, self._waiting = Metrics(), 0, []
        try:
            self._client = self._mlflow.MlflowClient(self._tracking_uri)
            experiment, key = self._experiment_id(), run_key(directory)
            found = self._client.search_runs([experiment], f"tags.`treeshare.run` = '{key}'")
            if found:
                self._run_id = found[0].info.run_id
                self._num_there = int(found[0].data.metrics.get(STEP, 0))
                self._client.update_run(self._run_id, status="RUNNING")
                return
            tags = self._tags | {"treeshare.run": key}
            run = self._client.create_run(experiment, tags=tags, run_name=self._name or title)
            self._run_id = run.info.run_id
            self._log_params(flat(logged_config(config, directory)))
        except self._mlflow.MlflowException as error:
            raise ConnectionError(f"mlflow: {error}") from error

    def puzzle(self, row: Row, totals: Totals) -> None:
        """Log a point of every metric, unless the run at MLflow has the puzzle."""
        metrics = self._metrics.of_puzzle(row, totals)
        if totals.puzzles > self._num_there:
            self._add(metrics)

    def failure(self, failure: FailedSearch) -> None:
        """Log how many puzzles have failed so far."""
        self._add(self._metrics.of_failure())

    def finish(self, summary: Summary | None) -> None:
        """Log the run's rows and its configuration as files, and end the run at MLflow."""
        if not self._run_id:
            return
        try:
            self._send()
            if summary is not None:
                for name in ("config.yaml", "results.jsonl"):
                    self._client.log_artifact(self._run_id, str(summary.directory / name))
        finally:
            is_right = summary is not None and not summary.failures
            self._client.set_terminated(self._run_id, "FINISHED" if is_right else "FAILED")
            self._run_id = ""

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self._experiment))
            except self._mlflow.MlflowException:  # another job has made it in the meantime
                found = self._client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _log_params(self, values: Mapping[str, Any]) -> None:
        params = [
            self._mlflow.entities.Param(_valid(key), str(value)) for key, value in values.items()
        ]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._run_id, params=params[start : start + _MOST_PARAMS])

    def _add(self, metrics: Mapping[str, float]) -> None:
        """Send metrics soon. Those of one puzzle go in one request, so that all or none arrive."""
        if len(self._waiting) + len(metrics) > _MOST_METRICS:
            self._send()
        now = int(time.time() * 1000)
        make = self._mlflow.entities.Metric
        step = self._metrics.num_puzzles
        self._waiting += [make(_valid(key), float(v), now, step) for key, v in metrics.items()]
        if time.monotonic() - self._sent > _SECONDS:
            self._send()

    def _send(self) -> None:
        if self._waiting:
            self._client.log_batch(self._run_id, metrics=self._waiting)
        self._waiting, self._sent = [], time.monotonic()


def _valid(name: str) -> str:
    """The name with `_` for characters that MLflow refuses; a grade may be named by the user."""
    return re.sub(r"[^\w\-. /]", "_", name)
