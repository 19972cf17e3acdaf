"""Four ways to serve one search (DESIGN section 6): Hugging Face a request at a time, and in
batches; our engine reading every path on its own, and with DeFT attention.

ToT-BFS on Game of 24, the same program and seeds for all. Where requests are served one at a time,
so are puzzles; else all puzzles run together. Knows no configuration and no file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from treeshare.experiments.runs.gc_tuning import rare_collections
from treeshare.llm_backend.api import (
    Engine,
    EngineStats,
    Failure,
    Generate,
    GenerateReply,
    Reply,
    Request,
    Sampling,
    Usage,
)
from treeshare.llm_backend.engines.hf import HuggingFaceEngine
from treeshare.llm_backend.engines.serve import serve
from treeshare.llm_backend.model.random_models import LoadedNetwork
from treeshare.search.context import Context, Policy
from treeshare.search.evaluators.prompted import ValuePrompt
from treeshare.search.expanders import Choose
from treeshare.search.policies.tot import ToTBFS
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.arithmetic.game24 import Game24

from .case import Limits, WatchedEngine, pool_size
from .tables import Arm

HF_ONE, HF_BATCHED = "hf_one", "hf_batched"  # other arms are names of an attention


@dataclass(slots=True)
class ArmOptions:
    """The search, and what bounds it.

    Raises:
        ValueError: a number below its bound.
    """

    names: list[str]
    puzzles: int
    seconds: float  # of an arm; what it got done by then counts
    breadth: int  # states kept a level
    hf_batch: int  # sequences
    kv_tokens: int  # of our engine
    temperature: float  # of the verdicts
    path: str | None  # of ToT's 24.csv; None takes our own list

    @property
    def search(self) -> str:
        """All that fixes the search, in words."""
        of = "own list" if self.path is None else Path(self.path).name
        return f"{self.puzzles} of {of}, b={self.breadth}, temperature {self.temperature:g}"

    def __post_init__(self) -> None:
        for name in ("puzzles", "breadth", "hf_batch", "kv_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"arms.{name}={getattr(self, name)} must be at least 1")
        if self.seconds <= 0:
            raise ValueError(f"arms.seconds={self.seconds} must be above 0")


class TimeUp(Exception):
    """An arm's time is spent."""


class Deadline:
    """An engine that serves until some moment, and counts what it answered.

    Raises:
        TimeUp: it is asked after that.
    """

    def __init__(self, engine: Engine, seconds: float) -> None:
        self._engine = engine
        self._end = time.perf_counter() + seconds
        self.requests = 0
        self.usage = Usage()

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        if time.perf_counter() > self._end:
            raise TimeUp
        replies = self._engine.execute(requests)
        self.requests += len(replies)
        for reply in replies.values():
            if not isinstance(reply, Failure):
                self.usage += reply.usage
        return replies

    def cancel(self, tickets: Iterable[int]) -> None:
        self._engine.cancel(tickets)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def close(self) -> None:
        self._engine.close()


def run_arm(loaded: LoadedNetwork, options: ArmOptions, limits: Limits, seed: int, arm: Arm) -> Arm:
    """`arm` with its counts and time filled in.

    Raises:
        Exception: what a search failed with.
    """
    if arm.arm in (HF_ONE, HF_BATCHED):
        model = loaded.model("torch")
        max_num_seqs = None if arm.arm == HF_ONE else options.hf_batch
        with closing(HuggingFaceEngine(loaded, model, max_num_seqs)) as plain:
            # With the search's stop string: which tokens may complete it is found out once.
            warm = Sampling(max_tokens=4, stop=("\n",))
            serve(plain, [Generate(("warm",), 2, warm)], GenerateReply)
            return _search(plain, options, seed, arm, options.seconds)
    model = loaded.model(arm.arm, arm.fused)
    size = pool_size(model, options.kv_tokens)
    engine = WatchedEngine(model, size, limits.max_num_seqs, limits.max_num_batched_tokens)
    with closing(engine):
        _search(engine, options, seed, arm, math.inf)  # compiles, captures, and is forgotten
        engine.forget()
        return _search(engine, options, seed, arm, options.seconds)


@rare_collections()
def _search(engine: Engine, options: ArmOptions, seed: int, arm: Arm, seconds: float) -> Arm:
    sampling = {"value": {"temperature": options.temperature}}
    task: Any = Game24(options.path, limit=options.puzzles, sampling=sampling)
    problems = task.problems()
    contexts: list[Context] = []

    def searches() -> Iterator[tuple[Policy, Context]]:
        for problem in problems:
            contexts.append(Context(task, problem, Choose(), ValuePrompt(), seed=seed))
            yield ToTBFS(options.breadth), contexts[-1]

    is_one = arm.arm == HF_ONE
    steps_before = engine.stats().steps
    deadline = Deadline(engine, seconds)
    began = time.perf_counter()

    def progress(finished: int) -> Arm:
        return replace(
            arm,
            puzzles=len(problems),
            finished=finished,
            nodes=sum(node.value is not None for ctx in contexts for node in ctx.graph),
            requests=deadline.requests,
            forwards=engine.stats().steps - steps_before,
            prompt_tokens=deadline.usage.prompt_tokens,
            completion_tokens=deadline.usage.completion_tokens,
            seconds=time.perf_counter() - began,
        )

    done = progress(0)
    try:
        for outcome in Scheduler(deadline, max_live=1 if is_one else None).run(searches()):
            if outcome.error is not None:
                raise outcome.error
            if is_one or done.finished + 1 == done.puzzles:
                done = progress(done.finished + 1)
            else:
                done = replace(done, finished=done.finished + 1)
    except TimeUp:
        if not (is_one and done.finished):  # one by one, whole puzzles count
            done = progress(done.finished)
        done = replace(done, is_cut=True)
    return done
