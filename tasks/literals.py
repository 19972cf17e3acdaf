"""Checks that a text is data: a literal of Python, or arithmetic of bounded size.

Scorers of other packages evaluate some answers as Python, or by SymPy, which does the same. They
get only texts that pass these checks. A check parses the text, never evaluates it, and accepts
only the syntax listed here.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Callable, Collection

_LONGEST_LITERAL = 20_000  # characters
_LONGEST_ARITHMETIC = 2_000  # characters
_DEEPEST = 60  # levels of nested nodes
_LARGEST_EXPONENT = 200
_MOST_DIGITS = 1_000  # of a number and of each intermediate result
_ARITHMETIC = re.compile(r"[0-9A-Za-z_+\-*/%(). \t]*")
_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_UNARY = (ast.UAdd, ast.USub)


class _NotData(Exception):
    """The text is not data of the kind asked for."""


def is_literal(text: str) -> bool:
    """Return whether `text` is a number, string, True, False, None, or a list or tuple of these."""
    return len(text) <= _LONGEST_LITERAL and _holds(text, _check_literal)


def is_arithmetic(
    text: str, *, names: Collection[str] = (), functions: Collection[str] = ()
) -> bool:
    """Return whether `text` is arithmetic whose value takes little time and memory to compute.

    Allowed are `+ - * / // % **`, brackets, numbers, and the given names and functions. An estimate
    bounds the digits of every number and intermediate result to 1,000, and exponents to 200. A name
    counts as one digit, since scorers do not compute the value of an expression with names.

    Args:
        text: the expression, at most 2,000 characters.
        names: the variables allowed.
        functions: the functions allowed, of one argument.
    """
    if len(text) > _LONGEST_ARITHMETIC or not _ARITHMETIC.fullmatch(text):
        return False

    def check(node: ast.expr) -> None:
        _digits(node, frozenset(names), frozenset(functions), 0)

    return _holds(text, check)


def _holds(text: str, check: Callable[[ast.expr], None]) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of an unknown escape such as "\d"
            tree = ast.parse(text.strip(" \t"), mode="eval")
        check(tree.body)
    except (_NotData, SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


def _check_literal(node: ast.expr, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise _NotData
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            pass
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float())):
            pass
        case ast.List(elts=items) | ast.Tuple(elts=items):
            for item in items:
                _check_literal(item, depth + 1)
        case _:
            raise _NotData


def _digits(
    node: ast.expr, names: Collection[str], functions: Collection[str], depth: int
) -> float:
    """Return a bound of the digits of the value's numerator and denominator together.

    Raises:
        _NotData: the node is not allowed, or the bound is too large.
    """

    def of(inner: ast.expr) -> float:
        return _digits(inner, names, functions, depth + 1)

    if depth > _DEEPEST:
        raise _NotData
    match node:
        case ast.Constant(value=bool()):
            raise _NotData
        case ast.Constant(value=int() as value):
            digits = 1 + math.log10(max(1, abs(value)))
        case ast.Constant(value=float() as value) if math.isfinite(value):
            digits = 17 + abs(math.log10(abs(value))) if value else 1.0
        case ast.UnaryOp(op=op, operand=operand) if isinstance(op, _UNARY):
            digits = of(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, exponent = of(left), _largest(right, names, functions)
            if exponent > _LARGEST_EXPONENT:
                raise _NotData
            digits = max(base * max(1.0, exponent), of(right))
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _BINARY):
            digits = of(left) + of(right) + 1
        case ast.Name(id=name) if name in names:
            digits = 1.0
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in functions:
            digits = of(argument)
        case _:
            raise _NotData
    if digits > _MOST_DIGITS:
        raise _NotData
    return digits


def _largest(node: ast.expr, names: Collection[str], functions: Collection[str]) -> float:
    """Return a bound of the absolute value of an exponent; 1 for a name or function."""

    def of(inner: ast.expr) -> float:
        return _largest(inner, names, functions)

    match node:
        case ast.Constant(value=int() | float() as value):
            return float(abs(value))
        case ast.UnaryOp(operand=operand):
            return of(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            power = of(right)
            return of(left) ** power if power <= _LARGEST_EXPONENT else math.inf
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            return of(left) + of(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return of(left) * of(right)
        case ast.BinOp(left=left, op=ast.Div() | ast.FloorDiv(), right=right):
            return of(left) * _largest_inverse(right)
        case ast.BinOp(op=ast.Mod(), right=right):
            return of(right)
    return 1.0


def _largest_inverse(node: ast.expr) -> float:
    """Return a bound of 1 / value for a divisor that is a number; infinity for other nodes."""
    match node:
        case ast.Constant(value=int() | float() as value) if value:
            return 1 / abs(value)
        case ast.UnaryOp(operand=operand):
            return _largest_inverse(operand)
    return math.inf
