"""Speculative decoding on the tree: guesses below a sequence's last token, verified in one forward.

A drafter guesses how a sequence goes on. The guesses hang below its leaf as a small tree, and one
forward computes the last token and all of them. At each the model's next token is drawn with the
uniform number that plain decoding would use there, and a guess is accepted if it is that token.
A guess is thus accepted with the model's probability of it, and what follows the first one that is
not is drawn from the model given that it is another: the rule of Leviathan et al. (arXiv
2211.17192 section 2.3) and Chen et al. (2302.01318) for a guess that is certain of itself. On top
of it the tokens are those of plain decoding, at any temperature. Knows no drafter and no forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from treeshare.llm_backend.cache.tree_cache import Leaf, TreeCache
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime.sequence import Draw


class Drafter(Protocol):
    """Guesses how sequences go on. A wrong guess costs time and never changes a token."""

    def check(self, model: Model) -> None:
        """Called once with the model that verifies.

        Raises:
            ValueError: the drafter cannot guess for it.
        """
        ...

    def propose(self, draws: Sequence[Draw], limits: Sequence[int]) -> Sequence[list[list[int]]]:
        """For each sequence any number of continuations (token ids), the likeliest first. More
        than its limit of tokens, of all its continuations together, are of no use."""
        ...

    def forget(self) -> None:
        """Drop what was read of all sequences, none of which goes on."""
        ...

    def close(self) -> None:
        """Give memory back; the drafter is of no use then."""
        ...


class Draft:
    """A sequence and the guesses at its next tokens that one forward verifies; none is plain
    decoding.

    The guesses take the slots that the sequence's leaf has reserved for tokens to come, so they
    cost no memory, and the tree cache need not know of them.

    Args:
        job: its leaf's last token is the only one not computed.
        continuations: token ids; those with a common start share it.
        limit: guesses taken at most, from the first continuation on.
    """

    def __init__(self, job: Draw, continuations: Sequence[Sequence[int]], limit: int) -> None:
        self.job = job
        self.num_accepted = 0
        self.runs: list[Leaf] = []  # leaves below the job's, each a chain of guesses
        self.depths = [0]  # by row: the leaf's last token, then the guesses, parents first
        self._first_slot = len(job.leaf.tokens)  # of the guesses, in the leaf's slots
        self._below: dict[tuple[int, int], int] = {}  # (row, token) -> row of that guess
        self.places: list[tuple[Leaf, int]] = [(job.leaf, self._first_slot - 1)]  # offset in leaf
        limit = min(limit, len(job.leaf.slots) - self._first_slot)
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
            self._hang()

    @property
    def num_guesses(self) -> int:
        return len(self._below)

    def accept(
        self, tokens: Sequence[int], logprobs: Sequence[float], cache: TreeCache, model: Model
    ) -> None:
        """Take the token drawn after the leaf's last one, and those drawn after guesses that were
        right, until one was not or the sequence ends.

        Args:
            tokens: the token drawn at each row.
            logprobs: the log-probability of each, nats.
        """
        row: int | None = 0
        while row is not None:
            token = tokens[row]
            self.job.accept(token, logprobs[row], cache, model)
            row = None if self.job.is_done else self._below.get((row, token))
            if row is not None:
                self._adopt(row)

    def _hang(self) -> None:
        """Make the leaves: an only guess joins that above it; at the top every guess begins one."""
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
            leaf.slots = self.job.leaf.slots[indices]

    def _adopt(self, row: int) -> None:
        """The guess is the leaf's last token: its KV is computed, in a slot that changes places.

        Rows grow along a path, and a row is no less than its depth: no later guess of the path has
        been moved by an earlier one.
        """
        leaf = self.job.leaf
        here, there = len(leaf.tokens) - 1, self._first_slot + row - 1
        leaf.slots[[here, there]] = leaf.slots[[there, here]]
        leaf.num_computed += 1
        self.job.charge(1)
        self.num_accepted += 1


def make_drafts(drafter: Drafter | None, draws: Sequence[Draw], room: int) -> list[Draft]:
    """The sequences of a step, each with what the drafter guesses of it.

    Args:
        draws: the oldest first; the room goes to them in this order.
        room: tokens that the step can still take.
    """
    limits = [min(room, len(job.leaf.slots) - len(job.leaf.tokens)) for job in draws]
    continuations: Sequence[list[list[int]]] = [[] for _ in draws]
    if drafter is not None and any(limits):
        continuations = drafter.propose(draws, limits)
    drafts = []
    for job, guesses in zip(draws, continuations, strict=True):
        drafts.append(Draft(job, guesses, room))
        room -= drafts[-1].num_guesses
    return drafts
