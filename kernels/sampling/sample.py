"""Draws one token for each row of logits by inverting its distribution function, on a GPU.

The vocabulary is cut into blocks of 256 tokens. The first kernel reads all logits once and reduces
every block to its maximum and its sums of exponentials. The second has one program a row: it adds
up the blocks' sums in float64, finds the block in which the draw falls, and reads that block alone.
Together they move B * V * (element_size + 1/8) bytes; 4 * B * V more where scores are filtered.

`sample` of `llm_backend/sampling/sampler.py` computes the same in PyTorch. To compile it with
`torch.compile` takes seconds in every new process; Triton loads these kernels from its cache on
disk in milliseconds.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_BLOCK = 256  # tokens, as in the reference
_TILE = 4  # blocks that a program reduces at a time, one a warp
_MANY_PROGRAMS = 8192  # enough to keep the memory of a large GPU busy
_THREADS = 128  # of a program


@triton.jit
def mix(b_x):
    """Finish a hash of 64 bits, uint64, as SplitMix64 does (Steele, Lea and Flood 2014)."""
    b_x += 0x9E3779B97F4A7C15
    b_x = (b_x ^ (b_x >> 30)) * 0xBF58476D1CE4E5B9
    b_x = (b_x ^ (b_x >> 27)) * 0x94D049BB133111EB
    return b_x ^ (b_x >> 31)


@triton.jit
def uniform_of(b_stream, b_count):
    """Compute the uniform numbers in [0, 1), float64, of random streams at their counts, int64."""
    return (mix((b_stream ^ b_count).to(tl.uint64)) >> 11).to(tl.float64) * (2.0**-53)


@triton.jit
def sum_of_exp(b_x):
    """Compute the maximum of each row and its sum of exponentials relative to that maximum."""
    b_max = tl.max(b_x, 1)
    # A block may be filtered out as a whole; its maximum -inf must not be subtracted.
    b_shift = tl.where(b_max == float("-inf"), 0.0, b_max)
    return b_max, tl.sum(tl.exp(b_x - b_shift[:, None]), 1)


@triton.jit(do_not_specialize=["num_tiles"])
def reduce_blocks_kernel(
    p_logits, p_scores, p_temperature, p_blocks, logits_stride, scores_stride,
    num_tokens, num_blocks, num_tiles,
    IS_FILTERED: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Reduce blocks of logits and of scores: program (row, num_tiles tiles of TILE blocks).

    A row of `p_blocks`, [4, num_blocks], receives the maxima and sums of exponentials of the
    logits, then those of the scores. The shape of a tile is fixed, whatever the batch, so that a
    row's sums do not depend on the other rows.
    """
    i_row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(p_temperature + i_row)
    temperature = tl.where(temperature == 0, 1.0, temperature)
    p_logits += i_row * logits_stride
    p_scores += i_row * scores_stride
    p_blocks += i_row * 4 * num_blocks
    for i in range(num_tiles):
        o_block = (tl.program_id(1) * num_tiles + i) * TILE + tl.arange(0, TILE)
        o_token = o_block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
        m_token = o_token < num_tokens
        b_logits = tl.load(p_logits + o_token, mask=m_token, other=float("-inf")).to(tl.float32)
        b_top, b_sum = sum_of_exp(b_logits)
        b_high, b_mass = b_top, b_sum
        if IS_FILTERED:
            b_high, b_mass = sum_of_exp(
                tl.load(p_scores + o_token, mask=m_token, other=float("-inf"))
            )
        elif temperature != 1:
            b_high, b_mass = sum_of_exp(tl.div_rn(b_logits, temperature))
        m_block = o_block < num_blocks
        tl.store(p_blocks + o_block, b_top, mask=m_block)
        tl.store(p_blocks + num_blocks + o_block, b_sum, mask=m_block)
        tl.store(p_blocks + 2 * num_blocks + o_block, b_high, mask=m_block)
        tl.store(p_blocks + 3 * num_blocks + o_block, b_mass, mask=m_block)


