"""Speculative decoding on the tree: guesses below a sequence's last token, verified in one forward.

A drafter guesses how a sequence goes on. The guesses hang below its leaf as a small tree, and one
forward computes the last token and all of them. After each the model's next token is drawn with the
uniform number that plain decoding would use there, and a guess is accepted if it is that token.
So a guess is accepted with the model's probability of it, and the token after the last accepted
guess is drawn from the model, given that it is not the rejected one: the rule of Leviathan et al.
(arXiv 2211.17192 section 2.3) and Chen et al. (2302.01318) for a draft of probability one. Moreover
the tokens are those of plain decoding, at any temperature.
"""

from __future__ import annotations

from collections import Counter, abc
from typing import Protocol

from treeshare.llm_backend.cache.tree_cache import Leaf
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime.sequence import Sequence


class Drafter(Protocol):
    """Guesses how sequences go on. A wrong guess costs time and never changes a token."""

    def check(self, model: Model) -> None:
        """Check that the drafter can guess for a model; called once with the one that verifies.

        Raises:
            ValueError: it cannot.
        """
        ...

    def propose(
        self, sequences: abc.Sequence[Sequence], limits: abc.Sequence[int]
    ) -> abc.Sequence[list[list[int]]]:
        """Guess continuations.

        Args:
            sequences: those for which a token will be drawn.
            limits: for each, how many tokens of all its continuations together can be used.

        Returns:
            For each sequence any number of continuations (token ids), the likeliest first.
        """
        ...

    def reset(self) -> None:
        """Drop what was read of all sequences, none of which goes on."""
        ...

    def close(self) -> None:
        """Free memory; the drafter cannot be used afterwards."""
        ...


class Draft:
    """A sequence, and the guesses at its next tokens that one forward verifies.

    Without guesses the forward is plain decoding. The guesses take the slots that the sequence's
    leaf has reserved for later tokens, so they cost no memory, and the tree cache does not need to
    know them.

    Args:
        sequence: its leaf's last token is the only one not computed.
        continuations: token ids; those with a common start share it.
        limit: guesses taken at most, from the first continuation on.

    Attributes:
        runs: leaves below the sequence's, each a chain of guesses.
        depths: for each row its distance from the sequence's next token. Rows are the leaf's last
            token, then the guesses, parents first.
        places: for each row, its leaf and offset there.
        num_accepted: guesses that were right.
    """

    def __init__(
        self, sequence: Sequence, continuations: abc.Sequence[abc.Sequence[int]], limit: int
    ) -> None:
        leaf = sequence.leaf
        self.sequence = sequence
        self.num_accepted = 0
        self.runs: list[Leaf] = []
        self.depths = [0]
        self._first_slot = len(leaf.tokens)  # of the guesses, in the leaf's slots
        self._below: dict[tuple[int, int], int] = {}  # (row, token) -> row of that guess
        self.places: list[tuple[Leaf, int]] = [(leaf, self._first_slot - 1)]
        limit = min(limit, len(leaf.slots) - self._first_slot)
        for tokens in continuations:
            at = 0
            for token in tokens:
                if (at, token) not in self._below:
                    if len(self._below) == limit:
                        break
                    self._below[at, token] = len(self.depths)
                    self.depths.append(self.depths[at] + 1)
                at = self._below[at, token]
        if self._below:
            self._make_leaves()

    @property
    def num_guesses(self) -> int:
        """Number of guesses."""
        return len(self._below)

    def accept(self, tokens: abc.Sequence[int], logprobs: abc.Sequence[float]) -> None:
        """Append the token drawn after the leaf's last one, and those drawn after right guesses.

        It ends at the first wrong guess, or when the sequence is done.

        Args:
            tokens: the token drawn at each row.
            logprobs: the log-probability of each, nats.
        """
        row: int | None = 0
        while row is not None:
            token = tokens[row]
            self.sequence.accept(token, logprobs[row])
            row = None if self.sequence.is_done else self._below.get((row, token))
            if row is not None:
                self._adopt(row)

    def _make_leaves(self) -> None:
        """Make `runs`: a guess without siblings joins the leaf of the guess above it.

        A guess directly below the sequence's own leaf always begins a leaf.
        """
        num_below = Counter(parent for parent, _ in self._below)
        for parent, token in self._below:
            leaf, offset = self.places[parent]
            if parent == 0 or num_below[parent] > 1:
                leaf, offset = Leaf(leaf, leaf.slots[:0]), -1
                self.runs.append(leaf)
            leaf.tokens.append(token)
            self.places.append((leaf, offset + 1))
        slots: dict[Leaf, list[int]] = {leaf: [] for leaf in self.runs}
        for row, (leaf, _) in enumerate(self.places[1:]):
            slots[leaf].append(self._first_slot + row)
        for leaf, indices in slots.items():
            leaf.slots = self.sequence.leaf.slots[indices]

    def _adopt(self, row: int) -> None:
        """Mark an accepted guess as computed, and move its slot to its place in the leaf.

        Rows grow along a path, and a row's number is at least its depth, so an earlier swap has
        never moved a later guess of the path.
        """
        leaf = self.sequence.leaf
        here, there = len(leaf.tokens) - 1, self._first_slot + row - 1
        leaf.slots[[here, there]] = leaf.slots[[there, here]]
        leaf.num_computed += 1
        self.sequence.charge(1)
        self.num_accepted += 1


def make_drafts(
    drafter: Drafter | None, sequences: abc.Sequence[Sequence], room: int
) -> list[Draft]:
    """Draft for the sequences of a forward.

    Args:
        drafter: guesses their next tokens; None guesses nothing.
        sequences: the oldest first; the room is given to them in this order.
        room: tokens that the forward can still take.

    Returns:
        A draft for each sequence.
    """
    limits = [min(room, len(each.leaf.slots) - len(each.leaf.tokens)) for each in sequences]
    continuations: abc.Sequence[list[list[int]]] = [[] for _ in sequences]
    if drafter is not None and any(limits):
        continuations = drafter.propose(sequences, limits)
    drafts = []
    for sequence, guesses in zip(sequences, continuations, strict=True):
        drafts.append(Draft(sequence, guesses, room))
        room -= drafts[-1].num_guesses
    return drafts
