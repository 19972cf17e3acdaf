"""A step of device work whose attention is planned in fixed memory; on CUDA it is one graph.

When a forest needs more room than the plans have, the plans are made larger and the graph is
captured again. This is counted and logged, and is never an error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import torch

from treeshare.kernels.launch import captured
from treeshare.kernels.planning.forest import Forest
from treeshare.llm_backend.api import EngineStats
from treeshare.llm_backend.model.attention import CapturedPlans

_log = logging.getLogger(__name__)


class PlannedStep:
    """Device work over captured plans.

    Args:
        run: the work.
        state: tensors that the work changes and reads again; a capture leaves them as they were.
        plans: the plans that its attention uses.
        device: where the work runs.
        name: what the step does, for the log.
        stats: where captures, their time and enlargements are counted.
    """

    def __init__(
        self,
        run: Callable[[], None],
        state: Sequence[torch.Tensor],
        plans: CapturedPlans,
        device: torch.device,
        name: str,
        stats: EngineStats,
    ) -> None:
        self._run = run
        self._state = state
        self._plans = plans
        self._device = device
        self._name = name
        self._stats = stats
        self._launch: Callable[[], None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether there is anything to launch yet."""
        return self._launch is not None

    def launch(self) -> None:
        """Begin the step, for the forest that the plans have loaded, without waiting for it."""
        assert self._launch is not None
        self._launch()

    def fit(self, forest: Forest) -> None:
        """Plan a forest for the next launch; wait for the device, and make room where needed."""
        while not (self.is_ready and self._plans.fit(forest)):
            self.make_room(forest)

    def make_room(self, forest: Forest) -> None:
        """Enlarge the plans for a forest and capture the step, which on CUDA runs it.

        The forest must be loaded before the next launch.
        """
        began = time.perf_counter()
        action = "enlarging the plan of" if self.is_ready else "capturing"
        _log.info("%s %s", action, self._name)
        self._stats.plan_enlargements += self.is_ready
        self._launch = None  # gives back the memory of the graph that was captured before
        self._plans.enlarge(forest)
        before = [tensor.clone() for tensor in self._state]
        self._launch = captured(self._run, self._device)
        for tensor, values in zip(self._state, before, strict=True):
            tensor.copy_(values)
        seconds = time.perf_counter() - began
        _log.debug("captured %s in %.1f s", self._name, seconds)
        self._stats.captures += 1
        self._stats.capture_seconds += seconds
