"""Guesses that a sequence goes on as the same tokens did before: prompt lookup among siblings.

The last tokens of a sequence are looked up in its own text and its sibling samples', then in what
all others have generated (after Saxena's prompt lookup decoding, 2023, and LLMA, arXiv 2304.04487
section 3). Knows no model, and of tokens only whether they are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from weakref import WeakKeyDictionary

from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime.sequence import Draw, GenerateTicket

_MAX_SHARED = 1 << 16  # n-grams remembered of all sequences' generated text


class NgramDrafter:
    """Drafts what followed the last occurrence of a sequence's last tokens.

    Args:
        num_tokens: guesses in one continuation at most. Fewer, where the last were wrong.
        longest: tokens to match at most; longer matches are taken first.
        shortest: tokens to match at least.
        branches: continuations of one sequence, from different matches.

    Raises:
        ValueError: a number is below 1, or `shortest` above `longest`.
    """

    def __init__(
        self, num_tokens: int = 8, longest: int = 4, shortest: int = 2, branches: int = 1
    ) -> None:
        numbers = {"num_tokens": num_tokens, "shortest": shortest, "branches": branches}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"engine.speculative.{name}={value} must be at least 1")
        if longest < shortest:
            raise ValueError(
                f"engine.speculative.longest={longest} must be at least shortest={shortest}"
            )
        self.num_tokens = num_tokens
        self.longest = longest
        self.shortest = shortest
        self.branches = branches
        self._sizes = range(longest, shortest - 1, -1)
        self._own: WeakKeyDictionary[GenerateTicket, _Index] = WeakKeyDictionary()
        self._read: WeakKeyDictionary[Draw, _Text] = WeakKeyDictionary()
        self._shared = _Index(self._sizes)

    def check(self, model: Model) -> None:
        """Any model will do."""

    def propose(self, draws: Sequence[Draw], limits: Sequence[int]) -> list[list[list[int]]]:
        for draw in draws:
            self._read_on(draw)
        return [self._continuations(draw, limit) for draw, limit in zip(draws, limits, strict=True)]

    def close(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._own.clear()
        self._read.clear()
        self._shared = _Index(self._sizes)

    def _read_on(self, draw: Draw) -> None:
        """Take in what is new of a sequence, and its prompt if no sibling's was."""
        prompt = draw.ticket.prompt
        if draw.ticket not in self._own:
            self._own[draw.ticket] = _Index(self._sizes)
            self._own[draw.ticket].add(prompt, 0)
        if draw not in self._read:
            self._read[draw] = _Text(list(prompt), self.num_tokens)
        read = self._read[draw]
        begin = len(read.tokens)
        read.tokens += draw.generated[begin - len(prompt) :]
        num_new = len(read.tokens) - begin  # what was accepted, and the token drawn after it
        if read.is_guessed and num_new:
            read.num_guesses = min(self.num_tokens, 2 * num_new - 1)
        self._own[draw.ticket].add(read.tokens, begin)
        self._shared.add(read.tokens, begin)
        if len(self._shared) > _MAX_SHARED:
            self._shared.forget(_MAX_SHARED // 2)

    def _continuations(self, draw: Draw, limit: int) -> list[list[int]]:
        read, prompt = self._read[draw], draw.ticket.prompt
        text, count = read.tokens, min(limit, read.num_guesses)
        found: list[list[int]] = []
        read.is_guessed = False
        for index in (self._own[draw.ticket], self._shared):
            for size in self._sizes:
                if count == 0 or len(found) == self.branches:
                    return found
                match = index.find(text, size)
                if match is None:
                    continue
                source, at = match
                if source is text or source is prompt:
                    # What repeats itself up to here goes on so: as in LZ77, a match may run into
                    # what it produces.
                    tokens = list(islice(cycle(text[at : at + count]), count))
                else:
                    tokens = list(source[at : at + count])
                if tokens not in found:
                    found.append(tokens)
                    read.is_guessed = True
        return found


@dataclass(slots=True)
class _Text:
    """A sequence as far as it was read."""

    tokens: list[int]  # prompt included
    num_guesses: int  # next time: twice what was accepted last, and one
    is_guessed: bool = False  # what comes next, when last asked


class _Index:
    """Where in which text each n-gram was last followed by a token."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._follower: dict[tuple[int, ...], tuple[Sequence[int], int]] = {}

    def add(self, text: Sequence[int], begin: int) -> None:
        """Take in the tokens of a text from `begin` on, each as what follows those before it."""
        for at in range(begin, len(text)):
            for size in self._sizes:
                if at >= size:
                    self._follower[tuple(text[at - size : at])] = text, at

    def find(self, text: Sequence[int], size: int) -> tuple[Sequence[int], int] | None:
        """A text and the place in it after the last `size` tokens of `text`; None if unknown."""
        return self._follower.get(tuple(text[-size:]))

    def __len__(self) -> int:
        return len(self._follower)

    def forget(self, count: int) -> None:
        """Drop `count` n-grams, those first seen first."""
        for key in list(islice(self._follower, count)):
            del self._follower[key]
