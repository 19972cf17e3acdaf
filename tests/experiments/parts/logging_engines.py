"""Engines that log as the engines of a model do.

The tests put this folder on the path and name the engines in `engine._target_`.
"""

import logging
import time
from collections.abc import Mapping

from treeshare.llm_backend.api import Reply, Request
from treeshare.llm_backend.engines.mock import MockEngine

logger = logging.getLogger("treeshare.llm_backend.runtime.multi_step")


class Logging(MockEngine):
    """Logs when it is loaded and at every step."""

    def __init__(self) -> None:
        super().__init__()
        logger.info("loading a model")

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        logger.info("capturing a decode step for %d sequences", 256)
        logger.debug("a detail")
        return super().execute(requests)


class Slow(Logging):
    """Takes a while to load, and for every step."""

    def __init__(self) -> None:
        super().__init__()
        time.sleep(0.1)

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        time.sleep(0.1)
        return super().execute(requests)


class Warning(Logging):
    """Warns at the first step."""

    has_warned = False

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        if not self.has_warned:
            logging.getLogger("another.library").warning("a warning")
        self.has_warned = True
        return super().execute(requests)


class Interrupted(Logging):
    """Is interrupted in its first step."""

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        super().execute(requests)
        raise KeyboardInterrupt


class Unloadable(Logging):
    """Logs when it is loaded, and fails."""

    def __init__(self) -> None:
        super().__init__()
        raise ValueError("no such weights")
