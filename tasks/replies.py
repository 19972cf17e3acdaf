"""What the replies of several tasks have in common: lines that are steps, and a verdict.

Knows no task; what a line says is read by the task's own function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from .task import ParseFailure, Step


def read_steps(
    role: str, text: str, lines: Iterable[str], read: Callable[[str], Step | str | None]
) -> list[Step] | ParseFailure:
    """The steps among the lines of a reply to `propose`, or the first of them to `step`.

    Args:
        text: the reply as it came.
        lines: of the reply; empty ones are passed over.
        read: gives a line's step, or why it is none; None if it does not count.
    """
    found = [read(line) for line in lines if line.strip()]
    steps = [step for step in found if isinstance(step, Step)]
    reasons = [reason for reason in found if isinstance(reason, str)]
    if steps:
        return steps[:1] if role == "step" else steps
    return ParseFailure(role, text, reasons[0] if reasons else "empty reply")


def last_verdict(values: Mapping[str, float], text: str) -> float | ParseFailure:
    """The value of the last verdict word in a reply to `value`.

    Args:
        values: of each verdict, as of `HasValues`: a space and a word in small letters.
    """
    words = [verdict.strip() for verdict in values]
    found = re.findall(rf"\b({'|'.join(words)})\b", text, re.IGNORECASE)
    if not found:
        return ParseFailure("value", text, f"none of {', '.join(words)}")
    return values[f" {found[-1].lower()}"]
