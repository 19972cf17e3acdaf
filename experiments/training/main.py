"""Train the embedded model: `python -m treeshare.experiments.training puzzles=24.csv`.

A small Llama learns the Game of 24 and Countdown from examples in the tasks' own prompts, which
`examples.py` makes. The output directory gets the model in Hugging Face's format, the losses, and
the results of checks on held-out puzzles. The configuration is conf/train.yaml.

With `--config-name finetune data=solved.jsonl` the trained model learns on, from solutions that
its own searches found and `treeshare-export` wrote. That configuration is conf/finetune.yaml.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch.nn.functional import cross_entropy

from treeshare.experiments.results.directory import JsonLines, software, write_atomically
from treeshare.experiments.runs.command import run_command
from treeshare.experiments.runs.config import explained, options_of
from treeshare.llm_backend.model.device import check_device
from treeshare.llm_backend.model.loading import EMBEDDED, load_pretrained

from .batches import Batch, Batches
from .check import Check, check
from .examples import PREAMBLES, VOCABULARY, Lessons, Split
from .exported import ExportedExamples, read_exported
from .small_llama import Size, make_network, make_tokenizer, save

_LARGEST_VOCABULARY = 1 << 15  # tokens are int16


@dataclass(slots=True)
class TrainingOptions:
    """The keys of train.yaml, which explains each.

    Raises:
        ValueError: a value is out of its bound, or the device does not exist.
    """

    puzzles: str | None
    data: str | None
    init: str | None
    validation: int
    hold_out: str
    model: Size
    steps: int | None
    epochs: float | None
    rows: int
    length: int
    passes: int
    learning_rate: float
    warmup: int
    weight_decay: float
    verdict_weight: int
    device: str
    compile: bool
    workers: int
    log_every: int
    save_every: int
    seed: int
    output_dir: str

    def __post_init__(self) -> None:
        if self.hold_out not in ("puzzles", "positions"):
            raise ValueError(f"hold_out={self.hold_out!r} is neither 'puzzles' nor 'positions'")
        if self.puzzles is None and self.data is None:
            raise ValueError("puzzles or data must be given")
        if (self.steps is None) == (self.epochs is None) or (self.epochs and self.data is None):
            given = f"steps={self.steps} and epochs={self.epochs}"
            raise ValueError(f"{given}: one of them must be null; epochs are passes over data")
        if self.epochs is not None and not self.epochs > 0:
            raise ValueError(f"epochs={self.epochs} must be above 0")
        for name in ("steps", "rows", "passes", "warmup", "log_every", "save_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 64 <= self.length <= self.model.context:
            raise ValueError(f"length={self.length} must be from 64 to {self.model.context}")
        if not 2 <= self.verdict_weight <= 255:
            raise ValueError(f"verdict_weight={self.verdict_weight} must be from 2 to 255")
        if self.workers < 0:
            raise ValueError(f"workers={self.workers} must be at least 0")
        check_device("device", self.device)


@dataclass(frozen=True, slots=True)
class Losses:
    """A line of losses.jsonl. Losses are means since the line before, in nats per token."""

    step: int
    verdicts: float  # loss of the words that judge a position; 0 without any
    texts: float  # loss of all other tokens
    learning_rate: float
    tokens: int  # so far, prompts and padding included
    seconds: float  # so far, since the first batch was asked for


def run(cfg: DictConfig) -> list[Check]:
    """Train as a composed configuration says.

    Returns:
        The results of the checks, one for each time the model was saved.

    Raises:
        SetupError: the configuration cannot be run.
    """
    with explained():
        options = options_of(TrainingOptions, cfg)
        split = None
        if options.puzzles is not None:
            split = Split.of(options.puzzles, options.validation, options.seed)
        directory = Path(options.output_dir)
        if directory.exists():
            raise ValueError(f"output_dir={options.output_dir!r} exists; take another")
        torch.manual_seed(options.seed)
        network, tokenizer = _untrained(options) if options.init is None else _trained(options)
        source = _source(options, split, tokenizer)
        directory.mkdir(parents=True)
    steps = options.steps or _steps_of_epochs(options, source)
    batches = Batches(
        source=source,
        tokenizer=tokenizer,
        seed=options.seed,
        count=-(-steps // options.passes),
        rows=options.rows,
        length=options.length,
        verdict_weight=options.verdict_weight,
    )
    about = {
        "options": asdict(options),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "device": _device_name(options.device),
        "software": software(),
        "puzzles": {f.name: len(getattr(split, f.name)) for f in fields(split)} if split else None,
        "data": source.about() if isinstance(source, ExportedExamples) else None,
    }
    write_atomically(directory / "training.json", json.dumps(about, indent=1) + "\n")
    checks = []
    with (
        closing(JsonLines[Any](directory / "losses.jsonl", Losses)) as losses,
        closing(JsonLines[Any](directory / "checks.jsonl", Check)) as checked,
    ):
        for line in _train(network, batches, options, steps):
            losses.append(line)
            print(_losses_line(line), flush=True)
            if line.step % options.save_every and line.step != steps:
                continue
            save(network, tokenizer, directory / "model")
            if split is not None:
                puzzles = split.validation
                checks.append(check(line.step, directory / "model", puzzles, options.device))
                checked.append(checks[-1])
                print(checks[-1].to_text(), flush=True)
    return checks


def main() -> int:
    """Run the command.

    Returns:
        0, or 2 for a configuration that cannot be run.
    """
    return run_command("train", "train", _job)


def _job(cfg: DictConfig) -> int:
    run(cfg)
    return 0


def _untrained(options: TrainingOptions) -> tuple[Any, Any]:
    """A network with random weights, and its tokenizer."""
    tokenizer = make_tokenizer(PREAMBLES, VOCABULARY)
    return make_network(tokenizer, options.model).to(options.device), tokenizer


def _trained(options: TrainingOptions) -> tuple[Any, Any]:
    """A network that an earlier training has saved, and its tokenizer.

    Raises:
        ValueError: there is no such network, or it is of another kind.
    """
    name = str(options.init)
    if name != EMBEDDED and not Path(name).is_dir():
        raise ValueError(f"init={name!r} is neither {EMBEDDED!r} nor a directory")
    try:
        network, tokenizer = load_pretrained(
            "init", "AutoModelForCausalLM", name, "float32", options.device
        )
    except ValueError as error:
        raise ValueError(str(error).replace("init.name=", "init=")) from error
    if tokenizer.bos_token is not None or len(tokenizer) > _LARGEST_VOCABULARY:
        raise ValueError(f"init={name!r} must be a model that this command has trained")
    context = network.config.max_position_embeddings
    if options.length > context:
        raise ValueError(f"length={options.length} must be at most {context}, the context of init")
    return network, tokenizer


def _source(
    options: TrainingOptions, split: Split | None, tokenizer: Any
) -> Lessons | ExportedExamples:
    """Where the examples come from.

    Raises:
        OSError: the file of examples cannot be read.
        ValueError: it holds something else.
    """
    if options.data is not None:
        return read_exported(options.data, tokenizer, options.length)
    assert split is not None
    with_children = options.hold_out == "positions"
    return Lessons(split.train, split.held_out(with_children=with_children))


def _steps_of_epochs(options: TrainingOptions, source: Lessons | ExportedExamples) -> int:
    """The steps that take `epochs` passes over the file of examples."""
    assert isinstance(source, ExportedExamples) and options.epochs is not None
    return math.ceil(options.epochs * source.num_tokens / (options.rows * options.length))


def _train(
    network: Any, batches: Batches, options: TrainingOptions, steps: int
) -> Iterator[Losses]:
    """Take all optimizer steps.

    Yields:
        The losses after every `log_every` steps, and whenever the model is to be saved.
    """
    device = torch.device(options.device)
    optimizer = _optimizer(network, options)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _rate(step, options.warmup, steps)
    )
    if options.compile:
        for layer in network.model.layers:  # the others use the code compiled for the first
            layer.compile()
    loader = batches.loader(options.workers, pin_memory=device.type == "cuda")
    stream = _repeated(loader, options, steps, device)
    sums = torch.zeros(2, 2, device=device)  # rows: texts, verdicts; columns: summed losses, tokens
    began = time.monotonic()
    for step, batch in enumerate(stream, start=1):
        network.train()
        losses, weight = token_losses(network, batch)
        torch.autograd.backward((losses * weight).sum() / weight.sum())
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        rate = float(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        is_verdict = (weight > 1).long()
        sums[:, 0].index_add_(0, is_verdict, losses.detach())
        sums[:, 1] += torch.bincount(is_verdict, minlength=2)
        if step % options.log_every and step % options.save_every and step != steps:
            continue
        texts, verdicts = (sums[:, 0] / sums[:, 1].clamp(min=1)).tolist()
        sums.zero_()
        yield Losses(
            step, verdicts, texts, rate, step * batch.tokens.numel(), time.monotonic() - began
        )


def _repeated(
    loader: Iterable[Batch], options: TrainingOptions, steps: int, device: torch.device
) -> Iterator[Batch]:
    """One batch for each step: every `passes`-th is new, the others are drawn from earlier ones.

    Batches are repeated because a GPU trains faster than the worker processes make examples.
    """
    generator, fresh = random.Random(options.seed), iter(loader)
    seen: list[Batch] = []
    for step in range(steps):
        if step % options.passes:
            yield generator.choice(seen)
            continue
        batch = next(fresh)
        seen.append(Batch(*(part.to(device, non_blocking=True) for part in batch)))
        yield seen[-1]


def token_losses(network: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The cross-entropies and weights of the tokens to learn, both [tokens] float32."""
    tokens, positions, weights = batch
    example = (positions == 0).cumsum(1)
    sees = (example[:, :, None] == example[:, None, :]).tril()
    with torch.autocast(tokens.device.type, torch.bfloat16):
        hidden = network.model(
            input_ids=tokens.long(),
            position_ids=positions.long(),
            attention_mask=sees[:, None],
            use_cache=False,
        ).last_hidden_state
        is_learnt = weights[:, 1:] > 0
        logits = network.lm_head(hidden[:, :-1][is_learnt])
    targets = tokens[:, 1:][is_learnt].long()
    losses = cross_entropy(logits.float(), targets, reduction="none")
    return losses, weights[:, 1:][is_learnt].float()


def _optimizer(network: Any, options: TrainingOptions) -> torch.optim.Optimizer:
    """AdamW, with weight decay for matrices only."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.95), fused=True)


def _rate(step: int, warmup: int, steps: int) -> float:
    """The factor of the learning rate after `step` steps: linear warm-up, then cosine decay."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def _losses_line(losses: Losses) -> str:
    speed = losses.tokens / losses.seconds
    return (
        f"step {losses.step}: verdicts {losses.verdicts:.4f}, texts {losses.texts:.4f} nats a "
        f"token; {losses.tokens / 1e6:.0f}M tokens in {losses.seconds:.0f} s, {speed:,.0f} a second"
    )
