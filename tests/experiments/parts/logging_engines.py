"""Engines that log as the engines of a model do.

The tests put this folder on the path and name the engines in `engine._target_`.
"""

import logging
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
        return super().execute(requests)


class Unloadable(Logging):
    """Logs when it is loaded, and fails."""

    def __init__(self) -> None:
        super().__init__()
        raise ValueError("no such weights")
