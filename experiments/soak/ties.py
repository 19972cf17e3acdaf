"""How far two replies are from being equally good, at the token where they begin to differ.

Two attentions sum in different orders, so their logits differ in the last bits. Where the two best
logits, or a random number and the border between two tokens, lie that close together, either token
is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch

from treeshare.kernels.planning.segments import Segment
from treeshare.llm_backend.api import Generate
from treeshare.llm_backend.model.attention import make_backend
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.sampling.sampler import SamplingParamsBatch, sample, streams, uniforms

_SHIFTS = 10.0 ** np.arange(-9, 0)  # shifts of a random number that are tried


@torch.inference_mode()
def gap(
    model: Model, request: Generate, number: int, one: Sequence[int], other: Sequence[int]
) -> float:
    """Return how far sample `number` of a request is from being either of two lists of token ids.

    Returns:
        0 is a tie. For a greedy request, the difference of the two tokens' logits where the lists
        begin to differ; otherwise the shift of the random number, or of top-p, that leads from one
        token to the other, as a power of ten. Infinite if no shift does, or if one list goes on
        where the other ends.
    """
    pairs = zip(one, other, strict=False)
    count = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if count is None:
        return math.inf
    low, high = sorted((one[count], other[count]))
    prompt = model.tokenizer.encode("".join(request.prefix_segments))
    logits = _logits(model, [*prompt, *one[:count]])
    if request.sampling.temperature == 0:
        return float(logits.max() - logits[0, [low, high]].min())
    params = SamplingParamsBatch.of([request.sampling], model.network.device)
    stream = streams([request.seed], [number])
    uniform = uniforms(stream, torch.tensor([count])).to(model.network.device)
    for shift in _SHIFTS:
        drawn: list[int] = []
        for moved, cut in product((-shift, 0.0, shift), repeat=2):
            top_p = torch.where(params.top_p < 1, (params.top_p + cut).clamp(1e-6, 1), params.top_p)
            near = (uniform + moved).clamp(0, 1 - 2**-53)
            drawn += sample(logits, params._replace(top_p=top_p), near)[0].tolist()
        # A greater random number draws a token of a greater id.
        if min(drawn) <= low and high <= max(drawn):
            return float(shift)
    return math.inf


def _logits(model: Model, tokens: list[int]) -> torch.Tensor:
    """Return the logits [1, V] after these tokens, from a forward in a pool of its own."""
    network, count = model.network, len(tokens)
    attention = make_backend(model.attention, network.device)
    network.check(attention)
    slots, pool = np.arange(count), network.new_pool(count)
    segments = [Segment(slots, 0, 0, count)]
    rows = [count - 1]
    return network.forward(tokens, range(count), slots, segments, attention, pool, rows).float()
