"""Run one job of the command line: its run, its table, its exit code and its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from treeshare.experiments.loggers.metrics import Metrics
from treeshare.experiments.results.jobs import JobResult, Multirun, Refusal
from treeshare.experiments.results.summary import Totals

from .config import SetupError, keep_given_keys
from .resumable_run import run_or_resume


def launch(cfg: DictConfig) -> JobResult:
    """Run one job of the command line; a multirun has several.

    Args:
        cfg: the composed configuration; it is changed.

    Returns:
        The exit code 0, or 1 if a puzzle failed. Then the job has no value, because the accuracy
        over the other puzzles cannot be compared with that of other jobs.

    Raises:
        SetupError: it cannot be run.
    """
    hydra_cfg = HydraConfig.get()
    overrides = list(hydra_cfg.overrides.task)
    keep_given_keys(cfg, overrides)
    if not any(text.startswith("search._target_=") for text in overrides):
        cfg.name = cfg.name or hydra_cfg.runtime.choices.search
    metric = _metric(cfg)
    summary = run_or_resume(cfg)
    has_failed = bool(summary.failures)
    return JobResult(
        code=1 if has_failed else 0,
        table=summary.table(),
        error=summary.failure_line() if has_failed else "",
        totals=summary.totals,
        value=None if has_failed else _metrics(summary.totals)[metric],
    )


class SearchMultirun(Multirun):
    """Refuses what would let a sweeper optimize nothing, or look for the worst."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Check what is optimized.

        Raises:
            Refusal: there is no such metric, or a share of right answers is to be minimized.
        """
        super().on_multirun_start(config)
        try:
            metric = _metric(config)
        except SetupError as error:
            raise Refusal(str(error)) from None
        direction = OmegaConf.select(config, "hydra.sweeper.direction")
        if getattr(direction, "name", direction) == "minimize" and metric in _ACCURACIES:
            raise Refusal(
                f"hydra.sweeper.direction=minimize looks for the lowest {metric}: "
                "write hydra.sweeper.direction=maximize"
            )


_ACCURACIES = ("top1", "any_of_b", "mean_accuracy")


def _metric(cfg: DictConfig) -> str:
    """The name of the metric to optimize.

    Raises:
        SetupError: there is no such metric.
    """
    known = _metrics(Totals.of([], []))
    if cfg.optimize not in known:
        raise SetupError(f"optimize={cfg.optimize!r} must be one of {', '.join(known)}")
    return str(cfg.optimize)


def _metrics(totals: Totals) -> Mapping[str, float]:
    """The metrics that a logger gets, without the number of failed puzzles."""
    metrics = Metrics().of_run(totals)
    return {name: float(metrics[name]) for name in metrics if name != "failed"}
