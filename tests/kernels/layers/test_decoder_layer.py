"""The kernels between a layer's matrix products against PyTorch, in unusual sizes."""

import pytest
import torch
from attention_check import DEVICE, poisoned

from treeshare.kernels.layers import decoder_layer, decoder_layer_reference

DTYPES = [torch.float32, torch.float16]
if DEVICE == "cuda":
    DTYPES.append(torch.bfloat16)


def randn(*shape, dtype):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def assert_close(actual, expected):
    """Allow a difference of two roundings of the dtype; the reference rounds more often."""
    bound = 4 * torch.finfo(expected.dtype).eps
    torch.testing.assert_close(actual, expected, rtol=bound, atol=bound)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "width"), [(1, 16), (5, 72), (3, 576)])
def test_add_norm(rows, width, dtype):
    x, residual = randn(rows, width, dtype=dtype), randn(width, rows, dtype=dtype).T.contiguous()
    weight, expected_residual = randn(width, dtype=dtype), residual.clone()
    expected = decoder_layer_reference.add_norm(x, expected_residual, weight, 1e-5)
    with poisoned():
        actual = decoder_layer.add_norm(x, residual, weight, 1e-5)
    assert_close(actual, expected)
    assert torch.equal(residual, expected_residual)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "width"), [(1, 16), (5, 72), (3, 1536)])
def test_gated(rows, width, dtype):
    gate_up = randn(rows, 2 * width, dtype=dtype)
    with poisoned():
        actual = decoder_layer.gated(gate_up)
    assert_close(actual, decoder_layer_reference.gated(gate_up))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("is_normed", [False, True], ids=["plain", "normed"])
@pytest.mark.parametrize("heads", [(4, 2, 16), (9, 3, 64), (2, 2, 40)], ids=str)
def test_rotate_and_write(heads, is_normed, dtype):
    num_heads, num_kv_heads, width = heads
    rows, num_slots = 5, 9
    qkv = randn(rows, (num_heads + 2 * num_kv_heads) * width, dtype=dtype)
    angles = randn(20, width // 2, dtype=torch.float32).repeat(1, 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    positions = torch.tensor(
        [3, 19, 0, 25, 3], device=DEVICE
    )  # a finished row may have any position
    norm = randn(num_heads + num_kv_heads, width, dtype=dtype) if is_normed else None
    slots = torch.tensor([7, -1, 0, 3, -1], device=DEVICE)
    pools = torch.full((2, 2, num_slots, num_kv_heads, width), 5.0, dtype=dtype, device=DEVICE)
    expected_q = decoder_layer_reference.rotate_and_write(
        qkv, cos, sin, positions, norm, 1e-5, *pools[0], slots
    )
    with poisoned():
        q = decoder_layer.rotate_and_write(qkv, cos, sin, positions, norm, 1e-5, *pools[1], slots)
    assert_close(q, expected_q)
    assert_close(pools[1], pools[0])
