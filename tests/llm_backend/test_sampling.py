"""Sampling: filters, random streams, and rows that never mix."""

import numpy as np
import pytest
import torch

from treeshare.llm_backend.api import Sampling
from treeshare.llm_backend.sampling import sample, uniforms

LOGITS = torch.log(torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2]))


def frequencies(sampling, count=4000):
    """Share of each token over `count` draws."""
    uniform = uniforms([7] * count, range(count), [0] * count)
    tokens, _ = sample(LOGITS.expand(count, -1), [sampling] * count, uniform)
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
    tokens, logprobs = sample(LOGITS[None], [Sampling(temperature=0.3, top_k=1)], np.array([0.5]))
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
    uniform = uniforms(range(6), range(6), range(6))
    together, _ = sample(logits, samplings, uniform)
    alone = [
        sample(logits[i : i + 1], samplings[i : i + 1], uniform[i : i + 1])[0][0] for i in range(6)
    ]
    assert together == alone


def test_the_extremes_of_a_draw_are_tokens_of_positive_probability():
    logits = torch.tensor([[-1e9, 0.0, -1e9, 0.0, -1e9]])
    for uniform, expected in [(0.0, 1), (np.nextafter(1, 0), 3)]:
        tokens, _ = sample(logits, [Sampling(temperature=1.0)], np.array([uniform]))
        assert tokens == [expected]


def test_streams_are_reproducible_and_differ_in_every_coordinate():
    base = uniforms([1], [2], [3])
    assert base == uniforms([1], [2], [3])
    others = [
        uniforms([s], [k], [t])[0] for s, k, t in [(2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1)]
    ]
    assert len({base[0], *others}) == 5
    many = uniforms([2**64 - 1] * 10_000, range(10_000), [5] * 10_000)
    assert many.min() >= 0 and many.max() < 1
    assert abs(many.mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"temperature": -0.1}, r"temperature=-0.1 must be at least 0"),
        ({"top_p": 0}, r"top_p=0 must be in \(0, 1\]"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"stop": ("",)}, "empty string"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_settings_name_the_bound(fields, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**fields)
