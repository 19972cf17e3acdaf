"""Four ways to serve one search, compared.

Hugging Face's `generate` serves a request at a time, or batches; our engine reads every path on its
own, or uses DeFT attention. The search is ToT-BFS on Game of 24, the same program and seeds for
all. Where requests are served one at a time, so are puzzles; otherwise all puzzles run together.
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
    EngineCapabilities,
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
from treeshare.llm_backend.model.model import Model
from treeshare.search.context import Context
from treeshare.search.evaluators.prompted import ValuePrompt
from treeshare.search.expanders import Choose
from treeshare.search.parts import Policy
from treeshare.search.policies.tot import ToTBFS
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.arithmetic.game24 import Game24

from .case import Limits, on_attention, pool_size
from .tables import Arm

HF_ONE, HF_BATCHED = "hf_one", "hf_batched"
"""Arms of Hugging Face's engine; the others are names of an attention."""


@dataclass(slots=True)
class ArmOptions:
    """The search, and its bounds.

    Args:
        names: arms to compare.
        puzzles: number of puzzles.
        seconds: time limit of an arm; what it has done by then counts.
        breadth: states kept a level.
        hf_batch: sequences in a batch of `hf_batched`.
        kv_tokens: size of our engine's KV pool.
        temperature: of the verdicts.
        path: ToT's 24.csv; None takes our own list.

    Raises:
        ValueError: a number below its bound.
    """

    names: list[str]
    puzzles: int
    seconds: float
    breadth: int
    hf_batch: int
    kv_tokens: int
    temperature: float
    path: str | None

    @property
    def search(self) -> str:
        """The search in words, with all that fixes it."""
        of = "own list" if self.path is None else Path(self.path).name
        return f"{self.puzzles} of {of}, b={self.breadth}, temperature {self.temperature:g}"

    def __post_init__(self) -> None:
        for name in ("puzzles", "breadth", "hf_batch", "kv_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"arms.{name}={getattr(self, name)} must be at least 1")
        if self.seconds <= 0:
            raise ValueError(f"arms.seconds={self.seconds} must be above 0")


class TimeUp(Exception):
    """The time limit of an arm has passed."""


class Deadline:
    """An engine that serves until a time limit, and counts what it answered.

    Args:
        engine: serves the requests.
        seconds: time limit.
    """

    def __init__(self, engine: Engine, seconds: float) -> None:
        self._engine = engine
        self._end = time.perf_counter() + seconds
        self.requests = 0
        self.usage = Usage()

    @property
    def capabilities(self) -> EngineCapabilities:
        """Those of the engine behind."""
        return self._engine.capabilities

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """Serve requests; see `Engine.execute`.

        Raises:
            TimeUp: the time limit has passed.
        """
        if time.perf_counter() > self._end:
            raise TimeUp
        replies = self._engine.execute(requests)
        self.requests += len(replies)
        for reply in replies.values():
            if not isinstance(reply, Failure):
                self.usage += reply.usage
        return replies

    def cancel(self, request_ids: Iterable[int]) -> None:
        """Drop outstanding requests; see `Engine.cancel`."""
        self._engine.cancel(request_ids)

    def stats(self) -> EngineStats:
        """Return the counters of the engine behind."""
        return self._engine.stats()

    def close(self) -> None:
        """Close the engine behind."""
        self._engine.close()


def run_arm(model: Model, options: ArmOptions, limits: Limits, seed: int, arm: Arm) -> Arm:
    """Return `arm` with its counts and time filled in.

    Raises:
        Exception: what a search failed with.
    """
    if arm.arm in (HF_ONE, HF_BATCHED):
        max_num_seqs = None if arm.arm == HF_ONE else options.hf_batch
        with closing(HuggingFaceEngine(model, max_num_seqs)) as plain:
            # With the search's stop string: the tokens that may complete it are listed once.
            warm = Sampling(max_tokens=4, stop=("\n",))
            serve(plain, [Generate(("warm",), 2, warm)], GenerateReply)
            return _search(plain, options, seed, arm, options.seconds)
    model = on_attention(model, arm.arm)
    with closing(limits.engine(model, pool_size(model, options.kv_tokens))) as engine:
        _search(engine, options, seed, arm, math.inf)  # compiles and captures; not counted
        engine.reset_cache()
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
