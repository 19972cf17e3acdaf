"""Sends the results of a run to Weights & Biases. wandb is imported in this module only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from glob import escape
from itertools import count
from pathlib import Path
from typing import Any

from treeshare.experiments.results.rows import FailedSearch, Row
from treeshare.experiments.results.sources import user_sources
from treeshare.experiments.results.summary import Summary, Totals

from .contents import TreePage, logged_config, puzzle_table, run_key, tree_pages
from .metrics import OTHER_AXES, STEP, Metrics


class WandbLogger:
    """Logs to Weights & Biases, offline unless the environment or an argument says otherwise.

    An argument that is None is wandb's environment variable, such as WANDB_PROJECT; without the
    variable it has the default below. Every metric is drawn over the number of finished puzzles.

    wandb cannot append to an offline run. All rows on disk are therefore logged again, and the
    earlier log is moved to `wandb/earlier-N`, so that one `wandb sync` of `wandb/offline-run-*`
    uploads every puzzle once. Puzzles that are at wandb already, because the run was online or an
    earlier log was synced, are left out: wandb appends the others to the same run.

    Under `wandb agent` the run is online by default, in the sweep's project and under the id that
    the agent has given it.

    Args:
        project: the project's name at wandb; WANDB_PROJECT, or "treeshare".
        entity: the user or team; WANDB_ENTITY, or the user's default.
        name: the run's name; WANDB_NAME, or task, policy, model and seed.
        group: the name under which runs are grouped; WANDB_RUN_GROUP, or the hash in the
            directory's name, which the seeds of one configuration share.
        job_type: the kind of run; WANDB_JOB_TYPE, or "search".
        tags: the run's tags; WANDB_TAGS, separated by commas, or none.
        notes: a description of the run; WANDB_NOTES, or none.
        mode: "offline" (`wandb sync` uploads later), "online" or "disabled"; WANDB_MODE, or
            "offline".
        dir: where the folder `wandb` is made; WANDB_DIR, or the run's directory.
        tree_page: makes an HTML page of a tree's file, for the table of puzzles; None leaves the
            trees out of the table.

    Raises:
        ValueError: the mode is unknown, or it is "online" without a login.
    """

    replays = True
    logs_finished = True

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        mode: str | None = None,
        dir: str | None = None,
        tree_page: TreePage | None = None,
    ) -> None:
        is_sweep = bool(os.environ.get("WANDB_SWEEP_ID"))
        if mode not in (None, "offline", "online", "disabled"):
            raise ValueError(f"mode={mode} must be offline, online or disabled")
        mode = mode or os.environ.get("WANDB_MODE") or ("online" if is_sweep else "offline")
        self._is_offline = mode in ("offline", "dryrun")
        is_online = not self._is_offline and mode != "disabled"
        if not is_online:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported
        import wandb  # here, as it is slow to import

        self._wandb = wandb
        if is_online and not wandb.login(prompt=False, verify=False):
            raise ValueError(f"mode={mode} needs `wandb login` or WANDB_API_KEY")
        self._is_sweep = is_sweep
        self._mode = mode
        self._given = {
            "project": project,
            "entity": entity,
            "name": name,
            "group": group,
            "job_type": job_type,
            "tags": None if tags is None else list(tags),
            "notes": notes,
            "dir": dir,
        }
        self._tree_page = tree_page
        self._run: Any = None
        self._metrics = Metrics()
        self._num_there = 0  # puzzles that the run at wandb has
        self._next_step: int | None = None  # of wandb's own counter; None leaves it to wandb
        self._folders: list[str] = []  # environment variables that `_keep_files_in` set

    def start(self, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        """Begin or resume the run at wandb.

        Raises:
            ConnectionError: wandb cannot be reached.
            OSError: a file of the run's directory cannot be read, or an earlier log not be moved.
        """
        arguments = self._arguments(directory, title)
        self._metrics, self._num_there, self._next_step = Metrics(), 0, None
        if self._is_offline:
            self._keep_files_in(directory / "wandb")
            folder = Path(arguments["dir"] or os.environ["WANDB_DIR"], "wandb")
            if run_id := arguments["id"] or os.environ.get("WANDB_RUN_ID"):
                _move_away(folder, run_id)
                self._num_there, self._next_step = _uploaded(folder, run_id)
        self._run = None
        try:
            self._run = self._wandb.init(
                **arguments,
                resume=None if self._is_offline else "allow",
                reinit="create_new" if self._wandb.run else None,  # a run of the user's goes on
                config=logged_config(config, directory),
                allow_val_change=True,
                settings={"quiet": True} if self._is_offline else None,
            )
        except self._wandb.Error as error:
            raise ConnectionError(f"wandb: {error}") from error
        finally:
            if self._run is None:
                self._unset_folders()
        if self._run.resumed:
            self._num_there = self._run.summary.get(STEP, 0)
        for axis in (STEP, *OTHER_AXES):
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric=STEP)
        self._log_code(directory, config)

    def puzzle(self, row: Row, totals: Totals) -> None:
        """Log a point of every metric, unless the run at wandb has the puzzle."""
        metrics = self._metrics.of_puzzle(row, totals)
        if totals.puzzles > self._num_there:
            self._log(metrics)

    def failure(self, failure: FailedSearch) -> None:
        """Log how many puzzles have failed so far."""
        self._log(self._metrics.of_failure() | {STEP: self._metrics.num_puzzles})

    def finish(self, summary: Summary | None) -> None:
        """Log the table of all puzzles and the trees, and end the run at wandb."""
        run = self._run
        if run is None:
            return
        is_right = summary is not None and not summary.failures
        with ExitStack() as ends:  # each of them is done, whatever the others raise
            ends.callback(self._unset_folders)
            ends.callback(run.finish, exit_code=0 if is_right else 1)
            if summary is not None:
                self._log_results(summary)
        self._run = None

    def _arguments(self, directory: Path, title: str) -> dict[str, Any]:
        """The arguments of `wandb.init` that name the run; None leaves one to the environment."""
        defaults = {
            "project": ("WANDB_PROJECT", "treeshare"),
            "entity": ("WANDB_ENTITY", None),
            "name": ("WANDB_NAME", title),
            "group": ("WANDB_RUN_GROUP", directory.name.partition("-")[0]),
            "job_type": ("WANDB_JOB_TYPE", "search"),
            "tags": ("WANDB_TAGS", None),
            "notes": ("WANDB_NOTES", None),
            "dir": ("WANDB_DIR", str(directory)),
            "id": ("WANDB_RUN_ID", run_key(directory)),
        }
        arguments: dict[str, Any] = self._given | {"mode": self._mode}
        for key, (variable, default) in defaults.items():
            if arguments.get(key) is None:
                arguments[key] = None if os.environ.get(variable) else default
        if self._is_sweep:  # the sweep has all three; wandb would warn about others
            arguments |= dict.fromkeys(("project", "entity", "id"))
        return arguments

    def _log(self, values: Mapping[str, Any]) -> None:
        """Log values as a step of their own."""
        self._run.log(values, step=self._next_step, commit=True)
        self._next_step = None  # wandb goes on counting

    def _log_code(self, directory: Path, config: Mapping[str, Any]) -> None:
        if sources := user_sources(config):
            artifact = self._wandb.Artifact(f"code-{directory.name}", type="code")
            for name, path in sources.items():
                artifact.add_file(str(path), name=name)
            self._run.log_artifact(artifact)

    def _log_results(self, summary: Summary) -> None:
        self._run.summary.update(
            self._metrics.of_run(summary.totals) | {"num_problems": summary.num_problems}
        )
        pages = tree_pages(summary, self._tree_page) if self._tree_page else {}
        columns, rows = puzzle_table(summary)
        table = self._wandb.Table(columns=[*columns, "tree"])
        for cells in rows:
            page = pages.get(cells[0])
            tree = None if page is None else self._wandb.Html(page, inject=False)
            table.add_data(*cells, tree)
        self._log({"puzzles_table": table, STEP: summary.totals.puzzles})
        if summary.trees:
            artifact = self._wandb.Artifact(f"trees-{summary.directory.name}", type="trees")
            artifact.add_dir(str(summary.trees[0].parent.absolute()), policy="immutable")
            self._run.log_artifact(artifact)

    def _keep_files_in(self, folder: Path) -> None:
        """Set wandb's folders, except those that the user has set."""
        for name in ("DATA", "CACHE", "ARTIFACT"):
            variable = f"WANDB_{name}_DIR"
            if variable not in os.environ:
                os.environ[variable] = str((folder / name.lower()).absolute())
                self._folders.append(variable)

    def _unset_folders(self) -> None:
        if not self._folders:
            return
        for variable in self._folders:
            del os.environ[variable]
        self._folders = []
        if self._wandb.run is None:
            self._wandb.teardown()  # so that the next run of this process gets its own folders


def _move_away(folder: Path, run_id: str) -> None:
    """Move earlier offline logs of a run to where `wandb sync` does not look for logs."""
    for log in sorted(folder.glob(f"offline-run-*-{escape(run_id)}*")):
        if {path.name for path in log.glob("*.wandb")} <= {f"run-{run_id}.wandb"}:  # or no file yet
            names = (folder / f"earlier-{number}" for number in count(1))
            earlier = next(path for path in names if not path.exists())
            earlier.mkdir()
            log.rename(earlier / log.name)


def _uploaded(folder: Path, run_id: str) -> tuple[int, int | None]:
    """What wandb has of a run whose logs were synced or online.

    Returns:
        The number of its puzzles, and wandb's next step; 0 and None if nothing was uploaded.
    """
    name = f"run-{escape(run_id)}.wandb"
    logs = [*folder.glob(f"earlier-*/*/{name}.synced"), *folder.glob(f"run-*/{name}")]
    puzzles, steps = 0, None
    for log in logs:
        path = log.parent / "files" / "wandb-summary.json"
        if path.exists():
            summary = json.loads(path.read_text())
            puzzles = max(puzzles, summary.get(STEP, 0))
            steps = max(steps or 0, summary.get("_step", -1) + 1)
    return puzzles, steps
