"""Comparison of units of measurement and of other words after a number.

A unit is never required, so an answer without one agrees with any. Two answers with units must
agree: `18 USD` and `$18` do, `5 cm` and `5 m` do not, and nothing is converted. Words that are not
units (`apples left`) agree if the words of one side are among those of the other.
"""

from __future__ import annotations

import re
from functools import lru_cache

_SYNONYMS = """
%: percent pct percentage percents percentages
deg: ° degree degrees degs
rad: radian radians rads
celsius: °c centigrade
fahrenheit: °f
kelvin: kelvins
usd: $ us$ dollar dollars buck bucks usds
eur: € euro euros eurs
gbp: £ sterling gbps
pound: pounds
jpy: ¥ yen
cny: yuan rmb renminbi
inr: ₹ rs rupee rupees
cent: ¢ cents
s: sec secs second seconds
min: mins minute minutes
h: hr hrs hour hours
day: days
week: weeks wk wks
month: months
year: years yr yrs
mm: millimeter millimeters millimetre millimetres
cm: centimeter centimeters centimetre centimetres cms
dm: decimeter decimeters decimetre decimetres
m: meter meters metre metres
km: kilometer kilometers kilometre kilometres kms
inch: in inches ins
foot: ft feet
yard: yd yards yds
mile: mi miles
ml: milliliter milliliters millilitre millilitres
l: liter liters litre litres
gallon: gal gallons gals
cup: cups
pint: pints pt
quart: quarts qt
mg: milligram milligrams
g: gram grams gm
kg: kilogram kilograms kilo kilos kgs
lb: lbs
ounce: oz ounces
ton: tons
tonne: tonnes
mph:
kph: kmh kmph
"""
_NAMES = {
    word: canonical
    for line in _SYNONYMS.strip().splitlines()
    for canonical, _, words in [line.partition(":")]
    for word in (canonical, *words.split())
}
_RATES = {"mph": ("mile", "/h"), "kph": ("km", "/h")}
_SYMBOLS = frozenset("mgslhLJNWVKCF")  # units of one letter; any other letter is a variable
_POWERS = {"^2": 2, "^3": 3, "squared": 2, "cubed": 3}
_BEFORE = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_FILLERS = {  # words that do not name what is counted
    "the", "of", "in", "on", "at", "for", "all", "total", "altogether", "left", "more",
    "exactly", "only", "and", "his", "her", "their", "its", "with", "from", "by", "remaining",
    "away", "long", "tall", "wide", "old",
}  # fmt: skip
_TOKEN = re.compile(
    r"°\s?[CcFf](?![a-zA-Z])|US\$|[%°$£€¥₹¢]|/|\^?[23](?![0-9])|[^\W\d_]+(?:'[a-z]+)?"
)
CURRENCIES = {
    "$": "dollars",
    "US$": "dollars",
    "USD": "dollars",
    "EUR": "euros",
    "GBP": "GBP",
    "INR": "rupees",
    "RS": "rupees",
    "£": "GBP",
    "€": "euros",
    "¥": "yen",
    "₹": "rupees",
}
"""The unit that each sign or code of a currency before a number stands for."""


@lru_cache(maxsize=4096)
def units_of(phrase: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the normalized units (`cm^2`, `/h`) of a phrase, and its other words."""
    units: list[str] = []
    words: set[str] = set()
    power, is_below = 1, False
    tokens = _TOKEN.findall(phrase.replace("^{", "^"))
    for token, after in zip(tokens, [*tokens[1:], ""], strict=True):
        low = token.lower().replace(" ", "") if len(token) > 1 else token
        exponent = _POWERS.get(low if low[0] == "^" or not low.isdigit() else f"^{low}")
        if low in ("/", "per", "a", "an", "each", "every"):
            is_below = True
        elif low == "in" and after[:1].isalpha():
            is_below = False  # `in total` has no inches
        elif low in _BEFORE:
            power = _BEFORE[low]
        elif exponent:
            if units:
                units[-1] += f"^{exponent}"
        elif low in ("c", "f", "C", "F", "celsius", "fahrenheit", "centigrade"):
            if units and units[-1] == "deg":
                units.pop()
            units.append("celsius" if low[0] in "cC" else "fahrenheit")
        elif (name := _name(low)) is not None:
            parts = _RATES.get(name, (f"{'/' * is_below}{name}{f'^{power}' * (power > 1)}",))
            units.extend(parts)
            power, is_below = 1, False
        elif low not in _FILLERS:
            words.add(_singular(low))
            is_below = False
    return frozenset(units), frozenset(words)


def is_unit(word: str) -> bool:
    """Return whether a word is a unit of measurement."""
    low = word if len(word) == 1 else word.lower()
    return low in _BEFORE or _name(low) is not None


def _name(word: str) -> str | None:
    if word in ("in", "pounds", "pound") or len(word) == 1:
        return {"in": "inch", "pounds": "pound", "pound": "pound", "L": "l", "K": "kelvin"}.get(
            word, _NAMES.get(word, word if word in _SYMBOLS else None)
        )
    return _NAMES.get(word)


def are_compatible(a: str, b: str) -> bool:
    """Return whether two phrases after equal numbers can mean the same quantity.

    They can if one is empty, or if they name the same units and no different things. `pounds` may
    be the currency or the weight.
    """
    if not a.strip() or not b.strip() or a == b:
        return True
    (units_a, words_a), (units_b, words_b) = units_of(a), units_of(b)
    if units_a and units_b:
        return units_a == units_b or _are_pounds(units_a, units_b)
    if not units_a and not units_b:
        return words_a <= words_b or words_b <= words_a
    return not (words_a if units_b else words_b)  # a measure is not a number of `apples`


def _are_pounds(a: frozenset[str], b: frozenset[str]) -> bool:
    one, other = a - b, b - a
    return {*one, *other} in ({"pound", "lb"}, {"pound", "gbp"}) and len(one) == len(other) == 1


def _singular(word: str) -> str:
    return re.sub("(?<=[sxh])es$|(?<=[a-z][a-rt-z])s$", "", word.lower())
