r"""Final answers of mathematics problems: found in a solution, read exactly, compared.

Numbers are compared as fractions, never as floats: 0.5 is 1/2, and 0.333 is not 1/3. Answers that
are no numbers must be the same text after LaTeX's variants of spacing are removed, or, if asked
for, equal by math-verify (https://github.com/huggingface/Math-Verify), which knows sets, intervals
and algebra. Knows no prompts and no files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_LONGEST = 200  # characters of an answer
_ANSWER = re.compile(r"(?:####|\banswer\s*(?:is|:|=)+)[*\s]*", re.IGNORECASE)

_WHOLE = "(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)"
_FRACTION = re.compile(rf"\\frac{{(-?{_DECIMAL})}}{{({_DECIMAL})}}")
_NUMBER = re.compile(
    rf"([-+]?)\s*([$£€]?)\s*(?:({_WHOLE})\s+(?={_WHOLE}/))?({_DECIMAL})(?:\s*/\s*({_DECIMAL}))?"
)
_UNIT = re.compile(
    r"(?:\s*%|\s*°[CF]?|\s+(?:[a-zA-Z]{2,}|[mgslhLJNWVKCF]))(?:[\s/][a-zA-Z]+){0,3}(?:\^[23]|[²³])?"
)
_CURRENCIES = {"$": "dollars", "£": "pounds", "€": "euros"}
_NO_UNIT = re.compile(  # words that change the value, or say that there is more to it
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|half|halves|thirds?|quarters?|pi|sqrt"
    r"|or|and|not|is|are|to|plus|minus|times|over|of|if|else|than)\b"
)
_PLAIN = (
    (r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*{([^{}]*)}", r" \1"),
    (r"\\(?:left|right|displaystyle)(?![a-zA-Z])", ""),
    (r"(?<=[0-9])\\[!,](?=[0-9]{3})", ""),
    (r"\\[!,;:> ]|~", " "),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
    (r"\\frac\s*{([^{}]*)}\s*([0-9])", r"\\frac{\1}{\2}"),
    (r"\\frac\s*([0-9])\s*{([^{}]*)}", r"\\frac{\1}{\2}"),
    (r"\\sqrt\s*([0-9])", r"\\sqrt{\1}"),
    (r"\^\s*(?:{\s*\\circ\s*}|\\circ)", "°"),
    (r"\{,\}", ","),
    (r"(?<!\\)\$([^$]*)(?<!\\)\$", r"\1"),
    (r"\\([$%£€])", r"\1"),
    ("[−–]", "-"),
    (r"[*`]{2,}|\$(?![0-9.])", ""),
    (r"\s+", " "),
)


@dataclass(frozen=True, slots=True)
class Number:
    value: Fraction
    unit: str  # as written; "" without one

    def __str__(self) -> str:
        return f"{self.value} {self.unit}".strip()


def final_answer(text: str) -> str | None:
    r"""The last `\boxed{...}` of a solution, or else the rest of the line after the last `####`,
    `Answer:` or `answer is`; None without any, or if it is empty or of more than 200 characters."""
    found = _boxed(text)
    if found is None:
        marks = list(_ANSWER.finditer(text))
        found = text[marks[-1].end() :].partition("\n")[0] if marks else ""
    found = found.strip()
    return found if 0 < len(found) <= _LONGEST else None


def plain(text: str) -> str:
    """An answer without what does not change it: the variants of LaTeX, a full stop, `x =`. Again
    it stays the same."""
    before = None
    while text != before:
        before = text
        for pattern, replacement in _PLAIN:
            text = re.sub(pattern, replacement, text)
        text = re.sub(r"^\s*[a-zA-Z]\s*=\s*", "", text).strip(" *`").rstrip(" .")
    return text


def read_number(text: str) -> Number | None:
    """A whole number, decimal, fraction or mixed number, with or without a unit; None for anything
    else."""
    if len(text) > _LONGEST:
        return None
    text = _FRACTION.sub(r" \1/\2", plain(text)).strip()
    match = _NUMBER.match(text)
    if match is None:
        return None
    sign, currency, *numerals = match.groups(default="")
    whole, over, under = (Fraction(numeral.replace(",", "") or 0) for numeral in numerals)
    rest = text[match.end() :]
    if rest and (_UNIT.fullmatch(rest) is None or _NO_UNIT.search(rest.lower())):
        return None
    if match[5] and not under:
        return None  # a division by zero
    value = whole + (over / under if match[5] else over)
    unit = " ".join(rest.split()) or _CURRENCIES.get(currency, "")
    return Number(-value if sign == "-" else value, "%" if unit == "percent" else unit)


def normal(text: str) -> str:
    """An answer in the form in which equal ones are most often the same: `1/2`, `42 dollars`,
    `(1,2]`."""
    number = read_number(text)
    if number is not None:
        return str(number)
    text = plain(text)
    if re.fullmatch("[a-zA-Z]{2,}(?: [a-zA-Z]+)*", text):
        return text.lower()
    squeezed = re.sub("(?<![0-9a-zA-Z]) | (?![0-9a-zA-Z])", "", text)
    is_the_same = plain(squeezed) == squeezed and read_number(squeezed) is None
    return squeezed if is_the_same else text  # `1, 250` is not 1,250


def are_same(answer: str, right: str, *, symbolic: bool = False) -> bool:
    """Whether two answers are equal; one of more than 200 characters is to none.

    Numbers are if their values are, and their units where both have one. Other answers are if their
    `normal` form is the same, or, with `symbolic` and no decimal point in either, if math-verify
    says so.
    """
    if len(answer) > _LONGEST:
        return False
    a, b = read_number(answer), read_number(right)
    if a is not None and b is not None:
        are_known = a.unit and b.unit
        return a.value == b.value and (not are_known or _singular(a.unit) == _singular(b.unit))
    if a is None and b is None and normal(answer) == normal(right):
        return True
    # math-verify rounds decimals, and takes 0.333333 for 1/3
    is_exact = not any(re.search(r"\.[0-9]", text) for text in (answer, right))
    return symbolic and is_exact and _are_equal(answer, right)


def _singular(unit: str) -> str:
    return re.sub("(?<=[sxh])es$|(?<=[a-z][a-rt-z])s$", "", unit.lower())


def need_math_verify() -> None:
    """
    Raises:
        ImportError: the package is not installed; says how to get it.
    """
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        raise ImportError('symbolic=true needs `pip install "treeshare[math]"`') from error


def _are_equal(answer: str, right: str) -> bool:
    import math_verify

    a, b = (math_verify.parse(rf"\boxed{{{plain(text)}}}") for text in (answer, right))
    return bool(math_verify.verify(b, a, strict=True))


def _boxed(text: str) -> str | None:
    r"""What is in the last `\boxed{...}` whose braces are balanced."""
    for start in reversed([match.end() for match in re.finditer(r"\\f?boxed\s*{", text)]):
        depth = 1
        for end in range(start, min(len(text), start + _LONGEST + 1)):
            depth += (text[end] == "{") - (text[end] == "}")
            if not depth:
                return text[start:end]
    return None
