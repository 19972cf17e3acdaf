"""The attention that a plan is for: its heads, their dimensions and the data type.

What the kernels can do is refused or accepted here, once. Knows no trees.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .variants import WIDE

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class Heads:
    """The attention a plan is for.

    Raises:
        ValueError: heads that do not divide, more than 64 query heads a KV head, a head dimension
            above 256, or a dtype other than float16, bfloat16 and float32.
    """

    num_heads: int  # HQ
    num_kv_heads: int  # HK
    head_dim: int  # D
    value_dim: int | None = None  # DV; None is D
    dtype: torch.dtype = torch.float16

    def __post_init__(self) -> None:
        if min(self.num_heads, self.num_kv_heads) < 1 or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.num_heads // self.num_kv_heads > WIDE:
            raise ValueError(
                f"{self.num_heads} heads share {self.num_kv_heads} KV heads; at most {WIDE} may "
                "share one"
            )
        if max(self.head_dim, self.dv) > 256:
            raise ValueError(f"a head dimension of {max(self.head_dim, self.dv)} exceeds 256")
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype={self.dtype} is not one of {', '.join(map(str, _DTYPES))}")

    @property
    def dv(self) -> int:
        return self.head_dim if self.value_dim is None else self.value_dim
