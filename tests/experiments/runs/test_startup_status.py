"""The engine's log records are given to a function, and other handlers get what they always get."""

import io
import logging
import sys

import pytest
from tqdm import tqdm

from treeshare.experiments.runs.startup_status import StartupStatus

ENGINE = logging.getLogger("treeshare.llm_backend")
decoder = logging.getLogger("treeshare.llm_backend.runtime.multi_step")
CAPTURE = "capturing a decode step for 256 sequences"


@pytest.fixture
def shown():
    return []


def test_messages_of_level_info_are_shown(shown):
    with StartupStatus(shown.append):
        decoder.info("loading %s", "smollm2")
        decoder.debug("a detail")
        decoder.info(CAPTURE)
    decoder.info("afterwards")
    assert shown == ["loading smollm2", CAPTURE]


def test_the_logger_is_left_as_it_was(shown):
    ENGINE.setLevel(logging.ERROR)
    try:
        with pytest.raises(KeyboardInterrupt), StartupStatus(shown.append):
            assert decoder.isEnabledFor(logging.INFO)
            raise KeyboardInterrupt
        assert ENGINE.level == logging.ERROR and ENGINE.propagate and ENGINE.handlers == []
    finally:
        ENGINE.setLevel(logging.NOTSET)


def test_other_handlers_get_what_they_get_without_it(shown, caplog):
    """caplog's handler belongs to the root logger, whose level is WARNING."""
    with StartupStatus(shown.append):
        decoder.info(CAPTURE)
        decoder.warning("a warning")
    assert caplog.messages == ["a warning"]
    with caplog.at_level(logging.DEBUG), StartupStatus(shown.append):
        decoder.info(CAPTURE)
        decoder.debug("a detail")
    assert caplog.messages == ["a warning", CAPTURE, "a detail"]
    assert shown == [CAPTURE, CAPTURE]


def test_a_warning_that_no_handler_takes_is_a_line_above_a_bar(shown, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with tqdm(total=3, file=terminal, ncols=20), StartupStatus(shown.append):
        decoder.warning("a warning")
    assert f"{' ' * 8}\ra warning\n\r" in terminal.getvalue()
