"""What a forward of the engine computes, and what it gives back."""

from __future__ import annotations

from collections import abc
from collections.abc import Mapping
from typing import NamedTuple

from treeshare.llm_backend.api import Sampling

from .packing import KVNode
from .sequence import Sequence

Place = tuple[KVNode, int]
"""A token: its node, and its offset there."""


class ForwardBatch(NamedTuple):
    """The tokens of a forward, and the rows of logits to draw from or to read.

    Attributes:
        ends: for each node, the end of its tokens to compute; parents before their children.
        sequences: those for which tokens are drawn.
        depths: for each sequence its rows, as distances from the sequence's next token.
        places: for each of these rows the token after which it draws, sequence by sequence.
        targets: tokens, and after each a token id whose log-probability is wanted.
    """

    ends: Mapping[KVNode, int]
    sequences: abc.Sequence[Sequence]
    depths: abc.Sequence[abc.Sequence[int]]
    places: abc.Sequence[Place]
    targets: abc.Sequence[tuple[Place, int]]

    @classmethod
    def decoding(cls, sequences: abc.Sequence[Sequence]) -> ForwardBatch:
        """Return the batch of a decode step: each sequence has one token to compute."""
        ends: dict[KVNode, int] = {each.leaf: each.leaf.num_computed + 1 for each in sequences}
        places = [(leaf, leaf.num_computed) for leaf in ends]
        return cls(ends, sequences, [(0,)] * len(sequences), places, ())

    @property
    def num_tokens(self) -> int:
        """Tokens to compute."""
        return sum(end - node.num_computed for node, end in self.ends.items())

    @property
    def num_rows(self) -> int:
        """Rows of logits to look at; a token may be counted several times."""
        return len(self.places) + len(self.targets)


class ForwardOutput(NamedTuple):
    """What a forward gives back.

    Attributes:
        tokens: ids drawn, by row.
        logprobs: log-probability of each, nats; NaN where logits are.
        target_logprobs: log-probability of each target, nats.
        num_entries: different KV entries read.
    """

    tokens: list[int]
    logprobs: list[float]
    target_logprobs: list[float]
    num_entries: int


class SamplingColumns(NamedTuple):
    """How each sequence of a batch is drawn, as `BatchSampler.load` takes it."""

    samplings: list[Sampling]
    streams: list[int]
    steps: list[int]  # index of the sequence's next token

    @classmethod
    def of(cls, sequences: abc.Sequence[Sequence]) -> SamplingColumns:
        """Read the columns off some sequences."""
        return cls(
            [each.sampling for each in sequences],
            [each.stream for each in sequences],
            [len(each.generated) for each in sequences],
        )
