"""Time decoding end to end, configured by conf/bench_decode.yaml.

The command is `python -m treeshare.experiments.bench.decode workload=few_shot model.name=...`. One
network serves all kinds of attention and all workloads, and the bandwidth is measured in the
same run. Rows are on disk as they come; the same command again measures what is missing. The
measurements themselves are in case.py, verification.py and engine_comparison.py.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from treeshare.experiments.bench.attention.case import machine_rates
from treeshare.experiments.results.directory import (
    JsonLines,
    kept_setting,
    write_atomically,
    write_setting,
)
from treeshare.experiments.runs.command import run_command
from treeshare.experiments.runs.config import explained, one_line, options_of
from treeshare.llm_backend.api import OutOfKVMemory
from treeshare.llm_backend.model.device import check_device
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.model.random_models import SHAPES, load_network, weight_bytes

from .case import Limits, measure, measure_pressure, on_attention
from .engine_comparison import run_arm
from .options import ARMS, Options, Work, build
from .step_profile import warm_profiler
from .tables import Arm, Measurement, Setting, report
from .verification import Verification, measure_verification
from .workloads import MemoryPressure


@dataclass(frozen=True, slots=True)
class Bench:
    """What to measure, and what is measured already."""

    options: Options
    works: Sequence[tuple[str, Work]]  # with their groups
    setting: Setting
    rows: JsonLines[Any]  # of Measurement
    arms: JsonLines[Any]  # of Arm

    def run(self) -> None:
        """Measure what is missing; the network is loaded only if something is."""
        arms, todo = self._missing_arms(), self._missing_rows()
        if not (arms or todo):
            return
        model = self.options.model
        if self.setting.bandwidth is not None:
            warm_profiler()
        with explained("model"):
            loaded = load_network(model.name, model.dtype, model.device, model.fused)
        limits = Limits(
            self.options.max_num_seqs,
            self.options.max_num_batched_tokens,
            self.options.spans,
            self.setting.bandwidth,
            weight_bytes(loaded.network),
        )
        for arm in arms:
            with explained(arm.arm):
                done = run_arm(loaded, self.options.arms, limits, self.options.seed, arm)
            self.arms.append(done)
            self._report(f"{arm.arm}: {done.nodes} nodes in {done.seconds:.1f} s")
        for attention in dict.fromkeys(row.attention for _, row in todo):
            for row in self._measured(loaded, limits, attention, todo):
                self.rows.append(row)
                took = row.note or f"{row.seconds:.2f} s"
                step = f", {row.step_ms:.2f} ms a step" if row.step_ms else ""
                self._report(f"{row.workload} {attention}: {took}{step}")

    def _missing_rows(self) -> list[tuple[Work, Measurement]]:
        options = self.options
        blank = Measurement(**self._about(), group="", workload="", attention="")
        rows = [
            (work, replace(blank, group=group, workload=work.name, attention=attention))
            for attention in options.attention
            for group, work in self.works
        ]
        done = {row.key for row in self.rows.rows}
        return [(work, row) for work, row in rows if row.key not in done]

    def _missing_arms(self) -> list[Arm]:
        if ARMS not in self.options.workload:
            return []
        search = self.options.arms
        arms = [Arm(**self._about(), search=search.search, arm=name) for name in search.names]
        done = {arm.key for arm in self.arms.rows}
        return [arm for arm in arms if arm.key not in done]

    def _about(self) -> dict[str, Any]:
        model = self.options.model
        weights = "random" if model.name in SHAPES else "real"
        return {
            "model": model.name, "weights": weights, "dtype": model.dtype, "fused": model.fused
        }  # fmt: skip

    def _measured(
        self,
        loaded: Model,
        limits: Limits,
        attention: str,
        todo: Sequence[tuple[Work, Measurement]],
    ) -> Iterator[Measurement]:
        with explained("attention"):
            model = on_attention(loaded, attention)
        for work, row in todo:
            if row.attention != attention:
                continue
            trace = None
            if self.options.trace:
                trace = Path(self.options.output_dir, f"{row.workload} {attention}.json")
            try:
                if isinstance(work, MemoryPressure):
                    yield from measure_pressure(model, work, limits, row)
                elif isinstance(work, Verification):
                    yield measure_verification(model, work, limits, row, trace)
                else:
                    yield measure(model, work, limits, row, trace)
            except (ValueError, OutOfKVMemory, MemoryError, torch.OutOfMemoryError) as error:
                yield replace(row, note=f"skipped: {one_line(error)}")

    def _report(self, line: str) -> None:
        print(line, flush=True)
        text = report(self.setting, self.rows.rows, self.arms.rows)
        write_atomically(Path(self.options.output_dir, "results.md"), text)


def run(cfg: DictConfig) -> None:
    """Measure what a composed configuration asks for and is not in its directory yet.

    Raises:
        SetupError: it cannot be run.
    """
    with ExitStack() as files:
        with explained():
            options = _options(cfg)
            works = build(options)
            directory = Path(options.output_dir)
            directory.mkdir(parents=True, exist_ok=True)
            rows: JsonLines[Any] = JsonLines(directory / "results.jsonl", Measurement)
            files.enter_context(closing(rows))
            arms: JsonLines[Any] = JsonLines(directory / "arms.jsonl", Arm)
            files.enter_context(closing(arms))
            setting = _setting(options, directory / "setting.json")
        Bench(options, works, setting, rows, arms).run()


def main() -> int:
    """The command: 0; 2 for a configuration that cannot be run."""
    return run_command("bench_decode", "bench_decode", _launch)


def _launch(cfg: DictConfig) -> int:
    run(cfg)
    print(Path(cfg.output_dir, "results.md"))
    return 0


def _options(cfg: DictConfig) -> Options:
    workload = [cfg.workload] if isinstance(cfg.workload, str) else cfg.workload
    return options_of(Options, cfg, workload=workload)


def _setting(options: Options, path: Path) -> Setting:
    """Return the directory's setting, or a new one with the bandwidth measured.

    Raises:
        ValueError: the rows there are another machine's, or of other limits, or there is no such
            device.
    """
    device = torch.device(options.model.device)
    is_cuda = device.type == "cuda"
    check_device("model.device", options.model.device)
    setting = Setting(
        machine=torch.cuda.get_device_name(device) if is_cuda else platform.machine(),
        torch=torch.__version__,
        transformers=metadata.version("transformers"),
        triton=metadata.version("triton"),
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        seed=options.seed,
        bandwidth=None,
    )
    if there := kept_setting(path, setting, ("bandwidth",)):
        return there
    if is_cuda:
        bandwidth, _ = machine_rates(torch.bfloat16)
        setting = replace(setting, bandwidth=bandwidth)
    return write_setting(path, setting)
