"""Sampling of the next tokens of a batch, each sequence from its own counter-based random stream.

The draw of a sequence is fixed by (seed, sample index, step) and its logits. Rows never mix, so
the other sequences of a batch cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from treeshare.llm_backend.api import Sampling

_BLOCK = 256  # tokens
_Integers = TypeVar("_Integers", np.ndarray, torch.Tensor)


class SamplingParamsBatch(NamedTuple):
    """The sampling parameters of B rows, on the device that draws.

    Attributes:
        temperature: [B] fp32; 0 is greedy.
        top_p: [B] fp32.
        top_k: [B] int64; the vocabulary's size or more keeps all tokens.
        filtered: [F] int64, rows that `top_p` or `top_k` may cut; None if there are none.
        forced: [B] int64, the token to take, or -1 to draw one; None draws all.
    """

    temperature: torch.Tensor
    top_p: torch.Tensor
    top_k: torch.Tensor
    filtered: torch.Tensor | None
    forced: torch.Tensor | None = None

    @classmethod
    def of(
        cls, samplings: Sequence[Sampling], device: torch.device | str = "cpu"
    ) -> SamplingParamsBatch:
        """Collect the parameters of rows, one `Sampling` a row, on a device."""
        filtered = [i for i, sampling in enumerate(samplings) if is_filtered(sampling)]
        columns = [(s.temperature, s.top_p) for s in samplings]
        temperature, top_p = torch.tensor(columns, device=device).T.contiguous()
        top_k = torch.tensor([top_k_of(sampling) for sampling in samplings], device=device)
        rows = torch.tensor(filtered, device=device) if filtered else None
        return cls(temperature, top_p, top_k, rows)


def is_filtered(sampling: Sampling) -> bool:
    """Whether `top_p` or `top_k` may cut a token."""
    return sampling.top_k is not None or sampling.top_p < 1


def top_k_of(sampling: Sampling) -> int:
    """Return `top_k` as a number: more than any vocabulary has where all tokens are kept."""
    return 1 << 31 if sampling.top_k is None else sampling.top_k


def streams(seeds: Sequence[int], samples: Sequence[int]) -> torch.Tensor:
    """Return the random stream of each (seed, sample index), [B] int64, for `uniforms`."""
    mixed = np.zeros(len(seeds), dtype=np.int64)
    for column in (seeds, samples):
        mixed = _mix(mixed ^ np.array(column, dtype=np.uint64).view(np.int64))
    return torch.from_numpy(mixed)


def uniforms(streams: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Return a number in [0, 1) for each (seed, sample index, step), [B] float64.

    The three are folded with the finaliser of SplitMix64 (Steele, Lea and Flood 2014, section 3).

    Args:
        streams: [B] int64, of (seed, sample index).
        steps: [B] int64, the index of the token in its completion.
    """
    return _shifted(_mix(streams ^ steps), 11).double() / 2.0**53


