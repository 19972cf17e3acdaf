"""Draws the next token of every live sequence, each from its own counter-based random stream.

The draw of a sequence is fixed by (seed, sample index, step) and its logits; rows never mix, so
what else is in the batch cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .api import Sampling

_BLOCK = 256  # tokens


def uniforms(seeds: Sequence[int], samples: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """Numbers in [0, 1), [B] float64, a function of (seed, sample index, step) row by row.

    The three are folded with the finaliser of SplitMix64 (Steele, Lea and Flood 2014, section 3).
    """
    mixed = np.zeros(len(seeds), dtype=np.uint64)
    for column in (seeds, samples, steps):
        mixed = _mix(mixed ^ np.array(column, dtype=np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def sample(
    logits: torch.Tensor, samplings: Sequence[Sampling], uniform: np.ndarray
) -> tuple[list[int], list[float]]:
    """Draw one token a row.

    Args:
        logits: [B, V] fp32.
        samplings: temperature, top_p and top_k of each row.
        uniform: [B] in [0, 1).

    Returns:
        Token ids [B], and the log-probability of each at temperature 1, before any filter, nats.
    """
    temperature = logits.new_tensor([sampling.temperature for sampling in samplings])
    is_greedy = temperature == 0
    scores = logits / torch.where(is_greedy, 1.0, temperature)[:, None]
    _filter(scores, samplings)
    drawn = _inverse_distribution(scores, torch.from_numpy(uniform).to(logits.device))
    tokens = torch.where(is_greedy, logits.argmax(-1), drawn)
    chosen = logits.gather(1, tokens[:, None])[:, 0]
    logprobs = chosen - torch.logsumexp(logits, dim=-1)
    return tokens.tolist(), logprobs.tolist()


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


def _filter(scores: torch.Tensor, samplings: Sequence[Sampling]) -> None:
    """Keep the `top_k` most likely tokens and of these the fewest whose mass reaches `top_p`."""
    filtered = [i for i, s in enumerate(samplings) if s.top_k is not None or s.top_p < 1]
    if not filtered:
        return
    rows = torch.tensor(filtered, device=scores.device)
    vocabulary = scores.shape[-1]
    top_k = torch.tensor([samplings[i].top_k or vocabulary for i in filtered]).to(rows)
    top_p = scores.new_tensor([samplings[i].top_p for i in filtered])
    ordered, order = scores[rows].sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(vocabulary, device=scores.device)
    ordered[rank >= top_k[:, None]] = float("-inf")
    probability = torch.softmax(ordered, dim=-1)
    mass_before = probability.cumsum(-1) - probability
    ordered[(mass_before >= top_p[:, None]) & (rank > 0)] = float("-inf")
    scores[rows] = torch.empty_like(ordered).scatter_(1, order, ordered)


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
