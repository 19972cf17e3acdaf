"""Parts that raise outside of a search, each in `go_wrong`."""

import sys

from treeshare.experiments.loggers.logger import NoLogger
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search import IO, Heuristic, Sample
from treeshare.tasks import Game24, Game24Verifier


def go_wrong(fault):
    if fault == "exits":
        sys.exit(3)
    raise {"value": ValueError, "key": KeyError, "assertion": AssertionError}[fault]  # here


class Raising:
    def __init__(self, fault):
        go_wrong(fault)


class Policy(Raising, IO): ...


class Expander(Raising, Sample): ...


class Evaluator(Raising, Heuristic): ...


class Engine(Raising, MockEngine): ...


class Verifier(Raising, Game24Verifier): ...


class Logger(Raising, NoLogger): ...


class Starting(NoLogger):
    def __init__(self, fault):
        self.fault = fault

    def start(self, directory, title, config):
        go_wrong(self.fault)


class Counting(NoLogger):
    def __init__(self, fault):
        self.fault = fault

    def puzzle(self, row, totals):
        go_wrong(self.fault)


class Task(Game24):
    def __init__(self, fault):
        super().__init__(limit=1)
        self.fault = fault

    def problems(self):
        go_wrong(self.fault)


class Checked(Game24Verifier): ...
