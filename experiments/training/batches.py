"""Encode examples as batches of tokens: packed rows of one length, with weights for the loss.

Batch i depends only on the seed and on i, so the data do not depend on the number of processes that
make them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .examples import Example

_CHUNK = 512  # examples encoded at once


class Batch(NamedTuple):
    """Rows of examples, one after the other.

    The rest of a row is filled with examples of one token and weight 0.
    """

    tokens: torch.Tensor  # [rows, length] int16
    positions: torch.Tensor  # [rows, length] int16, from 0 in every example
    weights: torch.Tensor  # [rows, length] uint8, the weight in the loss; 0 in prompts


class Source(Protocol):
    """Where the examples come from."""

    def examples(self, seed: tuple[int, ...]) -> Iterator[Example]:
        """Return examples without end, the same ones for equal seeds."""
        ...


@dataclass(frozen=True)
class Batches(Dataset[Batch]):
    """All batches of a training run. Each is made when it is asked for."""

    source: Source
    tokenizer: Any
    seed: int
    count: int  # batches
    rows: int
    length: int  # tokens of a row
    verdict_weight: int  # weight of the word that judges; other tokens of a reply have 1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        tokens = np.zeros((self.rows, self.length), np.int16)
        positions, weights = np.zeros_like(tokens), np.zeros(tokens.shape, np.uint8)
        row = start = 0
        for prompt, reply, weight in self._encoded(index):
            stop = start + len(prompt) + len(reply)
            if stop > self.length:
                row, start, stop = row + 1, 0, len(prompt) + len(reply)
            if row == self.rows:
                break
            tokens[row, start:stop] = prompt + reply
            positions[row, start:stop] = range(stop - start)
            weights[row, stop - len(reply) : stop] = 1
            weights[row, stop - len(reply)] = weight
            start = stop
        return Batch(*map(torch.from_numpy, (tokens, positions, weights)))

    def loader(self, num_workers: int, *, pin_memory: bool) -> DataLoader[Batch]:
        """A loader of the batches in order.

        Args:
            num_workers: processes that make batches; 0 makes them in this process.
            pin_memory: whether the tensors are put into pinned memory.
        """
        return DataLoader(
            self,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            worker_init_fn=_use_one_thread,
        )

    def _encoded(self, index: int) -> Iterator[tuple[list[int], list[int], int]]:
        """Encode examples without end; those longer than a row are left out.

        Yields:
            The tokens of the prompt, those of the reply, and the weight of the reply's first token.
        """
        examples = self.source.examples((self.seed, index))
        for example, prompt, reply in encoded(self.tokenizer, examples):
            if len(prompt) + len(reply) <= self.length:
                yield prompt, reply, self.verdict_weight if example.is_verdict else 1


def encoded(
    tokenizer: Any, examples: Iterable[Example]
) -> Iterator[tuple[Example, list[int], list[int]]]:
    """Encode examples.

    Args:
        tokenizer: from `small_llama.make_tokenizer`.
        examples: any number of them.

    Yields:
        The example, the tokens of its prompt, and those of its reply with the token that ends it.
    """
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    rest = iter(examples)
    while chunk := list(islice(rest, _CHUNK)):
        prompts = encode([example.prompt for example in chunk])
        replies = encode([example.reply for example in chunk])
        for example, prompt, reply in zip(chunk, prompts, replies, strict=True):
            yield example, prompt.ids, [*reply.ids, tokenizer.eos_token_id]


def _use_one_thread(_: int) -> None:
    """Switch off the tokenizer's own threads, as there is a process for each core."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
