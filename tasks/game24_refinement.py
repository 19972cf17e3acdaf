"""The Game of 24 for Self-Refine (arXiv 2303.17651): feedback on an answer and its mending.

The model judges; nothing here knows whether an answer is right. As in search, every example has a
number above 13, so none can be a puzzle.
"""

from __future__ import annotations

import re
from typing import Any

from .game24_rules import TARGET, Position

FEEDBACK = """\
Does the answer make 24 by + - * / and use each number exactly once? Say correct, or in one short \
line what is wrong.

Numbers: 1 5 9 14
Answer: 5 * (14 - 9) - 1 = 24
Feedback: correct

Numbers: 1 3 8 14
Answer: 3 * 8 = 24
Feedback: wrong, 1 and 14 are not used

Numbers: 2 3 15 18
Answer: 2 * 15 - (18 - 3) = 24
Feedback: wrong, it makes 30 - 15 = 15

"""

REFINE = """\
Make 24 from the numbers by + - * / and parentheses. Use each number exactly once. Mend what the \
feedback finds wrong.

Numbers: 1 3 8 14
Answer: 3 * 8 = 24
Feedback: wrong, 1 and 14 are not used
Answer: (14 - 8) * (1 + 3) = 24

Numbers: 2 3 15 18
Answer: 2 * 15 - (18 - 3) = 24
Feedback: wrong, it makes 30 - 15 = 15
Answer: 2 * 15 - 18 / 3 = 24

"""

SAMPLING = {
    "feedback": {"max_tokens": 48, "temperature": 0.7, "stop": ("\n",)},
    "refine": {"max_tokens": 48, "temperature": 0.7, "stop": ("\n",)},
}


def prompt(role: str, state: Any) -> tuple[str, ...]:
    """Segments of the prompt for `feedback` on a position, or for `refine` of the last of the
    pairs (position, feedback)."""
    if role == "feedback":
        return FEEDBACK, *_attempt(state, is_first=True), "Feedback:"
    segments: list[str] = []
    for position, feedback in state:
        line = " ".join(feedback.split())
        segments += [*_attempt(position, is_first=not segments), f"Feedback: {line}\n"]
    return REFINE, *segments, "Answer:"


def is_satisfied(state: Position, feedback: str) -> bool:
    """Whether the feedback begins with `correct`."""
    return re.match(r"\W*correct\b", feedback, re.IGNORECASE) is not None


def _attempt(position: Position, *, is_first: bool) -> list[str]:
    given = [f"Numbers: {' '.join(map(str, position.puzzle))}\n"] if is_first else []
    return [*given, f"Answer: {position.answer} = {TARGET}\n"]
