"""Figures that others have published for the same tasks, to stand beside ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """Accuracies in [0, 1]; None where the source gives none."""

    name: str
    model: str
    top1: float | None
    any_of_b: float | None
    b: int  # answers that count
    source: str


_TOT = "Tree of Thoughts (arXiv 2305.10601) Table 2"
_LOG = "the log that the authors of ToT published, judged by our verifier"

PUBLISHED = {
    "game24": (
        Published("IO", "GPT-4", 0.073, None, 1, f"{_TOT}; mean of 100 samples"),
        Published("CoT", "GPT-4", 0.040, None, 1, f"{_TOT}; mean of 100 samples"),
        Published("CoT-SC, k = 100", "GPT-4", 0.090, None, 1, _TOT),
        Published("ToT, b = 1", "GPT-4", 0.45, 0.45, 1, _TOT),
        Published("ToT, b = 5", "GPT-4", None, 0.74, 5, f"{_TOT}; counts any of the 5 answers"),
        Published("ToT, b = 5, logged", "GPT-4", 0.62, 0.69, 5, _LOG),
    ),
}
"""By task. Those of the Game of 24 are for games 901 to 1,000 of ToT's list."""
