"""A run says what it does: a bar on a terminal, and log records in a pipe."""

import io
import logging
import sys
import threading
import time
from itertools import groupby
from types import SimpleNamespace

import pytest

import treeshare as ts
from treeshare.experiments.results.rows import FailedSearch
from treeshare.experiments.runs import progress
from treeshare.experiments.runs.progress import Progress, engine_line, start_lines
from treeshare.llm_backend.api import EngineStats

SEARCH = ["search=tot_bfs", "search.breadth=2", "search.depth=1", "task.limit=3", "max_live=1"]
LOGGING = ["engine._target_=logging_engines.Logging", *SEARCH]
CAPTURE = "capturing a decode step for 256 sequences"
EMBEDDED = {
    "_target_": "treeshare.llm_backend.engines.tree.TreeEngine",
    "model": {"name": "llm_backend/embedded", "device": "auto"},
    "kv_tokens": "auto",
}
ON_A_GPU = {
    **{"device": "cuda", "dtype": "bfloat16", "attention": "deft", "fused": True},
    **{"kv_tokens": 1_000_000, "max_num_seqs": 1024},
}
PLAIN = {
    "_target_": "treeshare.llm_backend.engines.hf.HuggingFaceEngine",
    "model": {"name": "a/b", "device": "cpu"},
}
ON_A_CPU = {
    **{"device": "cpu", "dtype": "float32", "attention": "sdpa", "fused": False},
    **{"max_num_seqs": None},
}


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def lines(self):
        """The successive contents of the bar's line."""
        return [line.rstrip() for line in self.getvalue().split("\r")]


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard error a terminal. Tests call it, as pytest replaces it before the test."""

    def replace():
        file = Terminal()
        monkeypatch.setattr(sys, "stderr", file)
        return file

    return replace


@pytest.fixture
def often(monkeypatch):
    """Lines every 20 ms."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)


def setup_of(num_problems=200, engine=None, is_shown=True):
    return SimpleNamespace(
        options=SimpleNamespace(name="tot_bfs", progress=is_shown),
        problems=range(num_problems),
        task=SimpleNamespace(name="game24"),
        config={"engine": engine} if engine else {},
        directory="outputs/game24",
    )


def totals(puzzles, top1):
    return SimpleNamespace(
        puzzles=puzzles, top1=top1, tokens_per_second=9.0, requests_per_round=2.0
    )


@pytest.mark.parametrize(
    ("engine", "resources", "said"),
    [
        (
            *(EMBEDDED, ON_A_GPU),
            "embedded, cuda bfloat16 deft fused, 1,000,000 KV tokens, at most 1,024 sequences",
        ),
        (PLAIN, ON_A_CPU, "b, cpu float32 sdpa, HuggingFaceEngine"),
        ({"_target_": "my_engines.Trigram", "seed": 1}, None, "Trigram"),
    ],
    ids=["tree", "hf", "another"],
)
def test_a_run_begins_with_three_lines(engine, resources, said, caplog):
    setup = setup_of(1, engine)
    loaded = SimpleNamespace(**{} if resources is None else {"resources": resources})
    with caplog.at_level(logging.INFO), Progress(setup, 0) as run:
        run.show_engine(loaded)
    assert caplog.messages == ["tot_bfs on 1 puzzle of game24", "results in outputs/game24", said]


def test_the_puzzles_that_are_done_are_in_the_first_line():
    assert start_lines(setup_of(), 20) == ["tot_bfs on 200 puzzles of game24 (20 done)"]


def test_the_reward_model_is_in_the_line():
    setup = setup_of(engine=EMBEDDED)
    setup.config["reward_model"] = {"name": "org/judge"}
    line = engine_line(setup.config, ON_A_GPU)
    assert line.endswith("1,024 sequences, reward model judge")


