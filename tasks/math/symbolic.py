r"""Equality of expressions by math-verify (https://github.com/huggingface/Math-Verify), made exact.

math-verify handles algebra, roots and trigonometry, but it rounds numbers before it compares them,
and then `1/2^{98}` equals `1/2^{99}`. Pairs that it finds equal are therefore checked again with
sympy: the difference of two numbers must be zero to sixty digits of the larger one.
"""

from __future__ import annotations

import re
from typing import Any

_DIGITS = 60


def is_equal(answer: str, gold: str) -> bool:
    r"""Return whether two expressions in LaTeX are equal by math-verify and to sixty digits.

    They must not have decimal points. An expression such as `9^{9^9}` may take seconds and much
    memory.

    Raises:
        ImportError: math-verify is not installed.
    """
    import math_verify

    right, given = (math_verify.parse(rf"\boxed{{{text}}}") for text in (gold, answer))
    if not right or not given or not math_verify.verify(right, given, strict=True):
        return False
    if not (_is_whole(gold, right[0]) and _is_whole(answer, given[0])):
        return False
    return any(_are_exact(a, b) for a in right for b in given)


def _is_whole(text: str, expression: Any) -> bool:
    """Return whether math-verify read all variables of a text; it reads `3c` as 3."""
    variables = set(re.findall("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+|sin|cos|tan|log|ln", "", text)))
    names = {str(symbol) for symbol in getattr(expression, "free_symbols", ())}
    return variables - {"e", "i"} <= names


def _are_exact(a: Any, b: Any) -> bool:
    import sympy  # type: ignore[import-untyped]

    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, str) and isinstance(b, str) and _bare(a) == _bare(b)
    if isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr):
        return _is_zero(a - b, a, b)
    if isinstance(a, sympy.Equality) and isinstance(b, sympy.Equality):
        left, right = a.lhs - a.rhs, b.lhs - b.rhs
        if _is_zero(right, right, right) or _is_zero(left, left, left):
            return bool(a == b)
        ratio = sympy.simplify(left / right)
        return bool(ratio.is_number and ratio.is_finite and ratio != 0)
    return bool(a == b)


def _is_zero(difference: Any, a: Any, b: Any) -> bool:
    import sympy

    if not difference.free_symbols:
        larger = max(abs(sympy.N(x, _DIGITS)) for x in (a, b))
        return bool(
            abs(sympy.N(difference, _DIGITS, chop=False))
            <= larger * sympy.Float(10) ** (10 - _DIGITS)
        )
    if not difference.has(sympy.Float):
        simple = sympy.simplify(difference)
        if simple == 0:
            return True
        if not simple.free_symbols:
            return _is_zero(simple, a.subs(dict.fromkeys(a.free_symbols, 1)), sympy.Integer(1))
        return bool(simple.equals(0))
    return False


def _bare(text: str) -> str:
    return re.sub(r"\s+", "", text)
