"""Show the engine's log records in front of a run's progress bar.

Such records say that a model is being loaded or a CUDA graph is being captured.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm import tqdm

_ENGINE = logging.getLogger("treeshare.llm_backend")


class StartupStatus(logging.Handler):
    """Shows the engine's latest log record as the description of a progress bar.

    It is used in a `with` statement and does nothing if the bar is not shown. Other handlers get
    the same records as without it.

    Args:
        bar: the progress bar.
    """

    def __init__(self, bar: tqdm[Any]) -> None:
        super().__init__()
        self._bar = bar

    def __enter__(self) -> StartupStatus:
        self._before = (_ENGINE.level, _ENGINE.propagate)
        self._usual_level = _ENGINE.getEffectiveLevel()
        if not self._bar.disable:
            _ENGINE.addHandler(self)
            _ENGINE.setLevel(min(logging.INFO, self._usual_level))
            _ENGINE.propagate = False  # `emit` passes on what is of the usual level
        return self

    def __exit__(self, *_: object) -> None:
        _ENGINE.removeHandler(self)
        _ENGINE.setLevel(self._before[0])
        _ENGINE.propagate = self._before[1]
        self.clear()

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record, or pass it on if it is of the usual level."""
        if record.levelno == logging.INFO:
            self._bar.set_description_str(record.getMessage())
        if record.levelno >= self._usual_level:
            with self._bar.external_write_mode(sys.stderr):  # a line of its own, above the bar
                (_ENGINE.parent or logging.root).callHandlers(record)

    def clear(self) -> None:
        """Remove the description, if there is one."""
        if not self._bar.disable and self._bar.desc:
            self._bar.set_description_str()
