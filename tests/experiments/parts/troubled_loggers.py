"""A logger that fails on demand, as the engines of `troubled_engines.py` do."""

import os


class Full:
    """Keeps its calls, and fails at puzzle `$FULL_AT`."""

    replays = logs_finished = True
    calls: list = []  # noqa: RUF012  # of all objects, as the run makes one itself

    def start(self, directory, title, config):
        self.calls.append("start")

    def puzzle(self, row, totals):
        self.calls.append(totals.puzzles)
        if totals.puzzles == int(os.environ.get("FULL_AT", "0")):
            raise OSError(28, "No space left on device")

    def failure(self, failure):
        self.calls.append(failure.problem)

    def finish(self, summary):
        self.calls.append(f"finish {summary and len(summary.rows)}")
