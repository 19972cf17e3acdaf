"""Writes the metrics of a run for TensorBoard. tensorboard is imported in this module only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from treeshare.experiments.results.rows import FailedSearch, Row
from treeshare.experiments.results.summary import Summary, Totals

from .contents import flat, logged_config
from .metrics import Metrics


class TensorBoardLogger:
    """Writes event files for TensorBoard, with the number of finished puzzles as the step.

    Every process writes all rows of the run anew, and files of earlier processes are renamed so
    that TensorBoard no longer reads them: no point is there twice.

    Args:
        dir: the folder of the event files; None takes `tensorboard` in the run's directory.

    Raises:
        ImportError: tensorboard is not installed.
    """

    replays = True
    logs_finished = True

    def __init__(self, dir: str | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                'logger=tensorboard needs `pip install "treeshare[tensorboard]"`'
            ) from error
        self._make_writer = SummaryWriter
        self._dir = dir
        self._writer: Any = None
        self._metrics = Metrics()
        self._settings: dict[str, Any] = {}

    def start(self, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        """Begin the event file of this process.

        Raises:
            OSError: it cannot be written.
        """
        folder = Path(self._dir, directory.name) if self._dir else directory / "tensorboard"
        for path in folder.glob("events.out.tfevents.*"):
            path.rename(path.with_name(path.name.replace("tfevents", "earlier")))
        logged = logged_config(config, directory)
        self._settings = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in flat(logged).items()
        }
        self._metrics = Metrics()
        self._writer = self._make_writer(str(folder))
        self._writer.add_text("title", title)
        self._writer.add_text("config", f"```yaml\n{OmegaConf.to_yaml(logged)}```")

    def puzzle(self, row: Row, totals: Totals) -> None:
        """Write a point of every metric."""
        self._write(self._metrics.of_puzzle(row, totals))

    def failure(self, failure: FailedSearch) -> None:
        """Write how many puzzles have failed so far."""
        self._write(self._metrics.of_failure())

    def finish(self, summary: Summary | None) -> None:
        """Write the final metrics next to the configuration, and close the file."""
        if self._writer is None:
            return
        try:
            if summary is not None:
                metrics = self._metrics.of_run(summary.totals)
                final = {f"final/{name}": metrics[name] for name in metrics}
                self._writer.add_hparams(self._settings, final, run_name=".")
        finally:
            self._writer.close()
            self._writer = None

    def _write(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, self._metrics.num_puzzles)
