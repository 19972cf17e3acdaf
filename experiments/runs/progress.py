"""Shows how far a run is, with a bar on a terminal or in a notebook."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm

from treeshare.experiments.results.summary import Totals

from .config import Setup


def progress_bar(setup: Setup, num_done: int, status: str | None = None) -> tqdm[Any]:
    """Make a bar that is shown only on a terminal or in a notebook.

    A bar with a status disappears when it is closed.
    """
    return tqdm(
        desc=status,
        leave=status is None,
        total=len(setup.problems),
        initial=num_done,
        unit="puzzle",
        disable=(False if _is_in_notebook() else None) if setup.options.progress else True,
    )


def _is_in_notebook() -> bool:
    """Return whether this is the kernel of a notebook, whose standard error is no terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def update_bar(bar: tqdm[Any], totals: Totals) -> None:
    """Count one more puzzle, and show the totals."""
    bar.set_postfix_str(
        f"top-1 {totals.top1:.1%}, {totals.tokens_per_second:.0f} tokens/s, "
        f"batch {totals.requests_per_round:.1f}",
        refresh=False,
    )
    bar.update()
