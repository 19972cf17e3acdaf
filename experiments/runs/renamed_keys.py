"""Refuse configuration keys that were renamed, with a line that says the new name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SEARCH = {
    "c_scale": "value_scale",
    "c_visit": "maxvisit_init",
    "considered": "max_num_considered_actions",
    "lam": "value_weight",
    "noise": "gumbel_scale",
    "parallel": "batch_size",
    "samples": "num_samples",
    "simulations": "num_simulations",
}
_LIMITS = {"max_batch": "max_num_seqs", "max_step_tokens": "max_num_batched_tokens"}

RENAMED = {
    "classifier": "reward_model",
    "budget.calls": "budget.requests",
    "evaluator.samples": "evaluator.num_samples",
    "reward_model.max_batch": "reward_model.max_num_seqs",
    **_LIMITS,  # of the benchmarks and the soak
    **{
        f"{evaluator}.samples": f"{evaluator}.num_samples"
        for evaluator in ("evaluator", "evaluator.evaluator", "evaluator.evaluators.value")
    },
    **{f"engine.{old}": f"engine.{new}" for old, new in _LIMITS.items()},
    **{f"engine.speculative.{old}": f"engine.speculative.{new}" for old, new in _LIMITS.items()},
    **{f"search.{old}": f"search.{new}" for old, new in _SEARCH.items()},
}
"""Old key to new key, both from the root of the configuration. A group stands for all its keys."""

_OURS = "treeshare."  # the classes whose parameters were renamed; a user's own keep their names


def refusal(key: str) -> str | None:
    """The line that refuses an old key.

    Args:
        key: a key from the root of a configuration, such as `search.simulations`.

    Returns:
        Such as `search.simulations was renamed: write search.num_simulations`; None for a key that
        was not renamed.
    """
    for old, new in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            return f"{key} was renamed: write {new}{key.removeprefix(old)}"
    return None


def refuse_renamed(config: Mapping[str, Any]) -> None:
    """Refuse a composed configuration that holds an old key.

    Such a key comes from a YAML file or from `+key=value`. Keys of a class that is not ours are
    left alone: a user's own policy may have a parameter `samples`.

    Args:
        config: nested mappings.

    Raises:
        ValueError: an old key is there; the message names its new name.
    """
    for old in RENAMED:
        *parents, leaf = old.split(".")
        node: Any = config
        for name in parents:
            node = node.get(name) if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping) or leaf not in node:
            continue
        if str(node.get("_target_", _OURS)).startswith(_OURS):
            raise ValueError(refusal(old))
