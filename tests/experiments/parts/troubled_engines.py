"""Engines that fail on demand.

The tests put this folder on the path and name the engines in `engine._target_`. An environment
variable says when to fail, so that the same command can succeed later.
"""

import os
import signal
from collections.abc import Mapping

from treeshare.llm_backend.api import EngineCapabilities, Failure, PromptTooLong, Reply, Request
from treeshare.llm_backend.engines.mock import MockEngine


class Breaking(MockEngine):
    """Fails at the `$BREAK_AT`-th call."""

    def __init__(self) -> None:
        super().__init__()
        self.num_asked = 0

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        self.num_asked += 1
        if self.num_asked == int(os.environ.get("BREAK_AT", "0")):
            self.break_off()
        return super().execute(requests)

    def break_off(self) -> None:
        raise RuntimeError("a bug in the engine")


class Killed(Breaking):
    def break_off(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Interrupted(Breaking):
    def break_off(self) -> None:
        raise KeyboardInterrupt


class Refusing(MockEngine):
    """Refuses prompts that hold `$REFUSED`."""

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        refused = os.environ.get("REFUSED")
        return {
            ticket: Failure(PromptTooLong("prompt of 3012 tokens + 64 > 2048\nand more"))
            if refused is not None and refused in "".join(request.prefix_segments)
            else reply
            for (ticket, request), reply in zip(
                requests.items(), super().execute(requests).values(), strict=True
            )
        }


class Unmakable(MockEngine):
    def __init__(self) -> None:
        raise RuntimeError("it's a bug")


class Scoreless(MockEngine):
    """An engine that does not serve `Score`, as those of most servers."""

    capabilities = EngineCapabilities(scores=False, seeds=True, logprobs=True)


class Undeclared:
    """An engine that does not state its capabilities."""

    def close(self) -> None:
        pass
