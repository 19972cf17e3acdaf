"""Readers of replies that several tasks share: characters, lines of steps, verdicts, approval.

Each task reads its own steps; `votes.read_vote` reads votes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from .task import ParseFailure, Step

MINUS_SIGNS = "−–‒‑‐➖﹣"
"""Characters that stand for the minus sign of ASCII; the em dash (—) is not one of them."""

_BLANKS = (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufeff"  # zero width, variants of a glyph
_CHARACTERS: dict[int, int | str | None] = {
    **{0xFF01 + i: 0x21 + i for i in range(94)},  # full-width forms of ASCII
    **dict.fromkeys(_BLANKS, " "),
    **dict.fromkeys(map(ord, _INVISIBLE)),
}
_LETTERS: dict[int, int | str | None] = {
    **{ord("A") + i: ord("a") + i for i in range(26)},  # str.lower would turn U+212A into `k`
    **dict.fromkeys(map(ord, "‘’ʼ`´"), "'"),
    ord("_"): " ",
}

NEGATION = (
    r"(?<!\w)(?:no|non|not|nor|none|nope|nah|nothing|nobody|never|neither|cannot|hardly|barely"
    r"|scarcely|dubious|doubt[a-z]{0,9}|far from|anything but|rather than|instead of|opposite of"
    r"|(?:is|are|was|were|do|does|did|ca|could|wo|would|should|ai|have|has|had|must|need)nt)(?!\w)"
    r"|n't(?!\w)|~~|[❌✗✘]"
)
"""A pattern of words that turn a statement into its opposite, for text of `normalize_words`."""

_NEGATED = re.compile(NEGATION)
_SHARE = r"(?<![0-9.])(?!100(?:\.0{1,9})? ?(?:%|per))[0-9]{1,9}(?:\.[0-9]{1,9})? ?(?:%|per ?cent)"
_CORRECT = re.compile(r"\W*+correct(?!-\w)(?:$|(?= ?[^\w ]| (?:because|since|as|indeed)(?!\w)))")
_OBJECTION = re.compile(
    r"(?<!\w)(?:but|however|except|though|although|yet|wrong|incorrect|mistakes?|errors?|almost"
    r"|nearly|part(?:ly|ially)|should|unless|if|missing|unused)(?!\w)|\?"
)


def normalize_characters(text: str) -> str:
    """Return the text with spaces for blanks of every width and ASCII for full-width characters.

    Invisible characters, such as zero-width spaces, are removed. Line ends stay.
    """
    return text.translate(_CHARACTERS)


def normalize_words(text: str) -> str:
    """Return the text's words in lower case with single spaces between them.

    Besides `normalize_characters`, ASCII letters become lower case, apostrophes become `'` and
    underscores become spaces.
    """
    return " ".join(normalize_characters(text).translate(_LETTERS).split())


def read_steps(
    role: str, text: str, lines: Iterable[str], read: Callable[[str], Step | str | None]
) -> list[Step] | ParseFailure:
    """Collect the steps among the lines of a reply.

    Args:
        role: `propose`, or `step`, which takes the first step alone.
        text: the reply, for the parse failure.
        lines: the lines of the reply; empty ones are skipped.
        read: returns a line's step, or the reason why the line is not a step, or None for a line
            that is neither a step nor a failure.

    Returns:
        The steps, at least one; or a failure with the first reason.
    """
    found = [read(line) for line in lines if line.strip()]
    steps = [step for step in found if isinstance(step, Step)]
    reasons = [reason for reason in found if isinstance(reason, str)]
    if steps:
        return steps[:1] if role == "step" else steps
    return ParseFailure(role, text, reasons[0] if reasons else "empty reply")


def read_verdict(values: Mapping[str, float], text: str) -> float | ParseFailure:
    """Read the value of the one verdict in a reply to `value`.

    A reply with two different verdicts is a failure. So is a reply with a negation (`not sure`,
    `unlikely`), a share (`30 % sure`) or a question (`sure?`) in the verdict's line or after it,
    because it does not say which value is meant. The lines before the verdict may hold negations,
    as in Tree of Thoughts' own examples: `I cannot obtain 24 now, ...` and then `likely`. The same
    verdict may occur more than once.

    Args:
        values: the value of each verdict (`HasValues`); a verdict is a space and a lower-case word.
        text: the reply.

    Returns:
        The value, or a failure with its reason.
    """
    words = [verdict.strip() for verdict in values]
    any_word = "|".join(map(re.escape, words))
    word = re.compile(rf"(?<!\w)(?<!\w-)(?:{any_word})(?![\w\u0300-\u036f]|-\w)")
    lines = [normalize_words(line) for line in text.splitlines()]
    first = next((i for i, line in enumerate(lines) if word.search(line)), 0)
    said = " ".join(lines[first:])
    found = set(word.findall(said))
    doubtful = _NEGATED.search(said) or re.search(
        rf"(?<!\w)(?:(?:un|non|not)-?|(?:less|least)(?: than)? )(?:{any_word})(?!\w)"
        rf"|(?<!\w)(?:{any_word})\W{{0,9}}?\?|{_SHARE}",
        said,
    )
    if not found:
        return ParseFailure("value", text, f"none of {', '.join(words)}")
    if len(found) > 1:
        return ParseFailure("value", text, f"several verdicts: {', '.join(sorted(found))}")
    if doubtful:
        return ParseFailure("value", text, f"not a plain verdict: `{doubtful[0]}`")
    return values[f" {found.pop()}"]


def is_approved(feedback: str) -> bool:
    """Return whether feedback on a solution begins with `correct` and has no objection."""
    said = normalize_words(feedback)
    is_correct = _CORRECT.match(said) is not None
    return is_correct and _OBJECTION.search(said) is None and _NEGATED.search(said) is None