def test_lines_say_how_far_the_run_is():
    now, stats = [0.0], EngineStats()
    scheduler = SimpleNamespace(requests=0, engine=SimpleNamespace(stats=lambda: stats))
    run = Progress(setup_of(), 20, clock=lambda: now[0])
    with run.loading():
        now[0] = 30
        assert run.line() == "20 of 200 puzzles, loading the engine"
    assert run.line() == "20 of 200 puzzles"
    with run.searching(scheduler):
        now[0] += 30
        scheduler.requests, stats.tokens, stats.sequences, stats.steps = 1200, 60_000, 3000, 20
        run.show_status(CAPTURE)
        assert run.line() == (
            f"20 of 200 puzzles, 1,200 requests, 2,000 tokens/s, 150 sequences a forward, {CAPTURE}"
        )
        now[0] += 30
        stats.tokens += 3000  # the rates are of the last half minute alone
        run.end_search()
        run.add(totals(puzzles=21, top1=0.5))
        run.end_search()
        run.add_failure(FailedSearch("game24/1", "KeyError", "3", "", "mine.py:7"))
        assert run.line() == (
            "21 of 200 puzzles (1 failed), top-1 50.0%, 1,200 requests, 100 tokens/s, 1:29:00 left"
        )


def test_the_first_failure_is_logged(caplog):
    with Progress(setup_of(), 0) as run:
        run.add_failure(FailedSearch("game24/1", "KeyError", "3", "...", "mine.py:7"))
        run.add_failure(FailedSearch("game24/2", "KeyError", "4", "..."))
    assert caplog.messages == [
        "game24/1 failed: mine.py:7: KeyError: 3 (failures.jsonl has the traceback)"
    ]


def test_a_command_in_a_pipe_says_that_it_lives(treeshare, often, run_directory):
    done = treeshare("engine._target_=logging_engines.Slow", *SEARCH, "task.limit=2")
    assert (done.code, done.err) == (0, "")
    first, second, third, *lines = done.log.splitlines()
    where = run_directory().relative_to(run_directory().parents[4])
    assert (first, second) == ("INFO tot_bfs on 2 puzzles of game24", f"INFO results in {where}")
    assert "INFO 0 of 2 puzzles, loading a model" in [third, *lines]
    assert "INFO Slow" in lines
    assert any(line.startswith("INFO 0 of 2 puzzles, 1 requests, 0 tokens/s") for line in lines)
    assert any(line.startswith("INFO 1 of 2 puzzles, top-1 0.0%, ") for line in lines)
    assert not any("progress" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("part", ["engine._target_=logging_engines.Unloadable", "max_live=0"])
def test_no_thread_is_left_by_a_run_that_cannot_begin(part, treeshare):
    assert treeshare(*LOGGING, part).code == 2
    assert not any("progress" in thread.name for thread in threading.enumerate())


def test_progress_off_is_silent_in_a_pipe(treeshare, often):
    done = treeshare("engine._target_=logging_engines.Slow", *SEARCH, "progress=false")
    assert (done.code, done.err, done.log) == (0, "", "")


class Slow(ts.MockEngine):
    def execute(self, requests):
        time.sleep(0.05)
        return super().execute(requests)


@pytest.mark.parametrize("is_shown", [True, False])
def test_solve_in_a_pipe_says_that_it_lives(is_shown, often, capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])  # as in a script that configures no logging
    ts.solve(
        ts.tasks.Game24(limit=2),
        engine=Slow(),
        policy=ts.search.ToTBFS(breadth=2),
        max_live=1,
        progress=is_shown,
    )
    lines = capsys.readouterr().err.splitlines()
    assert ("ToTBFS on 2 puzzles of game24" in lines) == is_shown
    assert any(line.startswith("1 of 2 puzzles, top-1 ") for line in lines) == is_shown


