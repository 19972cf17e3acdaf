"""Kills runs at random moments, resumes them, and checks that no puzzle is lost or changed.

    python tests/support/kill_rounds.py --rounds 100

A round is a run of one kind: plain, recorded, overwritten, in shards, or with wandb offline and
overwritten. Each of its commands is killed up to three times (signal 9) before it may end. After
each kill, every row that was ever on disk must still be there, with its tree; no file may hold a
puzzle twice; and every row and tree must be that of a run that was never killed.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf, open_dict
from places import PARTS
from wandb_log import WandbLog

from treeshare.experiments.results import directory as record
from treeshare.experiments.results.meta import read_meta
from treeshare.experiments.runs.resumable_run import run_or_resume

SIZE = 12  # puzzles of a run
SECONDS = 0.3  # about the time that a run takes, from which a moment is drawn
SECONDS_WITH_WANDB = 2.0
KINDS = ("plain", "record", "overwrite", "shards", "wandb")


class Round:
    """One kind of run in a directory of its own.

    Args:
        folder: where the run is kept.
        random: draws the moments.
        reference: the rows and trees of a run that was never killed, by puzzle.
    """

    def __init__(self, folder, random, reference=None):
        self.folder, self.random, self.reference = folder, random, reference
        self.seen = Counter()  # lines of results.jsonl that were ever on disk
        self.num_kills = 0

    def do(self, **options):
        """Kill a command at random moments, then let it end."""
        for _ in range(self.random.randint(1, 3)):
            seconds = self.random.uniform(0, SECONDS_WITH_WANDB if "logger" in options else SECONDS)
            self.num_kills += self._start(options, seconds) == -signal.SIGKILL
            self.check()
            if options.get("overwrite"):  # begin again once more, or resume what was begun
                options["overwrite"] = self.random.random() < 0.5
        options.pop("overwrite", None)
        assert self._start(options) == 0, (self.folder / "output.txt").read_text()
        self.check()

    def _start(self, options, seconds=None):
        """Run a command in a child, which is killed after some seconds."""
        if (child := os.fork()) == 0:
            self._run(options)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _run(self, options):
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "output.txt").open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        cfg = OmegaConf.create(OmegaConf.to_container(CONFIG))
        with open_dict(cfg):
            cfg.update(options)
            cfg.task.shard = cfg.pop("shard", None)
            cfg.output_dir = str(self.folder)
        run_or_resume(cfg)
        os._exit(0)

    def check(self):
        """Check all that is on disk."""
        now = Counter()
        for path in self.folder.rglob("results.jsonl"):
            lines = path.read_bytes().split(b"\n")[:-1]  # the last may be half written
            now.update(lines)
            rows = [json.loads(line) for line in lines]
            ids = [row["problem"] for row in rows]
            assert len(set(ids)) == len(ids), f"{path} holds a puzzle twice"
            if rows:
                read_meta(path.parent)
            for row in rows:
                self._check_row(path.parent, row)
        lost = self.seen - now
        assert not lost, f"{self.folder} has lost {lost}"
        self.seen = now

    def _check_row(self, directory, row):
        name = row["problem"].replace("/", "+")
        tree = (directory / f"trees/{name}.json").read_text()
        found = {**row, "seconds": 0, "session": 0}, tree
        if self.reference is not None:
            assert found == self.reference[row["problem"]], f"{directory}: {row} has changed"

    def results(self):
        """The rows and trees of the run that is not set aside."""
        (path,) = self.folder.glob("*/*/*/*seed0/results.jsonl")
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        trees = path.parent / "trees"
        return {
            row["problem"]: (
                {**row, "seconds": 0, "session": 0},
                (trees / f"{row['problem'].replace('/', '+')}.json").read_text(),
            )
            for row in rows
        }


def run_round(kind, one):
    """Do the commands of one kind of run."""
    logger = {"logger": WANDB} if kind == "wandb" else {}
    if kind == "shards":
        for shard in ("0/2", "1/2"):
            one.do(shard=shard)
    one.do(record=kind == "record", **logger)
    if kind in ("overwrite", "wandb"):
        one.do(overwrite=True, **logger)
    if logger:
        (log,) = one.folder.glob("*/*/*/*seed0/wandb/offline-run-*")
        puzzles = [row["puzzles"] for row in WandbLog(log).puzzles]
        assert puzzles == list(range(1, SIZE + 1)), f"{log} has the puzzles {puzzles}"
    assert one.results() == one.reference


def main():
    """Run the rounds, and print how many there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=len(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    arguments = parser.parse_args()
    draws = random.Random(arguments.seed)
    num_kills = Counter()
    with tempfile.TemporaryDirectory() as folder:
        whole = Round(Path(folder, "whole"), draws)
        assert whole._start({}) == 0
        reference = whole.results()
        assert len(reference) == SIZE
        for number in range(arguments.rounds):
            kind = arguments.kinds[number % len(arguments.kinds)]
            one = Round(Path(folder, str(number)), draws, reference)
            run_round(kind, one)
            num_kills[kind] += one.num_kills
    print(f"{arguments.rounds} rounds, {num_kills.total()} kills: {dict(num_kills)}")


sys.path.append(str(PARTS))
record.software = dict  # it calls git, which is slow
with initialize_config_module("treeshare.conf", version_base="1.3"):
    _options = ["engine=mock", "search=io", "expander=sample", "evaluator=logprob"]
    CONFIG = compose("config", [*_options, "progress=false", "max_live=2"])
    WANDB = OmegaConf.to_container(compose("config", ["logger=wandb"]).logger)
with open_dict(CONFIG):
    CONFIG.task = {
        "_target_": "bare_task.Bare",
        "size": SIZE,
        "verifier": {"_target_": "bare_task.Likely"},
    }
if __name__ == "__main__":
    main()
