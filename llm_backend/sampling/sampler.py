"""Draws the next token of every live sequence, each from its own counter-based random stream.

The draw of a sequence is fixed by (seed, sample index, step) and its logits; rows never mix, so
what else is in the batch cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from treeshare.llm_backend.api import Sampling

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
        logits: [B, V], any float.
        rules: temperature, top_p and top_k of each row.
        uniform: [B] float64 in [0, 1).

    Returns:
        Token ids [B] int64, and the log-probability of each at temperature 1, before any filter,
        [B] fp32, nats. Where logits are NaN, or plus infinity, so is NaN the log-probability, and
        the token is any.
    """
    logits = logits.float()
    is_greedy = rules.temperature == 0
    temperature = torch.where(is_greedy, 1.0, rules.temperature)[:, None]
    scores = logits / temperature
    if rules.filtered is not None:
        _filter(scores, rules, rules.filtered)
    blocks = _in_blocks(logits)
    tops = blocks.amax(-1)
    top = tops.amax(-1, keepdim=True)
    # No filter cuts the likeliest token, so this is the highest score.
    weights = torch.exp(_in_blocks(scores) - (top / temperature)[..., None])
    drawn = torch.where(is_greedy, _likeliest(blocks, tops), _inverse(weights, uniform))
    drawn = drawn.clamp(max=logits.shape[-1] - 1)  # NaN has no place in an order
    if rules.forced is not None:
        drawn = torch.where(rules.forced < 0, drawn, rules.forced)
    total = torch.exp(blocks - top[..., None]).sum(-1).sum(-1)
    chosen = logits.gather(1, drawn[:, None]) - top
    return drawn, chosen[:, 0] - torch.log(total)


def _in_blocks(scores: torch.Tensor) -> torch.Tensor:
    """[B, V] in blocks of tokens, [B, V / _BLOCK, _BLOCK]: so that a GPU's programs can share a row
    of the batch, and that sums over it stay exact."""
    missing = -scores.shape[-1] % _BLOCK
    if missing:
        scores = torch.nn.functional.pad(scores, (0, missing), value=float("-inf"))
    return scores.view(len(scores), -1, _BLOCK)


def _likeliest(blocks: torch.Tensor, tops: torch.Tensor) -> torch.Tensor:
    """The first token that has the highest of all scores, [B]; `tops` are the blocks' highest."""
    block = tops.argmax(-1)
    rows = torch.arange(len(blocks), device=blocks.device)
    return block * _BLOCK + blocks[rows, block].argmax(-1)


def _inverse(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first token, in order of id, at which the distribution function exceeds `uniform`, [B].

    The function is summed up by blocks of tokens first and then inside one block only.
    """
    mass = weights.sum(-1).double().cumsum(-1)  # [B, V / _BLOCK], up to each block's end
    target = uniform[:, None] * mass[:, -1:]
    block = torch.searchsorted(mass, target, right=True).clamp(max=mass.shape[-1] - 1)
    before = torch.nn.functional.pad(mass, (1, 0)).gather(1, block)
    rows = torch.arange(len(weights), device=weights.device)
    inside = weights[rows, block[:, 0]].double().cumsum(-1)
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
