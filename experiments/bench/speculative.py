"""What speculative decoding saves, configured by conf/bench_speculative.yaml.

The command is `python -m treeshare.experiments.bench.speculative batches=[1,8]`. Plain decoding and
every drafter serve the same requests in turn and several times, so that all see the machine in the
same state; the prefixes of their prompts are computed beforehand, and the texts are compared. A
round before these is not counted, because CUDA graphs are made in it. Rows are on disk as they
come; the same command again measures what is missing.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from treeshare.experiments.results.directory import JsonLines, write_atomically
from treeshare.experiments.runs.command import run_command
from treeshare.experiments.runs.config import SetupError, explained, options_of
from treeshare.llm_backend.api import Generate, GenerateReply, OutOfKVMemory, PromptTooLong
from treeshare.llm_backend.engines.serve import serve
from treeshare.llm_backend.engines.tree import TreeEngine

from .text_workloads import requests

PLAIN = "plain"


@dataclass(slots=True)
class Options:
    """The keys of bench_speculative.yaml that are not in a group.

    Raises:
        ValueError: a list is empty, or a number below 1.
    """

    workloads: list[str]
    batches: list[int]
    temperatures: list[float]
    max_tokens: int
    repeats: int
    seed: int
    output_dir: str

    def __post_init__(self) -> None:
        for name in ("workloads", "batches", "temperatures"):
            if not getattr(self, name):
                raise ValueError(f"{name}=[] must name at least one")
        if self.max_tokens < 3:
            raise ValueError(f"max_tokens={self.max_tokens} must be at least 3")
        for value in (*self.batches, self.repeats):
            if value < 1:
                raise ValueError(f"batches={self.batches}, repeats={self.repeats}: at least 1 each")

    def cases(self) -> Iterator[tuple[str, int, float, list[Generate]]]:
        """Yield workload, batch, temperature and requests of each case."""
        for workload, batch, temperature in product(
            self.workloads, self.batches, self.temperatures
        ):
            case = (workload, batch, temperature)
            yield *case, requests(*case, self.max_tokens, self.seed)


@dataclass(frozen=True, slots=True)
class Measured:
    """One drafter on one case: a line of results.jsonl."""

    workload: str
    batch: int  # sequences at once
    temperature: float
    drafter: str
    tokens: int  # generated
    seconds: float  # wall time, median
    speedup: float  # over plain decoding's median; above 1 is faster
    forwards: int  # of the model that verifies
    verifications: int  # sequences with guesses to verify, summed over forwards
    drafted: int  # tokens
    accepted: int  # of these
    num_equal: int  # completions whose text is plain decoding's
    num_completions: int

    @property
    def accepted_length(self) -> float:
        """Mean number of tokens of a verification, with the one that is never guessed."""
        return 1 + self.accepted / self.verifications if self.verifications else 1.0


def run(cfg: DictConfig) -> list[Measured]:
    """Measure what a composed configuration asks for and is not in its directory yet.

    Raises:
        SetupError: it cannot be run.
    """
    with explained():
        options = options_of(Options, cfg)
        cases = list(options.cases())
        arms, name = _arms(cfg)
        directory = Path(options.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        file: JsonLines[Any] = JsonLines(directory / "results.jsonl", Measured)
    with closing(file):
        with explained():
            setting = _setting(cfg, options, name, directory / "setting.json")
        num_done = Counter((row.workload, row.batch, row.temperature) for row in file.rows)
        for workload, batch, temperature, asked in cases:
            if num_done[workload, batch, temperature] >= len(arms):
                continue
            for row in measure(asked, arms, options.repeats):
                row = replace(row, workload=workload, batch=batch, temperature=temperature)
                file.append(row)
                print(_line(row), flush=True)
            write_atomically(directory / "results.md", table(setting, file.rows))
        return list(file.rows)


def measure(
    asked: Sequence[Generate], arms: Mapping[str, TreeEngine], repeats: int
) -> list[Measured]:
    """Measure all arms on some requests, plain decoding first.

    Returns:
        A row for each arm, without the columns of the case.
    """
    times: dict[str, list[float]] = {name: [] for name in arms}
    rows: dict[str, Measured] = {}
    texts: dict[str, list[str]] = {}
    for is_counted in [False, *[True] * repeats]:
        for name, engine in arms.items():
            seconds, rows[name], texts[name] = _serve(engine, asked)
            if is_counted:
                times[name].append(seconds)
    plain = median(times[PLAIN])
    return [
        replace(
            row,
            drafter=name,
            seconds=median(times[name]),
            speedup=plain / median(times[name]),
            num_equal=sum(a == b for a, b in zip(texts[name], texts[PLAIN], strict=True)),
        )
        for name, row in rows.items()
    ]


def table(setting: Mapping[str, Any], rows: Sequence[Measured]) -> str:
    """Write a line for each case: accepted length, forwards saved and speed-up of each drafter."""
    drafters = list(dict.fromkeys(row.drafter for row in rows if row.drafter != PLAIN))
    about = ", ".join(f"{key} {value}" for key, value in setting.items())
    head = ["workload", "batch", "T", "plain tokens/s", *drafters]
    lines = [about, "", f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    cases: dict[tuple[str, int, float], dict[str, Measured]] = {}
    for row in rows:
        cases.setdefault((row.workload, row.batch, row.temperature), {})[row.drafter] = row
    for (workload, batch, temperature), case in cases.items():
        plain = case[PLAIN]
        cells = [workload, f"{batch}", f"{temperature:g}", f"{plain.tokens / plain.seconds:.0f}"]
        for name in drafters:
            cells.append(_cell(case[name], plain) if name in case else "")
        lines.append(f"| {' | '.join(cells)} |")
    equal, completions = (
        sum(getattr(r, k) for r in rows) for k in ("num_equal", "num_completions")
    )
    note = (
        "A cell: tokens a verification yields; forwards saved; wall speed-up. "
        f"Equal to plain decoding: {equal} of {completions} completions."
    )
    return "\n".join([*lines, "", note]) + "\n"


def main() -> int:
    """The command: 0; 2 for a configuration that cannot be run."""
    return run_command("bench_speculative", "bench_speculative", _launch)


def _launch(cfg: DictConfig) -> int:
    run(cfg)
    print(Path(cfg.output_dir, "results.md").read_text())
    return 0


def _arms(cfg: DictConfig) -> tuple[dict[str, TreeEngine], str]:
    """Make an engine for plain decoding and one for each drafter, all on one model.

    Returns:
        The engines by name; the device's name.
    """
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    model = instantiate(config["model"])
    engine = {key: value for key, value in config["engine"].items() if key != "model"}
    drafters = {str(name): instantiate(node) for name, node in config["drafters"].items()}
    make = instantiate(engine, _partial_=True)  # it would turn a model that it is given into a node
    arms: dict[str, TreeEngine] = {
        name: make(model=model, speculative=drafter)
        for name, drafter in ({PLAIN: None} | drafters).items()
    }
    is_cuda = model.network.device.type == "cuda"
    return arms, torch.cuda.get_device_name() if is_cuda else platform.machine()


def _serve(engine: TreeEngine, asked: Sequence[Generate]) -> tuple[float, Measured, list[str]]:
    """Serve requests of whose texts an engine, and a smaller model, have only computed the prompts.

    Returns:
        Wall seconds, the row's counts, and the texts.
    """
    engine.reset_cache()
    warming = [replace(r, sampling=replace(r.sampling, max_tokens=2)) for r in asked]
    _replies(engine, warming)
    before = asdict(engine.stats())
    began = time.perf_counter()  # replies are text, so the device is done when they are there
    replies = _replies(engine, asked)
    seconds = time.perf_counter() - began
    stats = {key: value - before[key] for key, value in asdict(engine.stats()).items()}
    completions = [completion for reply in replies for completion in reply.completions]
    row = Measured(
        workload="",
        batch=0,
        temperature=0.0,
        drafter="",
        tokens=sum(completion.num_tokens for completion in completions),
        seconds=seconds,
        speedup=1.0,
        forwards=stats["steps"],
        verifications=stats["drafts"],
        drafted=stats["drafted_tokens"],
        accepted=stats["accepted_tokens"],
        num_equal=0,
        num_completions=len(completions),
    )
    return seconds, row, [completion.text for completion in completions]


def _replies(engine: TreeEngine, asked: Sequence[Generate]) -> list[GenerateReply]:
    try:
        return serve(engine, asked, GenerateReply)
    except (PromptTooLong, OutOfKVMemory) as error:
        raise SetupError(f"a prompt cannot be served: {error}") from error


def _line(row: Measured) -> str:
    return (
        f"{row.workload} x {row.batch}, T {row.temperature:g}, {row.drafter}: "
        f"{row.accepted_length:.2f} tokens a verification, {row.forwards} forwards, "
        f"{row.seconds:.2f} s, {row.speedup:.2f}x, {row.num_equal}/{row.num_completions} equal"
    )


def _cell(row: Measured, plain: Measured) -> str:
    saved = 1 - row.forwards / plain.forwards
    return f"{row.accepted_length:.2f}; {saved:.0%}; {row.speedup:.2f}x"


def _setting(cfg: DictConfig, options: Options, device: str, path: Path) -> dict[str, Any]:
    """Write the setting that all rows of the directory share, and return it.

    Raises:
        ValueError: the rows there are of another setting.
    """
    setting = {
        "model": Path(cfg.model.name).name,
        "dtype": cfg.model.dtype,
        "attention": cfg.model.attention,
        "fused": cfg.model.fused,
        "machine": device,
        "torch": torch.__version__,
        "max_tokens": options.max_tokens,
        "repeats": options.repeats,
    }
    if path.exists() and (there := json.loads(path.read_text())) != setting:
        raise ValueError(f"{path}: the rows there are of {there}; take another output_dir")
    write_atomically(path, json.dumps(setting, indent=1) + "\n")
    return setting


if __name__ == "__main__":
    sys.exit(main())
