"""Results that other authors have published for the same tasks, for comparison with ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """One published result. Accuracies are in [0, 1], or None where the source gives none."""

    name: str  # the method's
    model: str
    top1: float | None  # share of puzzles whose first answer is right
    any_of_b: float | None  # share of puzzles with a right answer among the first b
    b: int  # answers that count
    source: str


_TOT = "Tree of Thoughts (arXiv 2305.10601) Table 2"
_LOG = "the log that the authors of ToT published, judged by our verifier"

REFERENCE_RESULTS = {
    "game24": (
        ReferenceResult("IO", "GPT-4", 0.073, None, 1, f"{_TOT}; mean of 100 samples"),
        ReferenceResult("CoT", "GPT-4", 0.040, None, 1, f"{_TOT}; mean of 100 samples"),
        ReferenceResult("CoT-SC, k = 100", "GPT-4", 0.090, None, 1, _TOT),
        ReferenceResult("ToT, b = 1", "GPT-4", 0.45, 0.45, 1, _TOT),
        ReferenceResult(
            "ToT, b = 5", "GPT-4", None, 0.74, 5, f"{_TOT}; counts any of the 5 answers"
        ),
        ReferenceResult("ToT, b = 5, logged", "GPT-4", 0.62, 0.69, 5, _LOG),
    ),
}
"""Published results by task. Those of the Game of 24 are for games 901 to 1,000 of ToT's list."""