def test_solve_leaves_logging_to_a_script_that_configures_it(caplog, capsys):
    with caplog.at_level(logging.INFO):
        ts.solve(ts.tasks.Game24(limit=1), engine=ts.MockEngine(), policy=ts.search.IO())
    assert caplog.messages == ["IO on 1 puzzle of game24"]
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_what_the_engine_logs_and_clears_it(terminal, treeshare):
    file = terminal()
    done = treeshare(*LOGGING)
    assert done.code == 0 and done.out.startswith("game24 tot_bfs Logging seed 0\n")
    assert file.getvalue().count(" INFO ") == 3  # the first lines
    bars = [line for line in file.lines() if "%|" in line]
    shown = [line.partition("%|")[0].rpartition(":")[0] for line in bars]
    captures = [CAPTURE, ""] * 3  # cleared as each puzzle ends
    expected = ["loading the engine", "loading a model", "", *captures]
    assert [status for status, _ in groupby(shown)] == expected
    assert bars[-1].startswith("100%|") and "3/3" in bars[-1]


def test_records_are_lines_above_the_bar(terminal, treeshare):
    file = terminal()
    treeshare("engine._target_=logging_engines.Warning", *SEARCH, "search.depth=3")
    (warning,) = [line for line in file.lines() if "a warning" in line]
    assert warning.endswith("WARNING a warning")
    assert file.lines()[file.lines().index(warning) - 1] == ""  # the bar was cleared


def test_a_terminal_shows_no_records_that_its_configuration_keeps_from_it(terminal, treeshare):
    file = terminal()
    done = treeshare(*LOGGING, "hydra.job_logging.root.handlers=[]", "verbose=true")
    assert done.code == 0 and "3/3" in file.getvalue()
    assert "INFO" not in file.getvalue() and "tot_bfs on" not in file.getvalue()


def test_an_engine_that_cannot_be_loaded_leaves_no_bar(terminal, treeshare):
    file = terminal()
    done = treeshare("engine._target_=logging_engines.Unloadable", *SEARCH)
    assert done.code == 2 and done.out == ""
    *before, blank, message = file.getvalue().split("\r")
    assert any(line.startswith("loading a model:   0%|") for line in before)
    assert blank.strip() == "" and message.endswith(": ValueError: no such weights\n")


def test_an_interrupt_leaves_no_status_on_the_bar(terminal, treeshare):
    file = terminal()
    done = treeshare("engine._target_=logging_engines.Interrupted", *SEARCH)
    assert done.code == 130
    assert CAPTURE in file.getvalue()
    assert [line for line in file.lines() if "%|" in line][-1].startswith("  0%|")


def test_progress_off_shows_nothing_on_a_terminal(terminal, treeshare):
    file = terminal()
    done = treeshare(*LOGGING, "progress=false")
    assert done.code == 0 and file.getvalue() == ""


@pytest.mark.parametrize(
    ("options", "shows_info", "shows_debug"),
    [
        ([], False, False),
        (["verbose=true"], True, True),
        (["hydra.verbose=treeshare"], True, True),
        (["hydra.job_logging.root.level=INFO"], True, False),
        (["hydra/job_logging=disabled"], False, False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_configuration_decides_which_records_are_shown(
    options, shows_info, shows_debug, treeshare
):
    done = treeshare(*LOGGING, *options)
    assert (done.code, done.err) == (0, "")
    assert (f"INFO {CAPTURE}\n" in done.log) == shows_info
    assert ("DEBUG a detail\n" in done.log) == shows_debug
    assert ("INFO Logging\n" in done.log) == (options != ["hydra/job_logging=disabled"])


def test_hydras_own_configuration_writes_a_file(treeshare, tmp_path):
    done = treeshare(*LOGGING, "hydra/job_logging=default", "hydra.run.dir=logs")
    assert done.code == 0
    assert f"[INFO] - {CAPTURE}\n" in (tmp_path / "logs" / "treeshare.log").read_text()


def test_a_multirun_says_which_job_runs(treeshare):
    done = treeshare("-m", *LOGGING, "seed=0,1")
    assert done.code == 0
    assert "INFO Launching 2 jobs locally\n" in done.log
    assert done.log.count("INFO tot_bfs on 3 puzzles of game24\n") == 2
    assert "INFO" not in done.out
