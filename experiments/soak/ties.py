"""How far two replies that differ are from being equally good, where they part.

Two attentions sum in another order, so their logits differ in the last bits. Where the two best
logits, or a random number and the edge of a token's probability, lie that close together, either
token is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch

from treeshare.kernels.planning.segments import Segment
from treeshare.llm_backend.api import Generate
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.sampling.sampler import Rules, sample, streams, uniforms

_SHIFTS = 10.0 ** np.arange(-9, 0)  # of a random number


@torch.inference_mode()
def gap(
    model: Model, request: Generate, number: int, one: Sequence[int], other: Sequence[int]
) -> float:
    """How far sample `number` of a request is from being either of two lists of token ids; 0 is a
    tie.

    Returns:
        Where the lists part, the difference of the two tokens' logits if the request is greedy;
        else the shift of the random number, or of top-p, that leads from one token to the other, as
        a power of ten. Infinite if no shift does, or if one list goes on where the other ends.
    """
    pairs = zip(one, other, strict=False)
    count = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if count is None:
        return math.inf
    low, high = sorted((one[count], other[count]))
    prompt = model.encode("".join(request.prefix_segments))
    logits = _logits(model, [*prompt, *one[:count]])
    if request.sampling.temperature == 0:
        return float(logits.max() - logits[0, [low, high]].min())
    rules = Rules.of([request.sampling], model.device)
    stream = streams([request.seed], [number])
    uniform = uniforms(stream, torch.tensor([count])).to(model.device)
    for shift in _SHIFTS:
        drawn: list[int] = []
        for moved, cut in product((-shift, 0.0, shift), repeat=2):
            top_p = torch.where(rules.top_p < 1, (rules.top_p + cut).clamp(1e-6, 1), rules.top_p)
            near = (uniform + moved).clamp(0, 1 - 2**-53)
            drawn += sample(logits, rules._replace(top_p=top_p), near)[0].tolist()
        # A greater random number draws a token of a greater id.
        if min(drawn) <= low and high <= max(drawn):
            return float(shift)
    return math.inf


def _logits(model: Model, tokens: list[int]) -> torch.Tensor:
    """[1, V] after these tokens, in a pool of their own."""
    count = len(tokens)
    slots = np.arange(count)
    segments = [Segment(slots, 0, 0, count)]
    pool = model.new_pool(count)
    return model.forward(tokens, range(count), slots, segments, pool, [count - 1])
