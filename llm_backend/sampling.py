"""Draws the next token of every live sequence, each from its own counter-based random stream.

The draw of a sequence is fixed by (seed, sample index, step) and its logits; rows never mix, so
what else is in the batch cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from .api import Sampling

_BLOCK = 256  # tokens
_Integers = TypeVar("_Integers", np.ndarray, torch.Tensor)


class Rules(NamedTuple):
    """How to draw each of B rows, on the device that draws."""

    temperature: torch.Tensor  # [B] fp32; 0 is greedy
    top_p: torch.Tensor  # [B] fp32
    top_k: torch.Tensor  # [B] int64; the vocabulary's size or more keeps all
    filtered: torch.Tensor | None  # [F] int64, rows that `top_p` or `top_k` may cut; None: none
    forced: torch.Tensor | None = None  # [B] int64, the token itself, or -1; None: draw all

    @classmethod
    def of(cls, samplings: Sequence[Sampling], device: torch.device | str = "cpu") -> Rules:
        filtered = [i for i, sampling in enumerate(samplings) if is_filtered(sampling)]
        columns = [(s.temperature, s.top_p) for s in samplings]
        temperature, top_p = torch.tensor(columns, device=device).T.contiguous()
        top_k = torch.tensor([top_k_of(sampling) for sampling in samplings], device=device)
        rows = torch.tensor(filtered, device=device) if filtered else None
        return cls(temperature, top_p, top_k, rows)


def is_filtered(sampling: Sampling) -> bool:
    return sampling.top_k is not None or sampling.top_p < 1


def top_k_of(sampling: Sampling) -> int:
    """As `Rules` wants it: more than any vocabulary has where all are kept."""
    return 1 << 31 if sampling.top_k is None else sampling.top_k


def streams(seeds: Sequence[int], samples: Sequence[int]) -> torch.Tensor:
    """The random stream of each (seed, sample index): [B] int64, to be handed to `uniforms`."""
    mixed = np.zeros(len(seeds), dtype=np.int64)
    for column in (seeds, samples):
        mixed = _mix(mixed ^ np.array(column, dtype=np.uint64).view(np.int64))
    return torch.from_numpy(mixed)


def uniforms(streams: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Numbers in [0, 1), [B] float64, a function of (seed, sample index, step) row by row.

    The three are folded with the finaliser of SplitMix64 (Steele, Lea and Flood 2014, section 3).
    """
    return _shifted(_mix(streams ^ steps), 11).double() / 2.0**53


def sample(
    logits: torch.Tensor, rules: Rules, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token a row, without a wait for the device.

    Args:
        logits: [B, V] fp32.
        rules: temperature, top_p and top_k of each row.
        uniform: [B] float64 in [0, 1).

    Returns:
        Token ids [B] int64, and the log-probability of each at temperature 1, before any filter,
        [B] fp32, nats.
    """
    is_greedy = rules.temperature == 0
    scores = logits / torch.where(is_greedy, 1.0, rules.temperature)[:, None]
    if rules.filtered is not None:
        _filter(scores, rules, rules.filtered)
    tokens = torch.where(is_greedy, logits.argmax(-1), _inverse_distribution(scores, uniform))
    if rules.forced is not None:
        tokens = torch.where(rules.forced < 0, tokens, rules.forced)
    chosen = logits.gather(1, tokens[:, None])[:, 0]
    return tokens, chosen - torch.logsumexp(logits, dim=-1)


def _inverse_distribution(scores: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first token, in order of id, at which the distribution function exceeds `uniform`, [B].

    The function is summed up by blocks of tokens first and then inside one block only.
    """
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    blocks = torch.nn.functional.pad(weights, (0, -scores.shape[-1] % _BLOCK))
    blocks = blocks.view(len(scores), -1, _BLOCK)
    mass = blocks.sum(-1).double().cumsum(-1)  # [B, V / _BLOCK], up to each block's end
    target = uniform[:, None] * mass[:, -1:]
    block = torch.searchsorted(mass, target, right=True)
    before = torch.nn.functional.pad(mass, (1, 0)).gather(1, block)
    rows = torch.arange(len(scores), device=scores.device)
    inside = blocks[rows, block[:, 0]].double().cumsum(-1)
    # The two sums round differently: stay below the end of the block, where a token has weight.
    target = torch.minimum(target - before, inside[:, -1:] * (1 - 2**-53))
    return (block * _BLOCK + torch.searchsorted(inside, target, right=True))[:, 0]


def _filter(scores: torch.Tensor, rules: Rules, rows: torch.Tensor) -> None:
    """Keep the `top_k` most likely tokens and of these the fewest whose mass reaches `top_p`."""
    ordered, order = scores[rows].sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(scores.shape[-1], device=scores.device)
    ordered.masked_fill_(rank >= rules.top_k[rows, None], float("-inf"))
    probability = torch.softmax(ordered, dim=-1)
    mass_before = probability.cumsum(-1) - probability
    is_cut = (mass_before >= rules.top_p[rows, None]) & (rank > 0)
    ordered.masked_fill_(is_cut, float("-inf"))
    scores[rows] = torch.empty_like(ordered).scatter_(1, order, ordered)


def _mix(x: _Integers) -> _Integers:
    """On the 64 bits of int64, which wrap as the unsigned do."""
    x = x + (0x9E3779B97F4A7C15 - (1 << 64))
    x = (x ^ _shifted(x, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ _shifted(x, 27)) * (0x94D049BB133111EB - (1 << 64))
    mixed: _Integers = x ^ _shifted(x, 31)
    return mixed


def _shifted(x: _Integers, count: int) -> _Integers:
    """The 64 bits `count` places to the right, zeros moving in."""
    shifted: _Integers = (x >> count) & ((1 << (64 - count)) - 1)
    return shifted
