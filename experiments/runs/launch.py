"""Run one job of the command line, print its table, and return its exit code."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from treeshare.experiments.results.summary import Summary

from .command import print_error, print_output
from .config import keep_given_keys
from .resumable_run import run_or_resume


def launch(cfg: DictConfig, finished: list[tuple[list[str], Summary]]) -> int:
    """Run one job of the command line; a multirun has several.

    Args:
        cfg: the composed configuration; it is changed.
        finished: gets the overrides and the summary of the job if it ran.

    Returns:
        0; 1 if a puzzle failed.

    Raises:
        SetupError: it cannot be run.
    """
    hydra_cfg = HydraConfig.get()
    overrides = list(hydra_cfg.overrides.task)
    keep_given_keys(cfg, overrides)
    if not any(text.startswith("search._target_=") for text in overrides):
        cfg.name = cfg.name or hydra_cfg.runtime.choices.search
    summary = run_or_resume(cfg)
    if hydra_cfg.mode == RunMode.MULTIRUN:
        print_output(f"\n{' '.join(overrides)}")
    print_output(summary.table())
    finished.append((overrides, summary))
    return print_error("treeshare", summary.failure_line(), 1) if summary.failures else 0
