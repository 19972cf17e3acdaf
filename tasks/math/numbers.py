r"""Readers of numbers and sums, which compute with fractions and bound all powers.

`read_number` reads a number as a person writes a result: whole, decimal, fraction, mixed or
`4.5e33`, with separators of thousands, a sign and a unit. `calculate` computes sums as well
(`2^{10} - 1`, `1/20!`), for the comparison of expressions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from .latex import LONGEST, normalize_latex
from .units import CURRENCIES, is_unit

_LARGEST_EXPONENT = 5000  # the largest power of ten: `1e5000`
_LARGEST_BITS = 60_000  # bits of what `calculate` computes

_GROUPED = (  # separators of thousands: 1,234 1'234 1 234, and 12,34,567 as in India
    "[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:'[0-9]{3})+|[0-9]{1,3}(?:[ ][0-9]{3})+"
    "|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}"
)
_COMMA_DECIMAL = (  # 1.234,5 and 1 234,5, where the comma is the decimal sign
    r"(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]{1,3}(?:[ ][0-9]{3})+|[0-9]{1,3}(?:'[0-9]{3})+),[0-9]+"
    r"|[0-9]{1,3}(?:\.[0-9]{3}){2,}"
)
_WITH_DECIMAL_COMMA = re.compile(rf"[-+]?(?:{_COMMA_DECIMAL}|[0-9]{{4,}},[0-9]+)")
_WHOLE = rf"(?:(?:{_GROUPED})(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:(?:{_COMMA_DECIMAL})(?![0-9.,])|{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)"
_SIMPLE = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"  # in brackets, where a comma divides numbers
_SIGNED = rf"(?:[-+]?\s*{_DECIMAL}|\(\s*[-+]?\s*{_SIMPLE}\s*\))"
_FRACTION = rf"\\frac{{\s*([-+]?\s*{_DECIMAL})\s*}}{{\s*([-+]?\s*{_DECIMAL})\s*}}"
_TIMES_TEN = r"\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:{\s*([-+]?[0-9]+)\s*}|\(?([-+]?[0-9]+)\)?)"
_NUMBER = re.compile(
    rf"""(?P<sign>(?:[-+]|(?:minus|negative)\ )?)\s*
    (?P<currency>(?:US\$|[$£€¥₹]|(?:USD|EUR|GBP|INR|Rs)\b\.?)?)\s*(?P<inner>[-+]?)\s*
    (?:
      10\s*\^\s*(?:{{\s*(?P<power>[-+]?[0-9]+)\s*}}|(?P<power1>[-+]?[0-9]+))
    | (?:
        (?:(?P<mixed>{_WHOLE})(?:\s*(?=\\frac)|\s+(?={_WHOLE}/)))?
        (?:{_FRACTION}|(?P<over>{_DECIMAL})(?:\s*/\s*(?P<under>{_SIGNED}))?)
      | \(\s*(?P<inside>[-+]?\s*{_SIMPLE}\s*(?:/\s*{_SIMPLE})?)\s*\)
        (?:\s*/\s*(?P<under1>{_SIGNED}))?
      )
      (?:[eE](?P<e>[-+]?[0-9]+)(?![0-9a-zA-Z])|{_TIMES_TEN})?
    )(?![0-9])""",
    re.VERBOSE | re.IGNORECASE,
)
_RECURRING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar) ?{([0-9]+)}")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"\s*({'|'.join(_SCALES)})(?![a-zA-Z])", re.IGNORECASE)
_WORD = (
    r"(?:(?:[ckm]?m|ft|in)[23]|[^\W\d_]{2,}\.?(?:['-][^\W\d_]+)*|[mgslhLJNWVKCFa])"
    r"(?:\^[23]|\^{[23]})?"
)
_UNIT = re.compile(
    rf"(?:\s*(?:[%¢$£€¥₹]|°\s?[CF]?(?![a-zA-Z])))?(?:\s*/?\s*{_WORD}(?![^\W\d_])){{0,9}}\.?"
)
_CHANGES_VALUE = re.compile(  # words after a number that change it or continue the expression
    r"\b(?:hundreds?|thousands?|millions?|billions?|trillions?|dozens?|half|halves|thirds?|quarters?"
    r"|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|hundredths?|thousandths?"
    r"|millionths?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty"
    r"|thirty|forty|fifty|sixty|seventy|eighty|ninety|pi|sqrt|root|or|not|is|are|was|were|to|plus"
    r"|minus|times|over|if|than|out|below|under|negative|factorial|mod|modulo|remainder"
    r"|divided|multiplied|raised|between|but|wait|wrong|incorrect|sin|cos|tan|log|ln)\b",
    re.IGNORECASE,
)
_ENGLISH = re.compile(  # English words, and not products of letters
    r"(?:an?|am|at|by|he|if|in|it|me|my|of|on|pm|so|up|us|we|(?=[a-z]*[aeiouy])[a-z]{3,})(?:'[a-z]+)?",
    re.IGNORECASE,
)
_POWER_WORDS = re.compile(r"^\s*(?:squared|cubed)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Number:
    """A number with or without a unit.

    Attributes:
        value: the exact value.
        unit: the unit as written; "" without one.
    """

    value: Fraction
    unit: str

    def __str__(self) -> str:
        return f"{fraction_to_text(self.value)} {self.unit}".strip()


class TooLarge(ValueError):
    """A sum has a power or a factorial of more than 60,000 bits."""


@lru_cache(maxsize=4096)
def read_number(text: str) -> Number | None:
    """Read a number with or without a unit; None for another text and for a division by zero."""
    if len(text) > LONGEST:
        return None
    text = _RECURRING.sub(_recurring, normalize_latex(text))
    match = _NUMBER.match(text)
    if match is None or (match["sign"] and match["inner"]):
        return None
    if match["inside"] and not (match["sign"] or match["under1"]):
        return None  # brackets around the whole are not part of a number
    value = _value(match)
    if value is None:
        return None
    rest = text[match.end() :]
    if scale := _SCALE.match(rest):
        value *= 10 ** _SCALES[scale[1].lower()]
        rest = rest[scale.end() :]
    rest = re.sub(r"^\s*[(\[]([^\W\d_][^\d()\[\]]*)[)\]]$", r" \1", rest)  # as in `9 (apples)`
    if rest.strip() and not _is_unit(rest, match):
        return None
    unit = " ".join(rest.split())
    currency = CURRENCIES.get(match["currency"].upper().rstrip("."), "")
    if currency and not unit:
        unit = currency
    elif currency:
        unit = f"{currency} {unit}"
    if match["sign"] not in ("", "+") or match["inner"] == "-":
        value = -value
    return Number(value, re.sub(r"^(?:percent|pct|per cent)$", "%", unit.rstrip(".")))


def _recurring(match: re.Match[str]) -> str:
    r"""Return a recurring decimal such as `0.1\overline{6}` as a fraction."""
    whole, once, again = match.groups(default="")
    nines = (10 ** len(again) - 1) * 10 ** len(once)
    return f"{int(whole + once + again) - int(whole + once or 0)}/{nines}"


def _is_unit(rest: str, match: re.Match[str]) -> bool:
    if _POWER_WORDS.match(rest) or _CHANGES_VALUE.search(rest) or not _UNIT.fullmatch(rest):
        return False
    words = re.findall(r"[^\W\d_]+(?:'[a-z]+)?", rest)
    if rest[0].isalpha() and (match["currency"] or not is_unit(words[0]) or len(words[0]) == 1):
        return False  # `$5k` is thousands, `2x`, `2ab` and `2m` are products
    return all(is_unit(word) or _ENGLISH.fullmatch(word) for word in words)


def _value(match: re.Match[str]) -> Fraction | None:
    power = match["power"] or match["power1"]
    if power is not None:
        return _scaled(Fraction(1), power)
    groups = match.groups()
    over, under = match["over"], match["under"]
    fraction = match.re.groupindex["mixed"]  # the two groups after it belong to \frac
    if groups[fraction] is not None:
        over, under = groups[fraction], groups[fraction + 1]
    elif match["inside"] is not None:
        over, _, under = match["inside"].partition("/")
        if match["under1"] is not None:
            if under:
                return None
            under = match["under1"]
    numerator, denominator = _decimal(over), _decimal(under) if under else Fraction(1)
    if not denominator:
        return None
    value = numerator / denominator
    if match["mixed"] is not None:
        if not under or not 0 <= numerator < denominator:
            return None
        value += _decimal(match["mixed"])
    exponent = match["e"] or next((group for group in groups[-2:] if group is not None), None)
    return value if exponent is None else _scaled(value, exponent)


def _scaled(value: Fraction, exponent: str) -> Fraction | None:
    if len(exponent) > 6 or abs(int(exponent)) > _LARGEST_EXPONENT:
        return None
    return value * Fraction(10) ** int(exponent)


def _decimal(text: str) -> Fraction:
    """Read a numeral with separators of thousands, a sign and brackets around it."""
    text = re.sub(r"[\s()']", "", text)
    if _WITH_DECIMAL_COMMA.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    return Fraction(text.replace(",", ""))


def fraction_to_text(value: Fraction) -> str:
    r"""Return a fraction in a form that `read_number` reads.

    It is such as `3/4`, or `45 \times 10^{32}` where there are more than 30 digits.
    """
    over, under = value.numerator, value.denominator
    if max(abs(over), under) < 10**30:
        return str(value)
    exponent = 0
    while over and over % 10 == 0:
        over, exponent = over // 10, exponent + 1
    while under % 10 == 0:
        under, exponent = under // 10, exponent - 1
    mantissa = str(over) if under == 1 else f"{over}/{under}"
    return rf"{mantissa} \times 10^{{{exponent}}}" if exponent else mantissa


_TOKEN = re.compile(
    rf"\s*(?:(\\frac|\\times|\\cdot|\\div|[-+*/^!(){{}}])|({_DECIMAL})(?:[eE]([-+]?[0-9]+))?)"
)


def calculate(text: str) -> Fraction | None:
    r"""Compute a sum with + - * / ^ ! \frac and brackets; None for any other text.

    Args:
        text: the sum, as `normalize_latex` returns it.

    Raises:
        TooLarge: a power or a factorial has more than 60,000 bits.
    """
    tokens, place = [], 0
    text = text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or match.end() == place:
            return None
        tokens.append((match[1], match[2], match[3]))
        place = match.end()
    if not tokens or len(tokens) > LONGEST:
        return None
    try:
        return _Sum(tokens).whole()
    except (_NoSum, ZeroDivisionError, RecursionError):
        return None


class _NoSum(ValueError):
    """The tokens are not a sum."""


class _Sum:
    """A parser by recursive descent that computes while it reads."""

    def __init__(self, tokens: list[tuple[str | None, str | None, str | None]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Fraction:
        value = self._terms()
        if self._at != len(self._tokens):
            raise _NoSum
        return value

    def _sign(self) -> str | None:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else None

    def _take(self, *signs: str) -> str | None:
        sign = self._sign()
        if sign not in signs:
            return None
        self._at += 1
        return sign

    def _terms(self) -> Fraction:
        self._depth += 1
        if self._depth > 40:
            raise _NoSum
        value = self._factors()
        while sign := self._take("+", "-"):
            value = _bounded(value + self._factors() * (1 if sign == "+" else -1))
        self._depth -= 1
        return value

    def _factors(self) -> Fraction:
        value = self._signed()
        while sign := self._take("*", r"\times", r"\cdot", "/", r"\div"):
            other = self._signed()
            value = _bounded(value / other if sign in ("/", r"\div") else value * other)
        return value

    def _signed(self) -> Fraction:
        sign = self._take("+", "-")
        value = self._power()
        return -value if sign == "-" else value

    def _power(self) -> Fraction:
        value = self._atom()
        while self._take("!"):
            value = _factorial(value)
        if self._take("^"):
            value = _raised(
                value, self._bracketed("{", "}") if self._sign() == "{" else self._signed()
            )
        return value

    def _atom(self) -> Fraction:
        if self._take(r"\frac"):
            over = self._bracketed("{", "}")
            return _bounded(over / self._bracketed("{", "}"))
        for opening, closing in (("(", ")"), ("{", "}")):
            if self._sign() == opening:
                return self._bracketed(opening, closing)
        if self._at == len(self._tokens) or self._tokens[self._at][1] is None:
            raise _NoSum
        _, numeral, exponent = self._tokens[self._at]
        self._at += 1
        value = _decimal(numeral or "")
        if exponent is None:
            return value
        scaled = _scaled(value, exponent)
        if scaled is None:
            raise TooLarge
        return scaled

    def _bracketed(self, opening: str, closing: str) -> Fraction:
        if not self._take(opening):
            raise _NoSum
        value = self._terms()
        if not self._take(closing):
            raise _NoSum
        return value


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > _LARGEST_BITS:
        raise TooLarge
    return value


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or value < 0:
        raise _NoSum
    result = 1
    if value > _LARGEST_BITS:
        raise TooLarge
    for factor in range(2, int(value) + 1):
        result *= factor
        if result.bit_length() > _LARGEST_BITS:
            raise TooLarge
    return Fraction(result)


def _raised(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise _NoSum
    bits = base.numerator.bit_length() + base.denominator.bit_length()
    if bits > 2 and abs(exponent) * bits > _LARGEST_BITS:
        raise TooLarge
    return base ** int(exponent % 2 if bits <= 2 and base else exponent)
