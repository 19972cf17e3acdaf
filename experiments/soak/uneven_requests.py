"""Requests of very uneven sizes, and the numbers of them that are outstanding at once.

Lengths are spread evenly on a logarithmic scale, so that short ones are as frequent as long ones.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from treeshare.experiments.bench.decode.workloads import Filler
from treeshare.llm_backend.api import Generate, Request, Sampling, Score

_BEGINNINGS = 50  # texts that prompts share


@dataclass(slots=True)
class Sizes:
    """The largest sizes that are drawn at random; the smallest are 1.

    Args:
        count: number of requests.
        prompt: tokens of a prompt.
        tokens: tokens of a completion.
        samples: samples of a prompt.
        continuations: continuations scored below a prompt, and tokens of each.
        outstanding: requests at once.

    Raises:
        ValueError: a number below 1.
    """

    count: int
    prompt: int
    tokens: int
    samples: int
    continuations: int
    outstanding: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"requests.{name}={getattr(self, name)} must be at least 1")


def uneven_requests(filler: Filler, sizes: Sizes, seed: int) -> list[Request]:
    """Make requests to generate and, one in five, to score.

    A third of the prompts are new, a third begin with one of some fifty texts, a third go on from
    an earlier prompt. Half of what is generated is greedy; some has stop strings, top-k or top-p.
    """
    rng = random.Random(seed)
    half = max(sizes.prompt // 2, 1)
    beginnings = [filler.text(("beginning", i), _uneven(rng, half)) for i in range(_BEGINNINGS)]
    earlier = [""]  # prompts to go on from
    requests: list[Request] = []
    for number in range(sizes.count):
        shared = rng.choice(rng.choice([[""], beginnings, earlier]))
        own = filler.text(number, _uneven(rng, half if shared else sizes.prompt))
        prompt = (shared, own)
        if rng.random() < 0.1 and len(shared + own) <= len(max(beginnings, key=len)):
            earlier.append(shared + own)
        if rng.random() < 0.2:
            continuations = [
                filler.text((number, k), _uneven(rng, sizes.continuations))
                for k in range(_uneven(rng, sizes.continuations))
            ]
            requests.append(Score(prompt, tuple(continuations)))
        else:
            sampling = _sampling(rng, _uneven(rng, sizes.tokens))
            requests.append(Generate(prompt, _uneven(rng, sizes.samples), sampling, seed=number))
    return requests


def arrivals(sizes: Sizes, seed: int) -> Iterator[int]:
    """Yield how many requests may be outstanding, call by call; the number changes at times."""
    rng = random.Random(seed)
    while True:
        wanted = _uneven(rng, sizes.outstanding)
        yield from [wanted] * _uneven(rng, 40)


def _sampling(rng: random.Random, max_tokens: int) -> Sampling:
    stop = rng.choice([(), (), ("\n",), (".", "\n\n")])
    temperature = rng.choice([0.0, 0.0, 0.7, 1.0])
    top_k, top_p = rng.choice([(None, 1.0), (None, 1.0), (20, 1.0), (None, 0.9)])
    return Sampling(max_tokens, temperature, top_p, top_k, stop)


def _uneven(rng: random.Random, most: int) -> int:
    return min(int(math.exp(rng.uniform(0, math.log(most + 1)))), most)
