"""The step from one token to the next against a loop over rows."""

import pytest
import torch
from attention_check import DEVICE

from treeshare.kernels.sampling.advance import advance


def tensor(values):
    return torch.tensor(values, dtype=torch.int64, device=DEVICE)


@pytest.mark.parametrize("ends", [[], [3], [0, 3, 4]], ids=str)
def test_advance(ends):
    num_rows, generator = 131, torch.Generator().manual_seed(len(ends))
    rows = torch.randint(0, 9, (5, num_rows), generator=generator)
    rows[2] -= 1  # some rows are done
    rows[3] += 1
    rows[4] %= 2
    counts = torch.randint(0, 9, (num_rows,), generator=generator)
    drawn = torch.randint(0, 9, (num_rows,), generator=generator)
    expected = []
    for i, (_, position, slot, limit, ignores) in enumerate(rows.T.tolist()):
        count, token = counts[i].item() + 1, drawn[i].item()
        is_done = slot == -1 or count >= limit or (token in ends and not ignores)
        expected.append([token, position + 1, -1 if is_done else slot + 1, limit, ignores, count])
    rows, counts = rows.to(DEVICE), counts.to(DEVICE)
    advance(rows, counts, drawn.to(DEVICE), tensor(ends))
    assert torch.cat([rows, counts[None]]).T.tolist() == expected


def test_a_row_that_is_done_stays_done():
    rows, counts = tensor([[5], [7], [2], [9], [0]]), tensor([0])
    slots = []
    for token in (6, 4, 6):
        advance(rows, counts, tensor([token]), tensor([4]))
        slots.append(rows[2].item())
    assert slots == [3, -1, -1]
    assert rows[:2].flatten().tolist() == [6, 10] and counts.item() == 3