@triton.jit
def draw_kernel(
    p_logits, p_scores, p_temperature, p_uniform, p_count, p_forced, p_blocks, p_token, p_logprob,
    logits_stride, scores_stride, num_tokens, num_blocks,
    IS_FILTERED: tl.constexpr, HAS_STREAM: tl.constexpr, HAS_FORCED: tl.constexpr,
    BLOCKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Draw a token and compute its log-probability: program (row).

    `p_uniform` holds uniform numbers, float64; with HAS_STREAM, random streams, int64.
    """
    i_row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(p_temperature + i_row)
    is_greedy = temperature == 0
    temperature = tl.where(is_greedy, 1.0, temperature)
    p_logits += i_row * logits_stride
    p_blocks += i_row * 4 * num_blocks
    uniform = tl.load(p_uniform + i_row)
    if HAS_STREAM:
        uniform = uniform_of(uniform, tl.load(p_count + i_row))
    o_block = tl.arange(0, BLOCKS)
    m_block = o_block < num_blocks
    b_top = tl.load(p_blocks + o_block, mask=m_block, other=float("-inf"))
    b_sum = tl.load(p_blocks + num_blocks + o_block, mask=m_block, other=0.0)
    b_high = tl.load(p_blocks + 2 * num_blocks + o_block, mask=m_block, other=float("-inf"))
    b_mass = tl.load(p_blocks + 3 * num_blocks + o_block, mask=m_block, other=0.0)
    top, high = tl.max(b_top, 0), tl.max(b_high, 0)

    # The block of the token is the first at whose end the distribution function exceeds the
    # uniform number. It must have weight: a parallel sum need not be monotone in its last bit. If
    # the row is greedy, it is the first block that has the maximum.
    b_mass = b_mass.to(tl.float64) * tl.exp(b_high - high).to(tl.float64)
    b_until = tl.cumsum(b_mass, 0)
    target = uniform * tl.sum(tl.where(o_block == num_blocks - 1, b_until, 0.0), 0)
    b_hit = tl.where(is_greedy, b_top == top, (b_mass > 0) & (b_until > target))
    last = tl.max(tl.where(b_mass > 0, o_block, 0), 0)
    block = tl.minimum(tl.min(tl.where(b_hit, o_block, BLOCKS), 0), last)
    before = tl.sum(tl.where(o_block == block - 1, b_until, 0.0), 0)
    block_high = tl.sum(tl.where(o_block == block, b_high, 0.0), 0)

    # The token is found inside the block in the same way.
    o_n = tl.arange(0, BLOCK)
    o_token = block * BLOCK + o_n
    m_token = o_token < num_tokens
    b_logits = tl.load(p_logits + o_token, mask=m_token, other=float("-inf")).to(tl.float32)
    if IS_FILTERED:
        p_row = p_scores + i_row * scores_stride
        b_scores = tl.load(p_row + o_token, mask=m_token, other=float("-inf"))
    else:
        b_scores = tl.div_rn(b_logits, temperature)
    b_weight = tl.exp(b_scores - block_high).to(tl.float64)
    rest = (target - before) / tl.exp(block_high - high).to(tl.float64)
    b_hit = (b_weight > 0) & (tl.cumsum(b_weight, 0) > rest)
    b_hit = tl.where(is_greedy, b_logits == top, b_hit)
    # The two sums over a block round differently, so the draw may lie beyond the end of the block.
    last = tl.max(tl.where(b_weight > 0, o_n, 0), 0)
    first = tl.minimum(tl.min(tl.where(b_hit, o_n, BLOCK), 0), last)
    token = (block * BLOCK + first).to(tl.int64)
    if HAS_FORCED:
        forced = tl.load(p_forced + i_row)
        token = tl.where(forced < 0, token, forced)
    tl.store(p_token + i_row, token)
    total = tl.sum(b_sum * tl.exp(b_top - top), 0)
    chosen = tl.load(p_logits + token).to(tl.float32) - top
    tl.store(p_logprob + i_row, chosen - tl.log(total))


def sample_rows(
    logits: torch.Tensor,
    scores: torch.Tensor | None,
    temperature: torch.Tensor,
    uniform: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
    forced: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token a row, in two launches and without a wait for the device.

    A token is the first, in order of id, at which the distribution function exceeds the uniform
    number; if the row is greedy, the first that has the highest logit. Every bit of a row's result
    is the same whatever the other rows are. Tensors of shape [B] are contiguous.

    Args:
        logits: [B, V], bfloat16, float16 or float32; the elements of a row are adjacent.
        scores: [B, V] float32, `logits / temperature` (by 1 where the temperature is 0), -inf where
            a token is filtered out. A filter must keep the highest logit. None: no row is filtered.
        temperature: [B] float32; 0 is greedy.
        uniform: [B] float64 in [0, 1); or a pair, the random streams and the counts of tokens
            before, both [B] int64, that `uniforms` of `llm_backend/sampling/sampler.py` turns into
            such numbers.
        forced: [B] int64, the token itself, below V, or -1 to draw it; None: all are drawn.

    Returns:
        Token ids [B] int64, and the log-probability of each at temperature 1, before any filter,
        [B] float32, nats. If a row of logits holds NaN or +inf, or -inf only, its log-probability
        is NaN, and its token is any from 0 to V - 1 unless it is forced.

    Raises:
        ValueError: the elements of a row are not adjacent in memory.
    """
    scored = logits if scores is None else scores
    for name, tensor in (("logits", logits), ("scores", scored)):
        if tensor.stride(1) != 1:
            raise ValueError(f"{name}: the stride of tokens is {tensor.stride(1)}, it must be 1")
    num_rows, num_tokens = logits.shape
    num_blocks = triton.cdiv(num_tokens, _BLOCK)
    tiles = triton.cdiv(num_blocks, _TILE)
    tiles_each = max(1, num_rows * tiles // _MANY_PROGRAMS)
    blocks = logits.new_empty(num_rows, 4, num_blocks, dtype=torch.float32)
    tokens = logits.new_empty(num_rows, dtype=torch.int64)
    logprobs = logits.new_empty(num_rows, dtype=torch.float32)
    reduce_blocks_kernel[(num_rows, triton.cdiv(tiles, tiles_each))](
        logits, scored, temperature, blocks, logits.stride(0), scored.stride(0),
        num_tokens, num_blocks, tiles_each,
        IS_FILTERED=scores is not None, TILE=_TILE, BLOCK=_BLOCK, num_warps=_THREADS // 32,
    )  # fmt: skip
    first, count = uniform if isinstance(uniform, tuple) else (uniform, uniform)
    draw_kernel[(num_rows,)](
        logits, scored, temperature, first, count, tokens if forced is None else forced, blocks,
        tokens, logprobs, logits.stride(0), scored.stride(0), num_tokens, num_blocks,
        IS_FILTERED=scores is not None, HAS_STREAM=isinstance(uniform, tuple),
        HAS_FORCED=forced is not None, BLOCKS=max(triton.next_power_of_2(num_blocks), _THREADS),
        BLOCK=_BLOCK, num_warps=_THREADS // 32,
    )  # fmt: skip
    return tokens, logprobs
