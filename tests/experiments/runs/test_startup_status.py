"""A run shows on a terminal what it does while it starts, and shows nothing elsewhere."""

import io
import logging
import sys
from itertools import groupby

import pytest
from tqdm import tqdm

from treeshare.experiments.runs.startup_status import StartupStatus

ENGINE = logging.getLogger("treeshare.llm_backend")
decoder = logging.getLogger("treeshare.llm_backend.runtime.multi_step")
SEARCH = ["search=tot_bfs", "search.breadth=2", "search.depth=1", "task.limit=3", "max_live=1"]
CAPTURE = "capturing a decode step for 256 sequences"


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def lines(self):
        """The successive contents of the bar's line."""
        return [line.rstrip() for line in self.getvalue().split("\r")]


@pytest.fixture
def terminal():
    return Terminal()


@pytest.fixture
def stderr(monkeypatch, terminal):
    """Makes standard error a terminal. Tests call it, as pytest replaces it before the test."""

    def replace():
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    return replace


def make_bar(file):
    return tqdm(total=3, file=file, disable=None, ncols=100, mininterval=0)


def test_the_latest_record_is_in_front_of_the_bar_until_it_is_cleared(terminal):
    with make_bar(terminal) as bar, StartupStatus(bar) as status:
        decoder.info("loading %s", "smollm2")
        assert terminal.lines()[-1].startswith("loading smollm2:   0%|")
        decoder.info(CAPTURE)
        assert terminal.lines()[-1].startswith(f"{CAPTURE}:   0%|")
        status.clear()
        assert terminal.lines()[-1].startswith("  0%|")
        decoder.debug("a detail")
        assert "a detail" not in terminal.getvalue()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_no_status_is_left_on_a_bar_that_is_closed(error, terminal):
    try:
        with make_bar(terminal) as bar, StartupStatus(bar):
            decoder.info(CAPTURE)
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert terminal.lines()[-1].startswith("  0%|")
    assert CAPTURE in terminal.getvalue()


def test_without_a_terminal_nothing_is_written_and_no_logger_is_touched():
    file = io.StringIO()
    with make_bar(file) as bar, StartupStatus(bar) as status:
        assert ENGINE.handlers == [] and ENGINE.level == logging.NOTSET and ENGINE.propagate
        decoder.info(CAPTURE)
        status.clear()
    assert file.getvalue() == ""


def test_the_logger_is_left_as_it_was(terminal):
    ENGINE.setLevel(logging.ERROR)
    try:
        with make_bar(terminal) as bar, StartupStatus(bar):
            assert decoder.isEnabledFor(logging.INFO)
        assert ENGINE.level == logging.ERROR and ENGINE.propagate and ENGINE.handlers == []
    finally:
        ENGINE.setLevel(logging.NOTSET)


def test_a_closed_bar_raises_nothing(terminal):
    bar = make_bar(terminal)
    with StartupStatus(bar) as status:
        bar.close()
        written = terminal.getvalue()
        decoder.info(CAPTURE)
        status.clear()
    assert terminal.getvalue() == written


def test_other_handlers_get_what_they_get_without_it(terminal, caplog):
    """caplog's handler belongs to the root logger, whose level is WARNING."""
    with make_bar(terminal) as bar, StartupStatus(bar):
        decoder.info(CAPTURE)
        decoder.warning("a warning")
    assert caplog.messages == ["a warning"]
    with caplog.at_level(logging.INFO), make_bar(terminal) as bar, StartupStatus(bar):
        decoder.info(CAPTURE)
    assert caplog.messages == ["a warning", CAPTURE]


def test_a_warning_that_no_handler_takes_is_a_line_of_its_own(stderr, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    terminal = stderr()
    with make_bar(terminal) as bar, StartupStatus(bar):
        decoder.info(CAPTURE)
        decoder.warning("a warning")
        assert f"{' ' * 8}\ra warning\n\r{CAPTURE}: " in terminal.getvalue()


def test_a_run_shows_what_its_engine_logs_and_clears_it(stderr, treeshare):
    terminal = stderr()
    done = treeshare("engine._target_=logging_engines.Logging", *SEARCH)
    assert done.code == 0 and done.out.startswith("game24 tot_bfs Logging seed 0\n")
    bars = [line for line in terminal.lines() if "%|" in line]
    shown = [line.partition("%|")[0].rpartition(":")[0] for line in bars]
    captures = [CAPTURE, ""] * 3  # cleared as each puzzle ends
    expected = ["loading the engine", "loading a model", "", *captures]
    assert [status for status, _ in groupby(shown)] == expected
    assert bars[-1].startswith("100%|") and "3/3" in bars[-1]


def test_an_engine_that_cannot_be_loaded_leaves_no_bar(stderr, treeshare):
    terminal = stderr()
    done = treeshare("engine._target_=logging_engines.Unloadable", *SEARCH)
    assert done.code == 2 and done.out == ""
    *before, blank, message = terminal.getvalue().split("\r")
    assert any(line.startswith("loading a model:   0%|") for line in before)
    assert blank.strip() == "" and message == "treeshare: engine: no such weights\n"


def test_progress_off_shows_nothing_on_a_terminal(stderr, treeshare):
    terminal = stderr()
    done = treeshare("engine._target_=logging_engines.Logging", *SEARCH, "progress=false")
    assert done.code == 0 and terminal.getvalue() == ""


def test_a_run_without_a_terminal_shows_nothing(treeshare):
    done = treeshare("engine._target_=logging_engines.Logging", *SEARCH)
    assert (done.code, done.err) == (0, "") and "a model" not in done.out
