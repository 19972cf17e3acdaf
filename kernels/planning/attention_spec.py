"""The attention that a plan is for: its heads, their dimensions and the data type."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .gpu_profile import TILE_ROWS_LARGE

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """The shape of one layer's attention, within what the kernels can do.

    Args:
        num_heads: HQ, query heads.
        num_kv_heads: HK, KV heads; HQ is a multiple of it.
        head_dim: D, elements of a query and of a key.
        value_dim: DV, elements of a value; None is D.
        dtype: of queries, keys, values and outputs.

    Raises:
        ValueError: heads that do not divide, more than 64 query heads a KV head, a head dimension
            above 256, or a dtype other than float16, bfloat16 and float32.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    value_dim: int | None = None
    dtype: torch.dtype = torch.float16

    def __post_init__(self) -> None:
        if min(self.num_heads, self.num_kv_heads) < 1 or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.group > TILE_ROWS_LARGE:
            raise ValueError(
                f"{self.num_heads} heads share {self.num_kv_heads} KV heads; at most "
                f"{TILE_ROWS_LARGE} may share one"
            )
        if max(self.head_dim, self.dv) > 256:
            raise ValueError(f"a head dimension of {max(self.head_dim, self.dv)} exceeds 256")
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype={self.dtype} is not one of {', '.join(map(str, _DTYPES))}")

    @property
    def dv(self) -> int:
        """DV, elements of a value."""
        return self.head_dim if self.value_dim is None else self.value_dim

    @property
    def group(self) -> int:
        """G = HQ / HK, the query heads that share a KV head."""
        return self.num_heads // self.num_kv_heads

    @property
    def mean_dim(self) -> int:
        """The mean of D and DV, rounded down."""
        return (self.head_dim + self.dv) // 2

    def tile_width(self, rows: int) -> int:
        """Queries of a tile of `rows` rows, G of which belong to one query; at least one query."""
        return max(rows // self.group, 1)
