"""Updates token, position and slot of each row between two decode steps, on the GPU."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_ROWS = 128  # of a program


@triton.jit
def advance_kernel(
    p_rows, p_count, p_drawn, p_ends, num_rows, num_ends, ENDS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Take the drawn tokens as the next ones, in place: program (ROWS rows)."""
    o_row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    m_row = o_row < num_rows
    b_drawn = tl.load(p_drawn + o_row, mask=m_row)
    p_position, p_slot = p_rows + num_rows + o_row, p_rows + 2 * num_rows + o_row
    b_slot = tl.load(p_slot, mask=m_row)
    b_limit = tl.load(p_rows + 3 * num_rows + o_row, mask=m_row)
    b_ignores = tl.load(p_rows + 4 * num_rows + o_row, mask=m_row)
    b_count = tl.load(p_count + o_row, mask=m_row) + 1
    o_end = tl.arange(0, ENDS)
    b_end = tl.load(p_ends + o_end, mask=o_end < num_ends, other=-1)  # no token is -1
    b_ended = tl.max((b_drawn[:, None] == b_end[None, :]).to(tl.int32), 1) > 0
    b_done = (b_slot < 0) | (b_count >= b_limit) | (b_ended & (b_ignores == 0))
    b_slot = tl.where(b_done, -1, b_slot + 1)
    tl.store(p_rows + o_row, b_drawn, mask=m_row)
    tl.store(p_position, tl.load(p_position, mask=m_row) + 1, mask=m_row)
    tl.store(p_slot, b_slot, mask=m_row)
    tl.store(p_count + o_row, b_count, mask=m_row)


def advance(
    rows: torch.Tensor, counts: torch.Tensor, drawn: torch.Tensor, ends: torch.Tensor
) -> None:
    """Make the drawn tokens the next ones that are computed, in place and in one launch.

    A row is done, and keeps slot -1 from then on, when it has its limit of tokens, or after a token
    that ends the text unless it goes on after such tokens. All tensors are contiguous.

    Args:
        rows: [5, R] int64; changed. Of each row's token: its id, its position, the slot of its keys
            and values, or -1 if the row is done; then the row's limit of tokens, and whether it
            goes on after an end token (1) or not (0).
        counts: [R] int64, the tokens that each row has; increased by one.
        drawn: [R] int64, token ids.
        ends: [E] int64, ids of the tokens that end the text; may be empty.
    """
    num_rows = len(drawn)
    advance_kernel[(triton.cdiv(num_rows, _ROWS),)](
        rows, counts, drawn, ends, num_rows, len(ends),
        ENDS=triton.next_power_of_2(max(len(ends), 1)), ROWS=_ROWS, num_warps=4,
    )  # fmt: skip
