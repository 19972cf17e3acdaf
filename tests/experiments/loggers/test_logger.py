"""A logger that fails does not end the run, and every logger is given the same calls."""

import pytest

from treeshare.experiments.loggers.logger import NoLogger, SafeLogger

ROW, TOTALS, FAILURE = object(), object(), object()


class Recording:
    """Keeps its calls, and raises in the method that `fails` names."""

    replays = logs_finished = True

    def __init__(self, fails=None):
        self.fails, self.calls = fails, []

    def _call(self, name, value):
        self.calls.append((name, value))
        if name == self.fails:
            raise OSError(28, "No space left on device")

    def start(self, directory, title, config):
        self._call("start", directory)

    def puzzle(self, row, totals):
        self._call("puzzle", row)

    def failure(self, failure):
        self._call("failure", failure)

    def finish(self, summary):
        self._call("finish", summary)


def use(logger):
    logger.start("directory", "title", {})
    logger.puzzle(ROW, TOTALS)
    logger.failure(FAILURE)
    logger.puzzle(ROW, TOTALS)
    logger.finish("summary")


@pytest.mark.parametrize(
    ("fails", "names"),
    [
        (None, ["start", "puzzle", "failure", "puzzle", "finish"]),
        ("puzzle", ["start", "puzzle", "finish"]),
        ("failure", ["start", "puzzle", "failure", "finish"]),
        ("finish", ["start", "puzzle", "failure", "puzzle", "finish"]),
    ],
)
def test_first_error_is_one_warning(fails, names, caplog):
    inner = Recording(fails)
    use(SafeLogger(inner))
    assert [name for name, _ in inner.calls] == names
    has_failed = fails in ("puzzle", "failure")
    assert inner.calls[-1] == ("finish", None if has_failed else "summary")
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [] if fails is None else [
        "Recording failed and the rest of the run is not sent: OSError: [Errno 28] No space left "
        "on device; the rows are on disk, and the same command sends them again"
    ]  # fmt: skip


def test_logger_fails_anew_in_each_run(caplog):
    logger = SafeLogger(Recording("puzzle"))
    use(logger)
    use(logger)
    assert len(caplog.records) == 2


def test_error_in_start_is_raised():
    with pytest.raises(OSError, match="No space left"):
        SafeLogger(Recording("start")).start("directory", "title", {})


def test_interrupt_is_not_kept_back():
    class Interrupted(Recording):
        def puzzle(self, row, totals):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SafeLogger(Interrupted()).puzzle(ROW, TOTALS)


def test_logger_of_version_0_1_0():
    """It has neither `failure` nor `logs_finished`."""

    class Old:
        replays = False

        def start(self, directory, title, config): ...

        def puzzle(self, row, totals): ...

        def finish(self, summary): ...

    logger = SafeLogger(Old())
    use(logger)
    assert not logger.replays and not logger.logs_finished


def test_no_logger_wants_nothing():
    logger = SafeLogger(NoLogger())
    use(logger)
    assert not logger.replays and not logger.logs_finished


def test_run_survives_its_logger(run_logged, read_rows, monkeypatch, caplog):
    """All rows are on disk, and the next run sends them."""
    from troubled_loggers import Full

    Full.calls.clear()
    monkeypatch.setenv("FULL_AT", "2")
    assert len(run_logged({"_target_": "troubled_loggers.Full"}).rows) == 3
    assert len(read_rows()) == 3 and Full.calls == ["start", 1, 2, "finish None"]
    assert sum("the same command sends them again" in r.getMessage() for r in caplog.records) == 1
    Full.calls.clear()
    monkeypatch.delenv("FULL_AT")
    run_logged({"_target_": "troubled_loggers.Full"})
    assert Full.calls == ["start", 1, 2, 3, "finish 3"]
