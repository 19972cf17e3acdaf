"""Sampling: filters, random streams, and rows that never mix."""

import numpy as np
import pytest
import torch

from treeshare.llm_backend.api import Sampling
from treeshare.llm_backend.sampling.sampler import SamplingParamsBatch, sample, streams, uniforms

LOGITS = torch.log(torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2]))


def uniform_of(seeds, samples, steps):
    return uniforms(streams(seeds, samples), torch.tensor(list(steps))).numpy()


def draw(logits, samplings, uniform):
    tokens, logprobs = sample(logits, SamplingParamsBatch.of(samplings), torch.as_tensor(uniform))
    return tokens.tolist(), logprobs.tolist()


def frequencies(sampling, count=4000):
    """Share of each token over `count` draws."""
    uniform = uniform_of([7] * count, range(count), [0] * count)
    tokens, _ = draw(LOGITS.expand(count, -1), [sampling] * count, uniform)
    return np.bincount(tokens, minlength=5) / count


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=1.0), [0.1, 0.4, 0.05, 0.25, 0.2]),
        (Sampling(temperature=0.0), [0, 1, 0, 0, 0]),
        (Sampling(temperature=1.0, top_k=1), [0, 1, 0, 0, 0]),
        (Sampling(temperature=1.0, top_k=2), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (Sampling(temperature=1.0, top_k=99), [0.1, 0.4, 0.05, 0.25, 0.2]),
        (Sampling(temperature=1.0, top_p=0.64), [0, 0.4 / 0.65, 0, 0.25 / 0.65, 0]),
        (Sampling(temperature=1.0, top_p=0.66), [0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85]),
        (Sampling(temperature=1.0, top_p=1e-6), [0, 1, 0, 0, 0]),
        (Sampling(temperature=0.5), [0.01, 0.16, 0.0025, 0.0625, 0.04]),
    ],
    ids=["plain", "greedy", "k1", "k2", "k99", "p64", "p66", "p0", "cold"],
)
def test_draws_follow_the_distribution(sampling, expected):
    expected = np.array(expected) / np.sum(expected)
    actual = frequencies(sampling)
    assert np.all(actual[expected == 0] == 0)
    assert np.abs(actual - expected).max() < 4 * np.sqrt(0.25 / 4000)


def test_logprobs_are_those_of_the_unfiltered_model():
    tokens, logprobs = draw(LOGITS[None], [Sampling(temperature=0.3, top_k=1)], np.array([0.5]))
    assert tokens == [1]
    assert logprobs == pytest.approx([np.log(0.4)])


def test_rows_do_not_mix():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 50, generator=generator)
    samplings = [
        Sampling(temperature=t, top_p=p, top_k=k)
        for t, p, k in [
            (0, 1, None),
            (1, 0.5, None),
            (0.7, 1, 3),
            (1, 1, None),
            (2, 0.9, 7),
            (0, 1, 2),
        ]
    ]
    uniform = uniform_of(range(6), range(6), range(6))
    together, _ = draw(logits, samplings, uniform)
    alone = [
        draw(logits[i : i + 1], samplings[i : i + 1], uniform[i : i + 1])[0][0] for i in range(6)
    ]
    assert together == alone


def test_the_extremes_of_a_draw_are_tokens_of_positive_probability():
    logits = torch.tensor([[-1e9, 0.0, -1e9, 0.0, -1e9]])
    for uniform, expected in [(0.0, 1), (np.nextafter(1, 0), 3)]:
        tokens, _ = draw(logits, [Sampling(temperature=1.0)], np.array([uniform]))
        assert tokens == [expected]


def test_streams_are_reproducible_and_differ_in_every_coordinate():
    base = uniform_of([1], [2], [3])
    assert base == uniform_of([1], [2], [3])
    others = [
        uniform_of([s], [k], [t])[0] for s, k, t in [(2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1)]
    ]
    assert len({base[0], *others}) == 5
    many = uniform_of([2**64 - 1] * 10_000, range(10_000), [5] * 10_000)
    assert many.min() >= 0 and many.max() < 1
    assert abs(many.mean() - 0.5) < 0.02


def test_streams_are_splitmix64():
    def mix(x):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    for seed, sample_index, step in [(0, 0, 0), (2**64 - 1, 5, 3), (2**63, 2**40, 255)]:
        expected = (mix(mix(mix(seed) ^ sample_index) ^ step) >> 11) / 2**53
        assert uniform_of([seed], [sample_index], [step]) == [expected]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"temperature": -0.1}, r"temperature=-0.1 must be 0, or from 1e-06 to 1e\+06"),
        ({"top_p": 0}, r"top_p=0 must be in \(0, 1\]"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"stop": ("",)}, "empty string"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_settings_name_the_bound(fields, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**fields)
