"""Parts that fail at one puzzle, `bare/1`; `where` and `fault` say where and how."""

import sys
from collections.abc import Mapping

import numpy as np
import torch
from bare_task import Bare, Likely

from treeshare.tasks.task import Problem

BAD = "bare/1"


class Unwritable:
    """A state without a text: its `str` raises."""

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no message")


def go_wrong(fault):
    if fault == "exits":
        sys.exit(0)
    if fault == "panics":
        raise BaseException("a panic")
    if fault == "unprintable":
        raise Unprintable
    return 1 / 0


class Task(Bare):
    """States are pairs of the problem's id and the text."""

    def __init__(self, fault="", where="", size=3, ids=()) -> None:
        super().__init__(size)
        self.fault, self.where, self.ids = fault, where, list(ids)

    def problems(self):
        return [Problem(name, None) for name in self.ids] or super().problems()

    def root(self, problem):
        self._fail("root", problem.id)
        return (problem.id, "")

    def parse(self, role, state, text):
        (step,) = super().parse(role, "", text)
        word = Unwritable() if self.where == "text" and state[0] == BAD else text
        return [type(step)(text, (state[0], word))]

    def is_terminal(self, state):
        return np.bool_(state[1] != "")

    def answer(self, state):
        self._fail("answer", state[0])
        if self.where == "answer_kind" and state[0] == BAD:
            return {"number": 3, "numpy": np.int64(3), "torch": torch.tensor(3), "list": [3]}[
                self.fault
            ]
        return "likely"

    def _fail(self, where, problem_id):
        if self.where == where and problem_id == BAD:
            go_wrong(self.fault)


class Verifier(Likely):
    def __init__(self, fault="", where="") -> None:
        self.fault, self.where = fault, where
        if where == "counts":
            self.scoring_failures = {"raised": 0, "timed_out": 0}

    def check(self, problem, answer):
        if self.where == "check" and problem.id == BAD:
            go_wrong(self.fault)
        if self.where == "counts":
            self.scoring_failures["timed_out"] += 1
        return np.bool_(answer == "likely")

    def grades(self, problem, state) -> Mapping[str, float]:
        if self.where == "grades" and problem.id == BAD:
            if self.fault == "nan":
                return {"score": float("nan")}
            if self.fault == "text":
                return {"score": "good"}
            go_wrong(self.fault)
        return {"score": np.float32(0.5)}


class Policy:
    """Samples two answers, and fails at `bare/1`."""

    def __init__(self, fault="") -> None:
        self.fault = fault

    async def search(self, ctx):
        nodes = await ctx.sample(ctx.root, "io", 2)
        await ctx.evaluate(nodes)
        if ctx.problem.id == BAD:
            if self.fault == "best":
                ctx.best = 7
                raise RuntimeError("after a bad ranking")
            if self.fault == "value":
                nodes[0].value = "good"
            elif self.fault:
                go_wrong(self.fault)
        return nodes


class Numbers:
    """Gives values and visits as numbers of NumPy and PyTorch."""

    async def evaluate(self, ctx, nodes):
        for node in nodes:
            node.visits, node.prior, node.value_sum = np.int64(2), torch.tensor(0.5), np.float16(1)
        return [np.float32(0.25)] * len(nodes)
