"""A data set of reasoning-gym and its scorer, which run in a process of `treeshare.tasks.sandbox`.

The parent must not import this module: scorers of the package evaluate replies, and one data set
runs programs that come with it.
"""

from __future__ import annotations

import math
import os
import random
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import reasoning_gym

from treeshare.tasks.literals import is_arithmetic, is_literal

_FUNCTIONS = (
    *("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
    *("exp", "log", "ln", "sqrt", "Abs", "erf", "erfi"),
)


def _is_literal(dataset: Any, entry: Mapping[str, Any], answer: str) -> bool:
    return is_literal(answer)


def _is_number(dataset: Any, entry: Mapping[str, Any], answer: str) -> bool:
    return is_arithmetic(answer)


def _is_polynomial(dataset: Any, entry: Mapping[str, Any], answer: str) -> bool:
    return is_arithmetic(answer, names=dataset.config.variables)


def _is_integral(dataset: Any, entry: Mapping[str, Any], answer: str) -> bool:
    names = (entry["metadata"]["variable"], "C", "E", "pi")
    return is_arithmetic(answer, names=names, functions=_FUNCTIONS)


_EVALUATED: Mapping[str, Callable[[Any, Mapping[str, Any], str], bool]] = {
    "binary_matrix": _is_literal,
    "n_queens": _is_literal,
    "spiral_matrix": _is_literal,
    "string_insertion": _is_literal,
    "countdown": _is_number,
    "puzzle24": _is_number,
    "polynomial_multiplication": _is_polynomial,
    "simple_integration": _is_integral,
    "intermediate_integration": _is_integral,
}
"""For each data set whose scorer evaluates answers, the check that an answer must pass.

Such a scorer calls `eval`, or SymPy's `parse_expr`, which calls it. The scorer sees an answer that
passes, and the entry's own answers. Any other answer gets 0 marks.
"""
_COMPILES_ITS_OWN = frozenset({"bitwise_arithmetic", "number_sorting"})
"""Data sets whose scorers evaluate a text of the entry but read the answer as a number or JSON."""

_NOT_FINITE = re.compile(r"(?<![a-z])(?:nan|inf|infinity)(?![a-z])", re.IGNORECASE)


class EvaluatedText(Exception):
    """A scorer that is not known to evaluate answers tried to compile text."""


class Marker:
    """The entries of a data set, each made when it is first needed, and the scorer.

    Args:
        name: the data set's name in reasoning-gym.
        options: the data set's own parameters.
        seed: seed of the questions.
        size: the number of questions for which the data set is made.

    Attributes:
        dataset: the data set, an object of reasoning-gym.

    Raises:
        AssertionError: the data set refuses its arguments.
        TypeError: the data set refuses its arguments.
        ValueError: the data set refuses its arguments.
    """

    def __init__(self, name: str, options: Mapping[str, Any], seed: int, size: int) -> None:
        self._seed = seed
        self._name = name
        _seed(seed)
        self.dataset: Any = reasoning_gym.create_dataset(name, seed=seed, size=size, **options)
        self._entries: dict[int, dict[str, Any]] = {}
        self._may_compile, self._has_tried = True, False
        sys.addaudithook(self._refuse_to_compile)

    def questions(self, count: int) -> list[str]:
        """Return the first `count` questions."""
        return [self.question(index) for index in range(count)]

    def question(self, index: int) -> str:
        """Return a question by its index, from 0; it does not depend on earlier calls."""
        return str(self.entry(index)["question"])

    def entry(self, index: int) -> Mapping[str, Any]:
        """Return the question with its answer and the scorer's other data."""
        if index not in self._entries:
            _seed(self._seed, index)
            self._entries[index] = self.dataset[index]
        return self._entries[index]

    def mark(self, index: int, answer: str) -> float:
        """Return the scorer's mark for an answer, in [0, 1].

        Raises:
            EvaluatedText: the scorer tried to evaluate the answer, or any other text.
            ValueError: the mark is not a finite number.
            BaseException: whatever else the scorer raises.
        """
        if not self.is_harmless(index, answer):
            return 0.0
        entry = self.entry(index)
        self._may_compile = self._name in _EVALUATED or self._name in _COMPILES_ITS_OWN
        self._has_tried = False
        try:
            mark = float(self.dataset.score_answer(answer, entry))
        finally:
            self._may_compile = True
        if self._has_tried:  # some scorers catch every exception
            raise EvaluatedText(f"the scorer of {self._name} evaluates text")
        if not math.isfinite(mark):
            raise ValueError(f"the mark is {mark}")
        return min(1.0, max(0.0, mark))

    def is_harmless(self, index: int, answer: str) -> bool:
        """Return whether the scorer may see the answer."""
        entry = self.entry(index)
        texts = (entry["answer"], *entry["metadata"].get("valid_answers", ()))
        own = [text.strip() for text in texts if isinstance(text, str)]
        if answer.strip() in own:
            return True
        # Some scorers find NaN closer to the right number than any number.
        if _NOT_FINITE.search(answer) and not any(map(_NOT_FINITE.search, own)):
            return False
        check = _EVALUATED.get(self._name)
        return check is None or check(self.dataset, entry, answer)

    def _refuse_to_compile(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Refuse to compile text, as an audit hook; files of imported modules may be compiled."""
        is_text = event == "compile" and not os.path.isabs(os.fsdecode(arguments[1] or ""))
        if not self._may_compile and (is_text or event == "code.__new__"):
            self._has_tried = True
            raise EvaluatedText(f"the scorer of {self._name} evaluates text")


def _seed(*parts: int) -> None:
    """Seed the process's random generators, from which a few data sets draw."""
    text = repr(parts)
    random.seed(text)
    np.random.seed(zlib.crc32(text.encode()))
