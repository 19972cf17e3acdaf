"""Drafts by prompt lookup: a sequence goes on as the same tokens did before.

The last tokens of a sequence are looked up in its own text and in those of its sibling samples,
then in what all others have generated (after Saxena's prompt lookup decoding, 2023, and LLMA, arXiv
2304.04487 section 3).
"""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass
from itertools import cycle, islice
from weakref import WeakKeyDictionary

from treeshare.llm_backend.api import whole_number
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime.sequence import Sequence, SequenceGroup

_MAX_SHARED = 1 << 16  # n-grams remembered of all sequences' generated text


class NgramDrafter:
    """Drafts what followed the last occurrence of a sequence's last tokens.

    Args:
        num_tokens: guesses in one continuation at most; fewer after wrong ones.
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
            whole_number(f"engine.speculative.{name}", value)
        if whole_number("engine.speculative.longest", longest) < shortest:
            raise ValueError(
                f"engine.speculative.longest={longest} must be at least shortest={shortest}"
            )
        self.num_tokens = num_tokens
        self.longest = longest
        self.shortest = shortest
        self.branches = branches
        self._sizes = range(longest, shortest - 1, -1)
        self._own: WeakKeyDictionary[SequenceGroup, _Index] = WeakKeyDictionary()
        self._read: WeakKeyDictionary[Sequence, _Text] = WeakKeyDictionary()
        self._shared = _Index(self._sizes)

    @property
    def num_sequences(self) -> int:
        """Sequences that are read and live."""
        return len(self._read)

    @property
    def num_shared(self) -> int:
        """N-grams remembered of all sequences together."""
        return len(self._shared)

    def check(self, model: Model) -> None:
        """Accept any model."""

    def propose(
        self, sequences: abc.Sequence[Sequence], limits: abc.Sequence[int]
    ) -> list[list[list[int]]]:
        """Look up continuations of each sequence; see `Drafter.propose`."""
        for sequence in sequences:
            self._read_on(sequence)
        pairs = zip(sequences, limits, strict=True)
        return [self._continuations(sequence, limit) for sequence, limit in pairs]

    def close(self) -> None:
        """Free memory."""
        self.reset()

    def reset(self) -> None:
        """Drop all that was read."""
        self._own.clear()
        self._read.clear()
        self._shared = _Index(self._sizes)

    def _read_on(self, sequence: Sequence) -> None:
        """Index the new tokens of a sequence, and its prompt if no sibling's was indexed."""
        prompt = sequence.group.prompt
        if sequence.group not in self._own:
            self._own[sequence.group] = _Index(self._sizes)
            self._own[sequence.group].add(prompt, 0)
        if sequence not in self._read:
            self._read[sequence] = _Text(list(prompt), self.num_tokens)
        read = self._read[sequence]
        begin = len(read.tokens)
        read.tokens += sequence.generated[begin - len(prompt) :]
        num_new = len(read.tokens) - begin  # what was accepted, and the token drawn after it
        if read.is_guessed and num_new:
            read.num_guesses = min(self.num_tokens, 2 * num_new - 1)
        self._own[sequence.group].add(read.tokens, begin)
        self._shared.add(read.tokens, begin)
        if len(self._shared) > _MAX_SHARED:
            self._shared.drop_oldest(_MAX_SHARED // 2)

    def _continuations(self, sequence: Sequence, limit: int) -> list[list[int]]:
        read, prompt = self._read[sequence], sequence.group.prompt
        text, count = read.tokens, min(limit, read.num_guesses)
        found: list[list[int]] = []
        read.is_guessed = False
        for index in (self._own[sequence.group], self._shared):
            for size in self._sizes:
                if count == 0 or len(found) == self.branches:
                    return found
                match = index.find(text, size)
                if match is None:
                    continue
                source, at = match
                if source is text or source is prompt:
                    # A text that repeats itself up to its end is taken to go on so: as in LZ77, a
                    # match may run into what it produces.
                    tokens = list(islice(cycle(text[at : at + count]), count))
                else:
                    tokens = list(source[at : at + count])
                if tokens not in found:
                    found.append(tokens)
                    read.is_guessed = True
        return found


@dataclass(slots=True)
class _Text:
    """A sequence as far as it was read, and how many tokens to guess of it."""

    tokens: list[int]  # prompt included
    num_guesses: int  # next time: twice the number accepted last, and one
    is_guessed: bool = False  # whether anything was guessed last time


class _Index:
    """The place, and the text, where each n-gram was last followed by a token."""

    def __init__(self, sizes: abc.Sequence[int]) -> None:
        self._sizes = sizes
        self._follower: dict[tuple[int, ...], tuple[abc.Sequence[int], int]] = {}

    def add(self, text: abc.Sequence[int], begin: int) -> None:
        """Index the tokens of a text from `begin` on, each as the follower of those before it."""
        for at in range(begin, len(text)):
            for size in self._sizes:
                if at >= size:
                    self._follower[tuple(text[at - size : at])] = text, at

    def find(self, text: abc.Sequence[int], size: int) -> tuple[abc.Sequence[int], int] | None:
        """Find a text, and the place in it, that follows the last `size` tokens of `text`.

        Returns:
            None if these tokens are unknown.
        """
        return self._follower.get(tuple(text[-size:]))

    def __len__(self) -> int:
        return len(self._follower)

    def drop_oldest(self, count: int) -> None:
        """Drop `count` n-grams, those first that were seen first."""
        for key in list(islice(self._follower, count)):
            del self._follower[key]
