"""Show how far a run is, by a bar on a terminal or in a notebook, and by log records elsewhere.

A run begins with three records: what runs, where its results are, and, once the engine is loaded,
on what it runs. Without a terminal (a pipe, the log of a Slurm job) a record follows every half
minute, also while a model is loaded.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from treeshare.experiments.results.rows import FailedSearch
from treeshare.experiments.results.summary import Totals
from treeshare.llm_backend.api import Engine, EngineStats
from treeshare.search.scheduler import Scheduler

from .config import Setup, model_name
from .startup_status import StartupStatus

LINE_SECONDS = 30.0
"""Seconds between two records, where there is no terminal."""

_log = logging.getLogger(__name__)


class Progress:
    """Shows how far a run is, inside its `with` block, if `setup.options.progress` is true.

    Where there is no terminal, a thread logs `line`. It calls nothing of the engine: it reads the
    counters that the engine's latest `stats()` returned, which most engines keep up to date.

    Args:
        setup: the run.
        num_done: its puzzles that are already finished.
        clock: gives the time in seconds.
    """

    def __init__(
        self, setup: Setup, num_done: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._setup = setup
        self._num_before = num_done
        self._num_done = num_done
        self._num_failed = 0
        self._top1: float | None = None  # unknown until a puzzle ends
        self._status = ""  # what the engine is doing, until a puzzle ends
        self._clock = clock
        self._began = clock()
        self._scheduler: Scheduler | None = None  # while searches run
        self._stats = EngineStats()
        self._shown_at, self._shown = self._began, EngineStats()  # of the latest line
        self._is_shown = setup.options.progress
        self._is_bar = self._is_shown and (sys.stderr.isatty() or _is_in_notebook())
        self._bar = tqdm(disable=True)
        self._stack = ExitStack()

    def __enter__(self) -> Progress:
        with ExitStack() as stack:
            if self._is_bar and _has_console():
                stack.enter_context(logging_redirect_tqdm())  # records are lines above the bar
            if self._is_shown:
                if not self._is_bar:
                    stack.enter_context(_some_handler())
                    stack.enter_context(_repeated(self._log_line))
                for text in start_lines(self._setup, self._num_before):
                    _log.info(text)
                stack.enter_context(StartupStatus(self.show_status))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """The block loads the engine. A bar of its own disappears at the end."""
        self._status = "loading the engine"
        with self._opened_bar(leave=False):
            yield

    def show_engine(self, engine: Engine) -> None:
        """Log on what the run computes."""
        if self._is_shown and self._setup.config:
            _log.info(engine_line(self._setup.config, getattr(engine, "resources", {})))

    @contextmanager
    def searching(self, scheduler: Scheduler) -> Iterator[None]:
        """The block runs searches.

        Args:
            scheduler: its engine is loaded.
        """
        self._scheduler = scheduler
        self._began = self._shown_at = self._clock()
        self._take_stats()
        self._shown = replace(self._stats)
        with self._opened_bar(leave=True):
            yield
        self._scheduler = None

    def show_status(self, text: str) -> None:
        """Show what the engine is doing, until a search ends."""
        self._status = text
        self._bar.set_description_str(text)

    def end_search(self) -> None:
        """Take in that a search has ended, whether well or not."""
        self._take_stats()
        self._clear_status()

    def add(self, totals: Totals) -> None:
        """Count a finished puzzle, and show the totals of the run."""
        self._num_done, self._top1 = totals.puzzles, totals.top1
        failed = f", {self._num_failed:,} failed" if self._num_failed else ""
        self._bar.set_postfix_str(
            f"top-1 {totals.top1:.1%}, {totals.tokens_per_second:.0f} tokens/s, "
            f"batch {totals.requests_per_round:.1f}{failed}",
            refresh=False,
        )
        self._bar.update()

    def add_failure(self, failure: FailedSearch) -> None:
        """Count a puzzle that has failed. The first one is logged."""
        self._num_failed += 1
        if self._is_shown and self._num_failed == 1:
            where = f"{failure.where}: " if failure.where else ""
            _log.warning(
                "%s failed: %s%s: %s (failures.jsonl has the traceback)",
                *(failure.problem, where, failure.error, failure.message),
            )

    def line(self) -> str:
        """Return what is known of the run in one line. Rates are since the line before."""
        num_problems = len(self._setup.problems)
        num_ended = self._num_done + self._num_failed
        failed = f" ({self._num_failed:,} failed)" if self._num_failed else ""
        parts = [f"{self._num_done:,} of {num_problems:,} puzzles{failed}"]
        if self._top1 is not None:
            parts.append(f"top-1 {self._top1:.1%}")
        now = self._clock()
        if self._scheduler is not None:
            parts.append(f"{self._scheduler.requests:,} requests")
            parts += self._rates(now)
        if num_searched := num_ended - self._num_before:
            left = (num_problems - num_ended) * (now - self._began) / num_searched
            parts.append(f"{tqdm.format_interval(left)} left")
        if self._status:
            parts.append(self._status)
        return ", ".join(parts)

    def _rates(self, now: float) -> list[str]:
        """Return tokens a second and sequences a forward since the latest call."""
        stats, before = replace(self._stats), self._shown
        seconds, self._shown_at, self._shown = now - self._shown_at, now, stats
        steps = stats.steps - before.steps
        rates = []
        if seconds > 0:
            rates.append(f"{(stats.tokens - before.tokens) / seconds:,.0f} tokens/s")
        if steps > 0:
            rates.append(f"{(stats.sequences - before.sequences) / steps:,.0f} sequences a forward")
        return rates

    def _take_stats(self) -> None:
        assert self._scheduler is not None
        self._stats = self._scheduler.engine.stats()

    def _log_line(self) -> None:
        _log.info(self.line())

    @contextmanager
    def _opened_bar(self, *, leave: bool) -> Iterator[None]:
        with tqdm(
            desc=self._status or None,
            leave=leave,
            total=len(self._setup.problems),
            initial=self._num_before,
            unit="puzzle",
            disable=not self._is_bar,
        ) as self._bar:
            try:
                yield
            finally:
                self._clear_status()

    def _clear_status(self) -> None:
        if self._status:
            self.show_status("")


def start_lines(setup: Setup, num_done: int) -> list[str]:
    """Say what runs, and where its results are; of a run in memory, what runs.

    Args:
        setup: the run.
        num_done: its puzzles that are already finished.
    """
    name = setup.options.name or type(setup.policy).__name__
    count = len(setup.problems)
    puzzles = f"{count:,} puzzle{'s' * (count != 1)}"
    done = f" ({num_done:,} done)" if num_done else ""
    lines = [f"{name} on {puzzles} of {setup.task.name}{done}"]
    if setup.config:
        lines.append(f"results in {setup.directory}")
    return lines


def engine_line(config: Mapping[str, Any], resources: Mapping[str, Any]) -> str:
    """Say on what a run computes: the model, its device, and the limits of the engine.

    Args:
        config: of the run.
        resources: those that the engine states.
    """
    engine = config["engine"]
    kind = str(engine["_target_"]).rpartition(".")[2]
    parts = [model_name(engine)]
    words = [str(resources[key]) for key in ("device", "dtype", "attention") if key in resources]
    parts.append(" ".join([*words, *(["fused"] if resources.get("fused") else [])]))
    if isinstance(engine.get("model"), Mapping) and kind != "TreeEngine":
        parts.append(kind)
    for key, text in (("kv_tokens", "{:,} KV tokens"), ("max_num_seqs", "at most {:,} sequences")):
        if resources.get(key):
            parts.append(text.format(resources[key]))
    if isinstance(reward_model := config.get("reward_model"), Mapping):
        parts.append(f"reward model {Path(str(reward_model.get('name', ''))).name}")
    return ", ".join(filter(None, parts))


def _has_console() -> bool:
    """Whether a handler of the root logger writes to a standard stream."""
    streams = (getattr(handler, "stream", None) for handler in logging.root.handlers)
    return any(stream in (sys.stdout, sys.stderr) for stream in streams)


@contextmanager
def _some_handler() -> Iterator[None]:
    """Write the records to standard error in the block, if logging is not configured."""
    if _log.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(), _log.level
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)


@contextmanager
def _repeated(call: Callable[[], None]) -> Iterator[None]:
    """Call a function in a thread every `LINE_SECONDS`, until the block ends."""
    has_ended = threading.Event()

    def repeat() -> None:
        while not has_ended.wait(LINE_SECONDS):
            call()

    thread = threading.Thread(target=repeat, name="treeshare-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


def _is_in_notebook() -> bool:
    """Return whether this is the kernel of a notebook, whose standard error is no terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
