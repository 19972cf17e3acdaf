"""The product for few rows against PyTorch's, on a GPU; and the shares of a matrix, anywhere."""

import pytest
import torch

from treeshare.kernels.layers import decoder_layer, decoder_layer_reference
from treeshare.kernels.layers.skinny_linear import MAX_ROWS, Shares, shares, skinny_linear
from treeshare.kernels.planning.gpu_profile import H100

# Few columns are one step and more copies than there is matrix; 128,256 rows are several rounds.
SIZES = [(4096, 4096), (6144, 4096), (2112, 128), (2111, 384), (18944, 256), (128256, 128)]


@pytest.mark.parametrize(
    ("columns", "halves", "expected"),
    [
        (4096, 1, Shares(rounds=1, boxes=2, room=32, programs=128)),
        (14336, 2, Shares(rounds=1, boxes=7, room=128, programs=128)),
        (128256, 1, Shares(rounds=8, boxes=8, room=128, programs=1002)),
        (576, 1, None),  # less than a copy for each multiprocessor
        (2560, 1, None),  # 80 programs of 32 rows would leave 52 multiprocessors idle
    ],
)
def test_shares(columns, halves, expected):
    dealt = shares(columns, halves, H100)
    assert dealt == expected


@pytest.mark.parametrize("columns", range(1800, 40000, 977))
def test_shares_are_all_of_the_matrix_and_fit(columns):
    dealt = shares(columns, 1, H100)
    if dealt is not None:
        share = dealt.boxes * 16
        assert (dealt.programs - 1) * share < columns <= dealt.programs * share
        assert share <= dealt.room <= 128 and dealt.programs <= dealt.rounds * 132


def test_none_without_hopper():
    assert (
        torch.cuda.is_available()
        or skinny_linear(torch.ones(1, 128), torch.ones(4096, 128)) is None
    )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize(("columns", "depth"), SIZES)
def test_equals_pytorch(columns, depth, gated, dtype):
    torch.manual_seed(0)
    device = torch.device("cuda")
    weight = torch.randn((1 + gated) * columns, depth, device=device, dtype=dtype) / depth**0.5
    reference = decoder_layer_reference.gated_linear if gated else decoder_layer_reference.linear
    for rows in (1, 8, 17, 50, 64, 65, MAX_ROWS):
        # What an earlier kernel left in shared memory must not get into the result.
        skinny_linear(torch.full((rows, depth), float("nan"), device=device, dtype=dtype), weight)
        x = torch.randn(rows, depth, device=device, dtype=dtype)
        actual = skinny_linear(x, weight, gated=gated)
        exact = reference(x.double(), weight.double(), None)
        library = reference(x, weight, None)
        assert actual.isfinite().all()
        error, allowed = ((out - exact).abs().max().item() for out in (actual, library))
        assert error <= 2 * allowed
        assert torch.equal(actual, skinny_linear(x, weight, gated=gated))


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [0, MAX_ROWS + 1])
def test_other_numbers_of_rows_take_pytorch(rows):
    x = torch.randn(rows, 256, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(4096, 256, device="cuda", dtype=torch.bfloat16)
    assert skinny_linear(x, weight) is None
    expected = torch.nn.functional.linear(x, weight)
    assert torch.equal(decoder_layer.linear(x, weight, None), expected)
