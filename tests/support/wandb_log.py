"""Reads the offline logs of wandb with wandb's own program, as `wandb leet inspect` does."""

import json
import subprocess
from functools import cached_property
from pathlib import Path


class WandbLog:
    """The records of one offline run.

    Args:
        folder: a folder `offline-run-...`.
    """

    def __init__(self, folder):
        from wandb.util import get_core_path

        (file,) = Path(folder).glob("*.wandb")
        command = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
        command += ["--run-file", str(file), str(file.parents[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        self.folder, self.file = Path(folder), file
        self.records = [json.loads(line) for line in done.stdout.splitlines()]

    def of_type(self, name):
        return [record[name] for record in self.records if record["type"] == name]

    @cached_property
    def run(self):
        (run,) = self.of_type("run")
        return run

    @property
    def config(self):
        config = dict(self.run["config"]["update"])
        del config["_wandb"]
        return config

    @property
    def history(self):
        """The rows of metrics, without those that wandb adds."""
        items = [history["item"] for history in self.of_type("history")]
        return [{k: v for k, v in item.items() if k[0] != "_"} for item in items]

    @property
    def puzzles(self):
        """The rows of metrics of finished puzzles."""
        return [row for row in self.history if "puzzle/nodes" in row]

    @property
    def summary(self):
        merged = {}
        for summary in self.of_type("summary"):
            merged |= summary.get("update", {})
        return merged

    @property
    def axes(self):
        """Metric or pattern -> the metric that it is drawn over."""
        return {
            metric.get("name") or metric["glob_name"]: metric.get("step_metric")
            for metric in self.of_type("metric")
        }

    @property
    def artifacts(self):
        """Type -> the names of the files in it."""
        return {
            artifact["type"]: [entry["path"] for entry in artifact["manifest"]["contents"]]
            for artifact in self.of_type("artifact")
        }

    @property
    def exit_code(self):
        (end,) = self.of_type("exit")
        return end.get("exit_code", 0)

    @property
    def table(self):
        """The table of puzzles, as rows by column, with the text of each page in it."""
        (artifact,) = (a for a in self.of_type("artifact") if a["type"] == "run_table")
        contents = artifact["manifest"]["contents"]
        files = {entry["path"]: Path(entry["local_path"]).read_text() for entry in contents}
        table = json.loads(files["puzzles_table.table.json"])
        for row in table["data"]:
            row[:] = [files[cell["path"]] if isinstance(cell, dict) else cell for cell in row]
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def offline_folders(run_directory):
    return sorted(Path(run_directory).glob("wandb/offline-run-*"))


def only_log(run_directory):
    """The only offline log that `wandb sync` would find."""
    (folder,) = offline_folders(run_directory)
    return WandbLog(folder)
