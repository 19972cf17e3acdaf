"""Pass the engine's log records on to the progress of a run.

Such records say that a model is being loaded or a CUDA graph is being captured.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from tqdm import tqdm

_ENGINE = logging.getLogger("treeshare.llm_backend")


class StartupStatus(logging.Handler):
    """Gives the messages of the engine's log records of level INFO to a function.

    It is used in a `with` statement. Other handlers get the same records as without it.

    Args:
        show: receives each message.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def __enter__(self) -> StartupStatus:
        self._before = (_ENGINE.level, _ENGINE.propagate)
        self._usual_level = _ENGINE.getEffectiveLevel()
        _ENGINE.addHandler(self)
        _ENGINE.setLevel(min(logging.INFO, self._usual_level))
        _ENGINE.propagate = False  # `emit` passes on what is of the usual level
        return self

    def __exit__(self, *_: object) -> None:
        _ENGINE.removeHandler(self)
        _ENGINE.setLevel(self._before[0])
        _ENGINE.propagate = self._before[1]

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record, or pass it on if it is of the usual level."""
        if record.levelno == logging.INFO:
            self._show(record.getMessage())
        if record.levelno >= self._usual_level:
            with tqdm.external_write_mode(sys.stderr):  # a line of its own, above a bar
                (_ENGINE.parent or logging.root).callHandlers(record)
