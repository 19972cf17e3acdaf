"""Where a run's figures go besides its directory. The only file that knows wandb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

from .record import Row
from .report import Summary, Totals


class Logger(Protocol):
    def start(self, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        """Searches are about to begin. The directory's name tells runs apart."""
        ...

    def puzzle(self, row: Row, totals: Totals) -> None:
        """A puzzle is finished; `totals` counts it."""
        ...

    def finish(self, summary: Summary | None) -> None:
        """The run is over; None if it broke off."""
        ...


class NoLogger:
    """The run's directory is all."""

    def start(self, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        pass

    def puzzle(self, row: Row, totals: Totals) -> None:
        pass

    def finish(self, summary: Summary | None) -> None:
        pass


class WandbLogger:
    """Weights & Biases; its files lie in the run's directory.

    The run's id is the directory's name, so that a resumed run continues the same curves. These are
    drawn over puzzles, completion tokens and wall seconds.

    Args:
        group: None takes the configuration's hash, so that the seeds of one configuration stand
            together.
        mode: "offline" until `wandb sync`, "online", or "disabled".

    Raises:
        ValueError: no such mode, or "online" without a login.
    """

    AXES = ("puzzles", "completion_tokens", "seconds")

    def __init__(
        self,
        project: str = "treeshare",
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        mode: str = "offline",
    ) -> None:
        import wandb  # slow to import, so not without this logger

        self._wandb = wandb
        if mode not in ("offline", "online", "disabled"):
            raise ValueError(f"mode={mode} must be offline, online or disabled")
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise ValueError("mode=online needs `wandb login` or WANDB_API_KEY")
        self._where: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "tags": list(tags),
            "mode": mode,
        }
        self._group = group
        self._run: Any = None

    def start(self, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        try:
            self._run = self._wandb.init(
                **self._where,
                id=directory.name,
                resume="allow",
                name=title,
                group=self._group or directory.name.partition("-")[0],
                job_type="search",
                config=dict(config),
                allow_val_change=True,
                dir=directory,
                settings=self._wandb.Settings(console="off", quiet=True),
            )
        except self._wandb.Error as error:
            raise ConnectionError(f"wandb: {error}") from error
        for axis in self.AXES:
            self._run.define_metric(axis)
            self._run.define_metric(f"by_{axis}/*", step_metric=axis)

    def puzzle(self, row: Row, totals: Totals) -> None:
        figures = asdict(totals)
        axes = {axis: figures.pop(axis) for axis in self.AXES}
        curves = {f"by_{axis}/{name}": figures[name] for axis in axes for name in figures}
        numbers = {k: v for k, v in asdict(row).items() if isinstance(v, int | float)}
        self._run.log(axes | curves | {f"puzzle/{name}": numbers[name] for name in numbers})

    def finish(self, summary: Summary | None) -> None:
        if self._run is None:
            return
        if summary is not None:
            columns = [f.name for f in fields(Row)]
            rows = [list(asdict(row).values()) for row in summary.rows]
            self._run.log({"puzzles_table": self._wandb.Table(columns=columns, data=rows)})
            if summary.trees:
                artifact = self._wandb.Artifact(f"trees-{summary.directory.name}", type="trees")
                artifact.add_dir(str(summary.trees[0].parent), policy="immutable")
                self._run.log_artifact(artifact)
        self._run.finish(exit_code=0 if summary is not None and not summary.failures else 1)
        self._run = None
