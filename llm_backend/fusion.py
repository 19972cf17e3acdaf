"""Fewer kernels a layer: the norms, the rotary embedding and the gated activation of a Hugging Face
model, each of them a chain of small kernels, through torch.compile.

Only what has no layer number in it is compiled, so that one compilation serves all layers. Knows
the names that Hugging Face gives these parts; what has other names stays as it is.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

_PARTS = ("RMSNorm", "MLP")  # ends of class names
_ROTARY = "apply_rotary_pos_emb"  # of a model's own module


def fuse(network: Any) -> int:
    """Compile a network's small parts in place, at their first use; returns how many there are.

    The rotary embedding is a function of the module that defines the network, and compiled for
    every network of that architecture.
    """
    modeling = sys.modules[type(network).__module__]
    rotary = getattr(modeling, _ROTARY, None)
    if rotary is not None and not hasattr(rotary, "_torchdynamo_orig_callable"):
        setattr(modeling, _ROTARY, torch.compile(rotary, dynamic=True))
    parts = [part for part in network.modules() if type(part).__name__.endswith(_PARTS)]
    for part in parts:
        part.compile(dynamic=True)
    return len(parts)