def draw_tokens(
    logits: torch.Tensor, params: SamplingParamsBatch, streams: torch.Tensor, steps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token a row: on CUDA by Triton kernels, elsewhere by `sample`.

    The two differ only where a uniform number lies at the edge of a token, within 1e-6.

    Args:
        logits: [B, V], any float dtype.
        params: the sampling parameters of each row.
        streams: [B] int64, of (seed, sample index), on the device of `logits`.
        steps: [B] int64, the index of the token in its completion, on the same device.

    Returns:
        What `sample` returns.
    """
    if not logits.is_cuda:
        return sample(logits, params, uniforms(streams, steps))
    # Imported here: Triton decides at import whether it compiles or interprets.
    from treeshare.kernels.sampling.sample import sample_rows

    scores = None if params.filtered is None else _scores(logits.float(), params)
    return sample_rows(logits, scores, params.temperature, (streams, steps), params.forced)


def sample(
    logits: torch.Tensor, params: SamplingParamsBatch, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token a row, without waiting for the device.

    Args:
        logits: [B, V], any float dtype.
        params: the sampling parameters of each row.
        uniform: [B] float64 in [0, 1).

    Returns:
        Token ids [B] int64, and the log-probability of each at temperature 1, before any filter,
        [B] fp32, nats. Where a row's logits hold NaN or plus infinity, the log-probability is NaN
        and the token is any id of the vocabulary.
    """
    logits = logits.float()
    is_greedy = params.temperature == 0
    scores = _scores(logits, params)
    blocks = _in_blocks(logits)
    tops = blocks.amax(-1)
    top = tops.amax(-1, keepdim=True)
    # No filter cuts the likeliest token, so this is the highest score.
    weights = torch.exp(_in_blocks(scores) - (top / _divisor(params))[..., None])
    drawn = torch.where(is_greedy, _likeliest(blocks, tops), _inverse(weights, uniform))
    drawn = drawn.clamp(max=logits.shape[-1] - 1)  # searchsorted passes the end where there is NaN
    if params.forced is not None:
        drawn = torch.where(params.forced < 0, drawn, params.forced)
    total = torch.exp(blocks - top[..., None]).sum(-1).sum(-1)
    chosen = logits.gather(1, drawn[:, None]) - top
    return drawn, chosen[:, 0] - torch.log(total)


def _divisor(params: SamplingParamsBatch) -> torch.Tensor:
    """Return the temperature of each row, 1 where it is greedy, [B, 1]."""
    return torch.where(params.temperature == 0, 1.0, params.temperature)[:, None]


def _scores(logits: torch.Tensor, params: SamplingParamsBatch) -> torch.Tensor:
    """Return logits / temperature, -inf where a filter cuts a token, [B, V] fp32."""
    scores = logits / _divisor(params)
    if params.filtered is not None:
        _filter(scores, params, params.filtered)
    return scores


def _in_blocks(scores: torch.Tensor) -> torch.Tensor:
    """Reshape [B, V] to blocks of tokens, [B, V / _BLOCK, _BLOCK].

    So several programs of a GPU can share a row, and sums over it stay exact.
    """
    missing = -scores.shape[-1] % _BLOCK
    if missing:
        scores = torch.nn.functional.pad(scores, (0, missing), value=float("-inf"))
    return scores.view(len(scores), -1, _BLOCK)


def _likeliest(blocks: torch.Tensor, tops: torch.Tensor) -> torch.Tensor:
    """Return the first token with the highest score, [B]; `tops` are the blocks' highest scores."""
    block = tops.argmax(-1)
    rows = torch.arange(len(blocks), device=blocks.device)
    return block * _BLOCK + blocks[rows, block].argmax(-1)


def _inverse(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Return the first id at which the cumulative distribution exceeds `uniform`, [B].

    The distribution is summed by blocks of tokens first, and then inside one block only.
    """
    mass = weights.sum(-1).double().cumsum(-1)  # [B, V / _BLOCK], up to each block's end
    target = uniform[:, None] * mass[:, -1:]
    block = torch.searchsorted(mass, target, right=True).clamp(max=mass.shape[-1] - 1)
    before = torch.nn.functional.pad(mass, (1, 0)).gather(1, block)
    rows = torch.arange(len(weights), device=weights.device)
    inside = weights[rows, block[:, 0]].double().cumsum(-1)
    # The two sums round differently; below the block's end some token has weight.
    target = torch.minimum(target - before, inside[:, -1:] * (1 - 2**-53))
    return (block * _BLOCK + torch.searchsorted(inside, target, right=True))[:, 0]


def _filter(scores: torch.Tensor, params: SamplingParamsBatch, rows: torch.Tensor) -> None:
    """Keep the `top_k` most likely tokens and of these the fewest whose mass reaches `top_p`."""
    ordered, order = scores[rows].sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(scores.shape[-1], device=scores.device)
    ordered.masked_fill_(rank >= params.top_k[rows, None], float("-inf"))
    probability = torch.softmax(ordered, dim=-1)
    mass_before = probability.cumsum(-1) - probability
    is_cut = (mass_before >= params.top_p[rows, None]) & (rank > 0)
    ordered.masked_fill_(is_cut, float("-inf"))
    scores[rows] = torch.empty_like(ordered).scatter_(1, order, ordered)


def _mix(x: _Integers) -> _Integers:
    """Apply SplitMix64's finaliser to int64, whose 64 bits wrap as those of unsigned numbers do."""
    x = x + (0x9E3779B97F4A7C15 - (1 << 64))
    x = (x ^ _shifted(x, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ _shifted(x, 27)) * (0x94D049BB133111EB - (1 << 64))
    mixed: _Integers = x ^ _shifted(x, 31)
    return mixed


def _shifted(x: _Integers, count: int) -> _Integers:
    """Shift 64 bits by `count` places to the right; zeros move in."""
    shifted: _Integers = (x >> count) & ((1 << (64 - count)) - 1)
    return shifted
