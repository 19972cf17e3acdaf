"""The kernels that draw tokens against the reference in PyTorch, in odd sizes."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from attention_check import DEVICE, poisoned
from hypothesis import given, settings
from hypothesis import strategies as st

from treeshare.kernels.sampling import sample as launcher
from treeshare.kernels.sampling.sample import sample_rows, uniform_of
from treeshare.llm_backend.sampling.sampler import (
    SamplingParamsBatch,
    sample,
    streams,
    uniforms,
)

DTYPES = [torch.float32, torch.float16]
if DEVICE == "cuda":
    DTYPES.append(torch.bfloat16)
TEMPERATURES = [0, 1e-3, 0.7, 1, 5]
ALL = 1 << 31  # tokens that are kept where no filter cuts
EDGE = 1e-6  # of the distribution function: nearer to a token's edge, rounding decides
NEARLY_ONE = float(np.nextafter(1, 0))


def make_logits(kind, num_rows, num_tokens, seed):
    """Logits, [num_rows, num_tokens] fp32 on the CPU: normal, peaked, flat, or with holes."""
    logits = torch.randn(num_rows, num_tokens, generator=torch.Generator().manual_seed(seed))
    if kind == "peaked":
        return logits * 20
    if kind == "flat":
        return logits * 1e-3
    if kind == "holes":  # the first token always stays
        logits[:, 1:][logits[:, 1:] < 1] = float("-inf")
        logits[:, 300:600] = float("-inf")
    return logits


def params_of(temperature, top_k=ALL, forced=None):
    """Parameters for the reference; fewer than all of `top_k` filter every row."""
    count = len(temperature)
    rows = torch.arange(count, device=temperature.device) if top_k < ALL else None
    kept = torch.full((count,), top_k, device=temperature.device)
    return SamplingParamsBatch(temperature, torch.ones_like(temperature), kept, rows, forced)


def draw(logits, temperature, uniform, scores=None, forced=None):
    with poisoned():
        return sample_rows(logits, scores, temperature, uniform, forced)


def check(logits, temperature, uniform, top_k=ALL, forced=None):
    """Compare with the reference, and with the distribution function and log-softmax in float64.

    Tokens may differ only where the uniform number lies within EDGE of an edge of the token.
    """
    params = params_of(temperature, top_k, forced)
    expected, _ = sample(logits, params, uniform)
    scores = logits.float() / torch.where(temperature == 0, 1.0, temperature)[:, None]
    if top_k < ALL:
        order = scores.sort(dim=-1, descending=True, stable=True).indices
        scores = scores.scatter(1, order[:, top_k:], float("-inf"))
    tokens, logprobs = draw(
        logits, temperature, uniform, scores if top_k < ALL else None, forced=forced
    )
    assert tokens.dtype == torch.int64 and logprobs.dtype == torch.float32
    until = torch.softmax(scores.double(), dim=-1).cumsum(-1)
    edges = torch.nn.functional.pad(until, (1, 0))
    distance = (edges.gather(1, torch.stack([tokens, tokens + 1], dim=1)) - uniform[:, None]).abs()
    is_at_edge = (temperature > 0) & (distance.amin(1) < EDGE)
    if forced is not None:
        is_at_edge &= forced < 0
    assert torch.equal(tokens[~is_at_edge], expected[~is_at_edge])
    assert (scores.gather(1, tokens[:, None])[is_at_edge] > float("-inf")).all()
    exact = torch.log_softmax(logits.double(), dim=-1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double(), exact, atol=1e-5, rtol=1e-6)
    return is_at_edge


def tensors(*columns, dtype=torch.float32):
    return (torch.tensor(column, dtype=dtype, device=DEVICE) for column in columns)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(dtype):
    kinds = ["normal", "peaked", "flat", "holes"]
    logits = torch.cat([make_logits(kind, len(TEMPERATURES), 1000, 1) for kind in kinds])
    (temperature,) = tensors(TEMPERATURES * len(kinds))
    uniform = torch.linspace(0, 1, len(temperature) + 1, dtype=torch.float64)[:-1].to(DEVICE)
    is_at_edge = check(logits.to(DEVICE, dtype), temperature, uniform)
    assert is_at_edge.sum() <= 5  # the uniform number of the first rows is 0


@settings(max_examples=25 if DEVICE == "cpu" else 200, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(TEMPERATURES), st.floats(0, NEARLY_ONE)), min_size=1, max_size=3
    ),
    kind=st.sampled_from(["normal", "peaked", "flat", "holes"]),
    num_tokens=st.integers(1, 2100),
    seed=st.integers(0, 99),
    top_k=st.sampled_from([ALL, ALL, 1, 7]),
    dtype=st.sampled_from(DTYPES),
    has_forced=st.booleans(),
)
def test_equals_the_reference_anywhere(rows, kind, num_tokens, seed, top_k, dtype, has_forced):
    logits = make_logits(kind, len(rows), num_tokens, seed).to(DEVICE, dtype)
    temperature, uniform = tensors(*zip(*rows, strict=True), dtype=torch.float64)
    forced = torch.arange(len(rows), device=DEVICE) - 1 if has_forced else None
    if forced is not None:
        forced = forced.clamp(max=num_tokens - 1)
        forced[logits.gather(1, forced.clamp(min=0)[:, None])[:, 0] == float("-inf")] = -1
    check(logits, temperature.float(), uniform, top_k, forced)


@pytest.mark.parametrize("second", [5, 700], ids=["one block", "two blocks"])
def test_scores_are_rounded_as_the_reference_rounds(second):
    """At a low temperature the rounding of logits / temperature decides the weights."""
    logits = torch.full((4, 1000), float("-inf"))
    logits[:, 3] = 20
    logits[:, second] = 20 + torch.tensor([1e-4, 1e-4, 3e-4, 3e-4])
    temperature = torch.full((4,), 1e-3)
    edge = torch.softmax((logits / 1e-3).double(), dim=-1)[:, 3]
    uniform = edge + torch.tensor([-1e-5, 1e-5, -1e-5, 1e-5], dtype=torch.float64)
    check(logits.to(DEVICE), temperature.to(DEVICE), uniform.to(DEVICE))
    tokens, _ = draw(logits.to(DEVICE), temperature.to(DEVICE), uniform.to(DEVICE))
    assert tokens.tolist() == [3, second] * 2


@pytest.mark.parametrize(
    "num_tokens",
    [33_000, *(pytest.param(n, marks=pytest.mark.gpu) for n in (49_152, 128_256, 262_144))],
)
def test_large_vocabularies(monkeypatch, num_tokens):
    if DEVICE == "cpu":  # one program reads all: the interpreter is slow to begin one
        monkeypatch.setattr(launcher, "_MANY_PROGRAMS", 1)
    temperature, uniform = tensors([0.7], [0.37], dtype=torch.float64)
    logits = make_logits("normal", 1, num_tokens, 2).to(DEVICE)
    check(logits, temperature.float(), uniform)


def test_ties_take_the_first_token():
    logits = torch.zeros(3, 1000, device=DEVICE)
    logits[0, [259, 260, 900]] = 3.0  # in one block and in two
    logits[1, [999, 17]] = 0.25
    tokens, logprobs = draw(logits, *tensors([0, 0, 0]), torch.rand(3).double().to(DEVICE))
    assert tokens.tolist() == [259, 17, 0]
    assert logprobs[2].item() == pytest.approx(-np.log(1000), abs=1e-5)


def test_extremes_of_the_uniform_number_draw_tokens_with_weight():
    logits = torch.full((4, 1300), -1e9)
    logits[2:] = float("-inf")  # whole blocks without weight at both ends, and between
    logits[:, [300, 900]] = 0.0
    (uniform,) = tensors([0.0, NEARLY_ONE] * 2, dtype=torch.float64)
    tokens, logprobs = draw(logits.to(DEVICE), *tensors([1, 0.7, 1, 0.7]), uniform)
    assert tokens.tolist() == [300, 900, 300, 900]
    assert logprobs.tolist() == pytest.approx([-np.log(2)] * 4)


def test_rows_that_are_not_finite_have_nan_for_their_log_probability():
    bad = [float("nan"), float("inf"), float("-inf"), float("nan")]
    logits = make_logits("normal", 7, 700, 3)
    logits[0, 300], logits[1, 600], logits[2, :], logits[3, :] = bad
    logits[4, 5], logits[5, 5] = float("nan"), float("inf")
    temperature, uniform = tensors([1, 0.7, 0.7, 0, 0, 0, 0.7], [0.9] * 7, dtype=torch.float64)
    tokens, logprobs = draw(logits.to(DEVICE), temperature.float(), uniform)
    assert logprobs[:6].isnan().all() and ((tokens >= 0) & (tokens < 700)).all()
    check(logits[6:].to(DEVICE), temperature[6:].float(), uniform[6:])
    alone = draw(logits[6:].to(DEVICE), temperature[6:].float(), uniform[6:])
    assert torch.equal(tokens[6:], alone[0]) and torch.equal(logprobs[6:], alone[1])


def test_forced_rows():
    logits = make_logits("normal", 3, 600, 4).to(DEVICE)
    (forced,) = tensors([599, -1, 0], dtype=torch.int64)
    temperature, uniform = tensors([0.7, 0.7, 0], [0.1, 0.2, 0.3], dtype=torch.float64)
    tokens, _ = draw(logits, temperature.float(), uniform, forced=forced)
    free, _ = draw(logits, temperature.float(), uniform)
    assert tokens.tolist() == [599, free[1].item(), 0]
    check(logits, temperature.float(), uniform, forced=forced)


def test_a_row_does_not_depend_on_its_neighbours(monkeypatch):
    """Not in one bit, although programs take fewer tiles each where there are fewer rows."""
    monkeypatch.setattr(launcher, "_MANY_PROGRAMS", 8)  # three of two tiles a row, and five of one
    logits = make_logits("normal", 4, 5000, 5).to(DEVICE)
    temperature, uniform = tensors([0.7, 0, 5, 1], [0.15, 0.35, 0.55, 0.75], dtype=torch.float64)
    together = draw(logits, temperature.float(), uniform)
    for i in range(4):
        row = slice(i, i + 1)
        for alone in (logits[row], logits[row].clone()):
            results = draw(alone, temperature[row].float(), uniform[row])
            assert all(torch.equal(x[row], y) for x, y in zip(together, results, strict=True))


def test_rows_may_be_part_of_a_wider_tensor():
    wide = make_logits("normal", 2, 900, 6).to(DEVICE)
    temperature, uniform = tensors([0.7, 1], [0.4, 0.6], dtype=torch.float64)
    check(wide[:, 100:700], temperature.float(), uniform)


def test_elements_of_a_row_must_be_adjacent():
    logits = torch.zeros(2, 6, device=DEVICE)
    with pytest.raises(ValueError, match=r"^logits: the stride of tokens is 3, it must be 1$"):
        draw(logits.view(2, 2, 3)[:, :, 0], *tensors([1, 1], [0, 0]))


@triton.jit
def uniform_kernel(p_stream, p_count, p_out, BLOCK: tl.constexpr):
    o_n = tl.arange(0, BLOCK)
    tl.store(p_out + o_n, uniform_of(tl.load(p_stream + o_n), tl.load(p_count + o_n)))


def test_uniform_numbers_are_those_of_the_reference():
    seeds = [0, 1, 2**63, 2**64 - 1] * 128
    stream = streams(seeds, range(512)).to(DEVICE)
    count = torch.arange(512, device=DEVICE) * 7
    out = torch.full((512,), -1.0, dtype=torch.float64, device=DEVICE)
    uniform_kernel[(1,)](stream, count, out, BLOCK=512)
    assert torch.equal(out, uniforms(stream, count))


def test_draws_follow_the_distribution():
    """By Pearson's chi-square test, for tokens in three blocks and streams that count up."""
    num_rows = 100_000 if DEVICE == "cuda" else 40
    probability = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    logits = torch.full((600,), float("-inf"), dtype=torch.float64)
    logits[[3, 250, 260, 599]] = torch.log(probability)
    rows = logits.float().to(DEVICE).expand(num_rows, -1)
    stream = streams([7] * num_rows, range(num_rows)).to(DEVICE)
    count = torch.arange(num_rows, device=DEVICE) % 5
    tokens, _ = draw(rows, torch.ones(num_rows, device=DEVICE), (stream, count))
    found = np.bincount(tokens.cpu(), minlength=600)
    assert found.sum() == found[[3, 250, 260, 599]].sum() == num_rows
    expected = num_rows * probability.numpy()
    chi_square = ((found[[3, 250, 260, 599]] - expected) ** 2 / expected).sum()
    assert chi_square < 16.3  # 3 degrees of freedom: exceeded once in a thousand seeds
    again, _ = draw(rows, torch.ones(num_rows, device=DEVICE), uniforms(stream, count))
    assert torch.equal(tokens, again)


@pytest.mark.gpu
@pytest.mark.parametrize("num_rows", [1, 7, 1024])
def test_one_graph_serves_other_logits(num_rows):
    logits = torch.zeros(num_rows, 49_152, dtype=torch.bfloat16, device=DEVICE)
    temperature = torch.full((num_rows,), 0.7, device=DEVICE)
    stream = streams([1] * num_rows, range(num_rows)).to(DEVICE)
    count = torch.zeros(num_rows, dtype=torch.int64, device=DEVICE)
    sample_rows(logits, None, temperature, (stream, count))  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = sample_rows(logits, None, temperature, (stream, count))
    for _ in range(3):
        logits.normal_()
        count += 1
        graph.replay()
        expected = sample_rows(logits, None, temperature, (stream, count))
        assert all(torch.equal(x, y) for x, y in zip(results, expected, strict=True))
        check(logits, temperature, uniforms(stream, count))
