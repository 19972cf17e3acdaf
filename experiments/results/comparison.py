"""Compares the jobs of a multirun in a table."""

from __future__ import annotations

from collections.abc import Sequence

from .markdown import markdown_table
from .summary import Totals


def comparison(jobs: Sequence[tuple[Sequence[str], Totals | None]]) -> str:
    """Compare several jobs in a Markdown table.

    A job's name consists of those of its overrides that not all jobs have. The mean batch is in
    sequences per forward, KV in tokens.

    Args:
        jobs: the overrides of each job, and the totals of its run; None if it has none.
    """
    shared = set.intersection(*(set(overrides) for overrides, _ in jobs))
    head = ["run", "top-1", "any-of-b", "requests", "rounds", "mean batch"]
    head += ["KV unique", "KV logical"]
    rows = []
    for overrides, t in jobs:
        name = " ".join(override for override in overrides if override not in shared)
        cells = ["failed", *[""] * (len(head) - 2)]
        if t is not None:
            cells = [f"{t.top1:.1%}", f"{t.any_of_b:.1%}", f"{t.requests:,}", f"{t.rounds:,}"]
            cells += [f"{t.sequences_per_forward:.1f}"]
            cells += [f"{t.unique_kv_tokens:,}", f"{t.logical_kv_tokens:,}"]
        rows.append((name.replace("|", "\\|"), *cells))
    return markdown_table(head, rows)
