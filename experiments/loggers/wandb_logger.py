"""Sends the results of a run to Weights & Biases. wandb is imported in this module only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from treeshare.experiments.results.rows import Row
from treeshare.experiments.results.summary import Summary, Totals


class WandbLogger:
    """Logs to Weights & Biases, by default offline.

    The run's id is the directory's name, so that a resumed run continues the same curves. They are
    drawn over puzzles, completion tokens and wall seconds.

    Offline nothing is sent, and all files are in the run's directory. wandb cannot append to an
    offline run. A resumed run therefore logs the puzzles on disk again and moves the earlier log to
    `wandb/earlier-N`. `wandb sync` of the remaining `wandb/offline-run-*` uploads all puzzles.

    Args:
        project: the project's name at wandb.
        entity: the user or team; None takes wandb's default.
        group: the name under which runs are grouped; None takes the configuration's hash, which
            the seeds of one configuration share.
        tags: the run's tags.
        mode: "offline" (`wandb sync` uploads later), "online" or "disabled".

    Raises:
        ValueError: the mode is unknown, or it is "online" without a login.
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
        if mode not in ("offline", "online", "disabled"):
            raise ValueError(f"mode={mode} must be offline, online or disabled")
        if mode != "online":
            os.environ["WANDB_ERROR_REPORTING"] = "false"  # read when wandb is imported
        import wandb  # here, as it is slow to import

        self._wandb = wandb
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
        self._folders: list[str] = []  # environment variables that `_keep_files_in` set
        self.replays = mode == "offline"

    def start(self, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        """Begin or resume the run at wandb.

        Raises:
            ConnectionError: wandb cannot be reached.
        """
        if self._where["mode"] == "offline":
            self._keep_files_in(directory / "wandb")
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
        finally:
            if self._run is None:
                self._unset_folders()
        for axis in self.AXES:
            self._run.define_metric(axis)
            self._run.define_metric(f"by_{axis}/*", step_metric=axis)

    def puzzle(self, row: Row, totals: Totals) -> None:
        """Log a puzzle's numbers and a point of every curve."""
        figures = asdict(totals)
        axes = {axis: figures.pop(axis) for axis in self.AXES}
        curves = {f"by_{axis}/{name}": figures[name] for axis in axes for name in figures}
        numbers = {k: v for k, v in asdict(row).items() if isinstance(v, int | float)}
        self._run.log(axes | curves | {f"puzzle/{name}": numbers[name] for name in numbers})

    def finish(self, summary: Summary | None) -> None:
        """Log the table of all puzzles and the trees, and end the run at wandb."""
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
        self._unset_folders()

    def _keep_files_in(self, folder: Path) -> None:
        """Set wandb's folders, except those that the user has set, and move earlier runs away."""
        for name in ("DATA", "CACHE", "ARTIFACT"):
            variable = f"WANDB_{name}_DIR"
            if variable not in os.environ:
                os.environ[variable] = str((folder / name.lower()).absolute())
                self._folders.append(variable)
        for run in sorted(folder.glob("offline-run-*")):
            earlier = folder / f"earlier-{len(list(folder.glob('earlier-*'))) + 1}"
            earlier.mkdir()
            run.rename(earlier / run.name)

    def _unset_folders(self) -> None:
        for variable in self._folders:
            del os.environ[variable]
        self._folders = []
