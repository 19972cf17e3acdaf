"""Read examples that `treeshare-export --format sft --style text` has written."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treeshare.experiments.results.digests import file_digest

from .batches import encoded
from .examples import Example


@dataclass(frozen=True, slots=True)
class ExportedExamples:
    """The examples of a file that are not too long."""

    lines: tuple[Example, ...]
    num_too_long: int  # lines that were left out
    num_tokens: int  # of the lines, prompts included
    digest: str  # of the file

    def examples(self, seed: Sequence[int]) -> Iterator[Example]:
        """Return the examples in random order, again and again."""
        generator = random.Random(repr(tuple(seed)))
        while True:
            yield from generator.sample(self.lines, len(self.lines))

    def about(self) -> dict[str, Any]:
        """What a training keeps of the file."""
        return {
            "digest": self.digest,
            "lines": len(self.lines),
            "too_long": self.num_too_long,
            "tokens": self.num_tokens,
        }


def read_exported(path: str, tokenizer: Any, length: int) -> ExportedExamples:
    """Read a file of examples.

    Args:
        path: JSON lines, each with a `prompt` and its `completion`.
        tokenizer: from `small_llama.make_tokenizer`.
        length: the most tokens of an example.

    Raises:
        OSError: it cannot be read.
        ValueError: a line has other contents, or no line is short enough.
    """
    examples = [
        _example(line, f"{path}:{number}")
        for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), start=1)
    ]
    sizes = [len(prompt) + len(reply) for _, prompt, reply in encoded(tokenizer, examples)]
    fitting = [one for one, size in zip(examples, sizes, strict=True) if size <= length]
    if not fitting:
        raise ValueError(f"data={path}: none of {len(examples)} lines has at most {length} tokens")
    return ExportedExamples(
        lines=tuple(fitting),
        num_too_long=len(examples) - len(fitting),
        num_tokens=sum(size for size in sizes if size <= length),
        digest=file_digest(Path(path)),
    )


def _example(line: str, where: str) -> Example:
    try:
        row = json.loads(line)
        prompt, reply = row["prompt"], row["completion"]
        if isinstance(prompt, str) and isinstance(reply, str):
            return Example(prompt, reply)
    except (KeyError, TypeError, ValueError, RecursionError):
        pass
    raise ValueError(
        f"data={where} has no prompt with a completion, as treeshare-export writes them with "
        "--format sft --style text"
    )
