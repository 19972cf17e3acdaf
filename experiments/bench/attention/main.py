"""Measure the time of tree attention alone: the command of this benchmark.

`python -m treeshare.experiments.bench.attention variants=[deft] workloads=[few_shot] heads=[32/8]`
is configured by conf/bench_attention.yaml. Every variant is measured on every workload, and the
bandwidth and the rate of matrix products in the same run. Each row is written to disk at once; the
same command again measures what is missing. `case.py` does the measuring.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from treeshare.experiments.results.directory import (
    JsonLines,
    kept_setting,
    write_atomically,
    write_setting,
)
from treeshare.experiments.runs.command import print_error, run_command
from treeshare.experiments.runs.config import explained, one_line, options_of
from treeshare.kernels.planning.attention_spec import AttentionSpec
from treeshare.kernels.planning.forest import Forest
from treeshare.kernels.planning.variants import VARIANTS

from .case import Case, machine_rates, measure
from .roofline import floor_seconds, queries_below, traffic
from .tables import Measurement, Setting, report
from .workloads import Workload, build

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
MAX_MASK_BYTES = 1 << 31  # of a mask of `tree_mask`
MAX_SEQUENCE_ENTRIES = 1 << 27  # in all paths together, each of which `sequence` lists


@dataclass(slots=True)
class Options:
    """The keys of bench_attention.yaml.

    Raises:
        ValueError: an unknown value, or a device that cannot do the work.
    """

    workloads: list[str]  # groups, keys of workloads.GROUPS
    heads: list[str]  # query heads/KV heads
    variants: list[str]
    head_dim: int
    dtype: str
    device: str
    templates: str | None  # the directory of DeFT's templates
    repeats: int  # replays, of which the median counts
    seed: int
    output_dir: str

    def __post_init__(self) -> None:
        for name in ("workloads", "heads", "variants"):
            if not getattr(self, name):
                raise ValueError(f"{name}=[] must name at least one")
        for variant in self.variants:
            if variant not in VARIANTS:
                raise ValueError(f"variant={variant!r} must be one of {', '.join(VARIANTS)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r} must be one of {', '.join(DTYPES)}")
        for name in ("repeats", "head_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        is_interpreted = os.environ.get("TRITON_INTERPRET", "0") == "1"
        if self.device not in ("cuda", "cpu"):
            raise ValueError(f"device={self.device!r} must be cuda or cpu")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device='cuda': torch {torch.__version__} finds no CUDA device here")
        if is_interpreted != (self.device == "cpu"):
            wanted = "needs" if self.device == "cpu" else "cannot be timed with"
            raise ValueError(f"device={self.device!r} {wanted} TRITON_INTERPRET=1")

    def attention_spec(self, text: str) -> AttentionSpec:
        """The attention with the heads that a text like `32/8` names.

        Raises:
            ValueError: the text is no such pair, or the kernels cannot do that attention.
        """
        try:
            num_heads, num_kv_heads = map(int, text.split("/"))
        except ValueError:
            raise ValueError(f"heads={text!r} must be query heads/KV heads, as 32/8") from None
        if num_kv_heads < 1:
            raise ValueError(f"heads={text!r} must have at least one KV head")
        return AttentionSpec(num_heads, num_kv_heads, self.head_dim, dtype=DTYPES[self.dtype])


def refusal(variant: str, forest: Forest) -> str:
    """Why a variant cannot do a workload; empty if it can."""
    num_bytes = int(forest.num_queries.sum()) * int(forest.length.sum())
    if variant == "tree_mask" and num_bytes > MAX_MASK_BYTES:
        return f"a mask of {num_bytes:,} bytes exceeds {MAX_MASK_BYTES:,}"
    num_entries = int(queries_below(forest) @ forest.length)
    if variant == "sequence" and num_entries > MAX_SEQUENCE_ENTRIES:
        return f"paths of {num_entries:,} entries exceed {MAX_SEQUENCE_ENTRIES:,}"
    return ""


def measurements(
    options: Options, workloads: list[Workload], setting: Setting, done: set[tuple[str, str, str]]
) -> Iterator[Measurement]:
    """Measure the rows that are not done, in the order of the configuration.

    Args:
        options: the configuration.
        workloads: the forests.
        setting: the rates of the machine.
        done: (workload, heads, variant) of the rows on disk.
    """
    device = torch.device(options.device)
    for text in options.heads:
        spec = options.attention_spec(text)
        for workload in workloads:
            todo = [v for v in options.variants if (workload.name, text, v) not in done]
            case: Case | None = None
            for variant in todo:
                row = _blank(workload, text, spec, variant, setting)
                try:
                    if reason := refusal(variant, workload.forest):
                        raise ValueError(reason)
                    case = case or Case(workload, spec, device, options.seed)
                    yield measure(case, variant, options.repeats, row)
                except (ValueError, torch.OutOfMemoryError) as error:
                    yield replace(row, note=f"skipped: {one_line(error)}")


def run(cfg: DictConfig) -> list[Measurement]:
    """Measure what a composed configuration asks for and is not in its directory yet.

    Returns:
        All rows of the directory.

    Raises:
        SetupError: the configuration cannot be run.
    """
    with explained():
        options = options_of(Options, cfg)
        for text in options.heads:
            options.attention_spec(text)
        workloads = build(options.workloads, options.templates)
        directory = Path(options.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        file: JsonLines[Any] = JsonLines(directory / "results.jsonl", Measurement)
    with closing(file):
        with explained():
            setting = _setting(options, directory / "setting.json")
        done = {(row.workload, row.heads, row.variant) for row in file.rows}
        for row in measurements(options, workloads, setting, done):
            file.append(row)
            took = f"{row.us:.1f} µs, floor {row.floor_us:.1f} " if row.us else ""
            print(f"{row.heads} {row.workload} {row.variant}: {took}{row.note}", flush=True)
            write_atomically(directory / "results.md", report(setting, file.rows))
        return list(file.rows)


def main() -> int:
    """Run the command.

    Returns:
        The exit code: 0; 1 if a row is wrong; 2 for a configuration that cannot be run.
    """
    return run_command("bench_attention", "bench_attention", _launch)


def _launch(cfg: DictConfig) -> int:
    rows = run(cfg)
    print(Path(cfg.output_dir, "results.md"))
    wrong = [row for row in rows if row.ok is False]
    if not wrong:
        return 0
    first = f"{wrong[0].variant} on {wrong[0].workload}, {wrong[0].heads}: {wrong[0].note}"
    message = f"{len(wrong)} of {len(rows)} rows are wrong; first {first}"
    return print_error("bench_attention", message, 1)


def _blank(
    workload: Workload, text: str, spec: AttentionSpec, variant: str, setting: Setting
) -> Measurement:
    """A row as far as the workload determines it."""
    size = spec.num_heads, spec.num_kv_heads, spec.head_dim, spec.dtype.itemsize
    moved = traffic(workload.forest, *size)
    floor = None
    if setting.bandwidth and setting.flop_rate:
        floor = 1e6 * floor_seconds(moved, setting.bandwidth, setting.flop_rate)
    return Measurement(
        workload=workload.name,
        group=workload.group,
        heads=text,
        variant=variant,
        num_queries=int(workload.forest.num_queries.sum()),
        num_entries=int(workload.forest.length[queries_below(workload.forest) > 0].sum()),
        kv_mb=moved.kv_bytes / 1e6,
        floor_us=floor,
    )


def _setting(options: Options, path: Path) -> Setting:
    """The setting of the directory, or a new one for which the machine's rates are measured.

    Raises:
        ValueError: the rows there were measured on another machine or with other options.
    """
    is_cuda = options.device == "cuda"
    name = torch.cuda.get_device_name() if is_cuda else f"{platform.machine()}, interpreter"
    given = options.dtype, options.head_dim, options.repeats, options.seed
    setting = Setting(name, torch.__version__, metadata.version("triton"), *given, None, None)
    if there := kept_setting(path, setting, ("bandwidth", "flop_rate")):
        return there
    if is_cuda:
        bandwidth, flop_rate = machine_rates(DTYPES[options.dtype])
        setting = replace(setting, bandwidth=bandwidth, flop_rate=flop_rate)
    return write_setting(path, setting)
