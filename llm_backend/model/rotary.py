"""Rotary embeddings that do not depend on the other texts of a forward.

Two kinds in transformers choose their factors by the longest text of a forward: `longrope`
(arXiv 2402.13753; Phi-3 with 128k, Phi-3.5, Phi-4-mini) takes long factors as soon as one text
passes the original context, and `dynamic` scales its base by the length. In a packed forward the
neighbours of a text would choose its factors, and the KV of a shared prefix would keep those of the
forward that wrote it. Here the factors are chosen once, from the context that the model is loaded
with, as vLLM chooses them from `max_model_len`.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import torch

logger = logging.getLogger(__name__)


def chosen_context(network: Any, context: int | None) -> int:
    """Return the tokens that a text may have: `context`, or what the network states.

    Args:
        network: a Hugging Face network.
        context: tokens, or None.

    Raises:
        ValueError: `context` is above what the network states, or below 1; or neither is given.
    """
    name = type(network).__name__
    stated = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    stated = None if stated == -1 else stated  # XLNet's word for no limit
    if context is None:
        if stated is None:
            raise ValueError(
                f"{name} states no max_position_embeddings: add +model.context=<tokens>"
            )
        return int(stated)
    most = 1 << 31 if stated is None else stated
    is_whole = isinstance(context, int) and not isinstance(context, bool)
    if not is_whole or not 1 <= context <= most:
        raise ValueError(f"model.context={context!r} must be from 1 to {most}")
    return context


def fix_rotary(network: Any, context: int) -> None:
    """Choose the rotary factors for texts of up to `context` tokens, in place and for good.

    Args:
        network: a Hugging Face network.
        context: tokens, not above the configuration's `max_position_embeddings`.
    """
    for module in network.modules():
        kind = getattr(module, "rope_type", None)
        kinds = kind if isinstance(kind, dict) else {None: kind}  # by type of layer
        if "longrope" in kinds.values():
            module.forward = partial(_forward_at_context, module, context)
            short = _original_context(module.config)
            if context > short:
                logger.warning(
                    "long rotary factors for texts of any length, since the context is %d tokens; "
                    "one of at most %d tokens takes the short ones",
                    context,
                    short,
                )
        elif any("dynamic" in str(name) for name in kinds.values()):
            # Within max_position_embeddings the factors are the initial ones: nothing to update.
            fixed = {key: str(name).replace("dynamic", "fixed") for key, name in kinds.items()}
            module.rope_type = fixed if isinstance(kind, dict) else fixed[None]


def _original_context(config: Any) -> int:
    """Return the tokens up to which `longrope` takes its short factors."""
    parameters = config.rope_parameters
    by_layer_type = [value for value in parameters.values() if isinstance(value, dict)]
    lengths: list[int] = [
        value["original_max_position_embeddings"]
        for value in by_layer_type or [parameters]
        if "original_max_position_embeddings" in value
    ]
    return min(lengths)


def _forward_at_context(
    module: Any,
    context: int,
    x: torch.Tensor,
    position_ids: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Call the rotary module's forward with one more token, at the context's last position."""
    longest = torch.nn.functional.pad(position_ids, (0, 1), value=context - 1)
    output = type(module).forward(module, x, longest, *args, **kwargs)
    if isinstance(output, torch.Tensor):  # complex factors
        return output[..., :-1, :]
    return tuple(part[..., :-1, :] for part in output)
