r"""Normalization of an answer's notation: variants of LaTeX, Unicode signs, separators of digits.

`normalize_latex` removes what never changes an answer (spacing, fonts, delimiters) and writes the
rest in one way: `\dfrac12` and `½` become `\frac{1}{2}`, `1{,}234` becomes `1'234`, and `≤` becomes
`\le`. It does not read numbers.
"""

from __future__ import annotations

import re
from functools import lru_cache

from treeshare.tasks.replies import MINUS_SIGNS, normalize_characters

LONGEST = 400
"""Characters of an answer in any notation; a longer text is not normalized."""

_ARGUMENT = r"{((?:[^{}]|{(?:[^{}]|{[^{}]*})*})*)}"  # braces with at most two levels inside
_ONE = r"(?:[0-9a-zA-Z]|\\[a-zA-Z]+)"  # what LaTeX takes as an argument without braces

_CHARACTERS = {
    **dict.fromkeys(map(ord, MINUS_SIGNS), "-"),
    **dict.fromkeys(map(ord, "’‘′"), "'"),
    **{ord(sign): rf"\{name} " for sign, name in {
        "×": "times", "·": "cdot", "⋅": "cdot", "÷": "div", "≤": "le", "≥": "ge", "≠": "ne",
        "≈": "approx", "∈": "in", "∪": "cup", "∩": "cap", "±": "pm", "∞": "infty", "π": "pi",
        "√": "sqrt", "∅": "emptyset",
    }.items()},
    **{ord(sign): f"^{digit}" for digit, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{ord(sign): rf"\frac{{{digits[0]}}}{{{digits[1]}}}" for sign, digits in {
        "½": "12", "⅓": "13", "⅔": "23", "¼": "14", "¾": "34", "⅕": "15", "⅖": "25", "⅗": "35",
        "⅘": "45", "⅙": "16", "⅚": "56", "⅛": "18", "⅜": "38", "⅝": "58", "⅞": "78",
    }.items()},
}  # fmt: skip

_FONTS = (
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mathbb|mbox|hbox|operatorname|emph|"
    r"boldsymbol|bm|boxed|fbox|framebox|underline|ensuremath|mathop)\s*\*?\s*"
)
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (_FONTS + _ARGUMENT, r" \1"),
        (r"^[\"'“](.*)[\"'”]$", r"\1"),
        (r"^~ ?(?=[-$]?[0-9])", r"\\approx "),
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])\.?", ""),
        (r"(?<=[0-9])(?:,\s*\\!\s*|\{,\}\s*|\\[,;:! ]\s*)(?=[0-9]{3}(?![0-9]))", "'"),
        (r"\\(?:[!,;:> ]|q?quad(?![a-zA-Z]))|~|\\\\(?=\s*\\end)", " "),
        (r"(\\\\)\s*\[[^\]\\]*\]", r"\1"),  # the space below a row of a matrix
        (r"\\\[|\\\]|\\\(|\\\)|(?<!\\)\$(?=[^$]*\$)|\$(?![0-9.\-])", ""),
        (r"\\([$%£€&#_])", r"\1"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"{([^{}]*)\\over(?![a-zA-Z])([^{}]*)}", r"\\frac{\1}{\2}"),
        (rf"\\frac\s*({_ONE})", r"\\frac{\1}"),
        (rf"\\frac\s*{_ARGUMENT}\s*({_ONE})", r"\\frac{\1}{\2}"),
        (rf"\\frac\s*{_ARGUMENT}\s*{_ARGUMENT}", r"\\frac{\1}{\2}"),
        (r"\\sqrt\s*\(([^()]*)\)|(?<![a-zA-Z\\])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1\2}"),
        (rf"\\sqrt\s*({_ONE})", r"\\sqrt{\1}"),
        (r"\s*\^\s*(?:{\s*\\circ\s*}|\\circ(?![a-zA-Z]))|\\degrees?(?![a-zA-Z])", "°"),
        (r"([\^_])\s*{\s*([0-9a-zA-Z])\s*}", r"\1\2"),
        (r"\\(?:leq|leqslant)(?![a-zA-Z])|<=|=<", r"\\le "),
        (r"\\(?:geq|geqslant)(?![a-zA-Z])|>=|=>", r"\\ge "),
        (r"\\neq(?![a-zA-Z])|!=", r"\\ne "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\(?:lbrace|rbrace)(?![a-zA-Z])", lambda match: r"\{" if "l" in match[0][:2] else r"\}"),
        (r"(?<![a-zA-Z\\])(?:infinity|oo)(?![a-zA-Z])", r"\\infty "),
        (r"\+\s*\\infty", r"\\infty"),
        (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
        (r"\\(?:varnothing)(?![a-zA-Z])", r"\\emptyset "),
        (r"\*\*|__|`", ""),
        (r"\s+", " "),
    )
]
# `\\` ends a row, and only its own rule may match a part of it
_ROW_END = re.compile(r"\\\\(?!\s*\[|\s*\\end)")
_WRAPPED = re.compile(r"{([^{}]*)}")


@lru_cache(maxsize=4096)
def normalize_latex(text: str) -> str:
    r"""Return an answer in one notation, without a full stop at its end.

    A normalized answer stays the same when it is normalized again. A text of more than `LONGEST`
    characters is returned unchanged.
    """
    if len(text) > LONGEST:
        return text
    text = normalize_characters(text).translate(_CHARACTERS)
    for _ in range(12):
        before = text
        text = _ROW_END.sub("\ue000", text)
        for pattern, replacement in _RULES:
            text = pattern.sub(replacement, text)
        text = text.replace("\ue000", r"\\").strip(" *:").rstrip(" .,;")
        if match := _WRAPPED.fullmatch(text):
            text = match[1]
        if text == before:
            return text
    return text


def compact_latex(text: str) -> str:
    """Remove blanks next to a sign, and signs of multiplication before a letter or a command.

    `2 * x` becomes `2x`.

    Args:
        text: a text of `normalize_latex`.
    """
    text = re.sub("(?<![0-9a-zA-Z]) | (?![0-9a-zA-Z])", "", text)
    return re.sub(r"(?<=[0-9a-zA-Z)}])(?:\*|\\cdot|\\times)(?=\\[a-zA-Z]|[a-zA-Z(])", "", text)
