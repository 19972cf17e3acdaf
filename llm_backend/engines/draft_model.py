"""Drafts of a smaller model of the same vocabulary, on a tree engine of its own.

The sequences to draft for are prompts to that engine. What it has computed of a sequence before,
and what siblings share, lies in its tree cache, and wrong guesses are evicted from there in time;
so no state is kept for a sequence here.
"""

from __future__ import annotations

from collections import abc

from treeshare.llm_backend.api import whole_number
from treeshare.llm_backend.cache.tree_cache import CacheNode, TreeCache
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime.sequence import Sequence

from .tree import TreeEngine


class ModelDrafter:
    """Drafts what a smaller model draws, with the random numbers that the larger one will use.

    The more alike the two distributions are, the more often both models draw the same token.

    Args:
        model: the smaller one.
        num_tokens: guesses for one sequence.
        kv_tokens: size of its KV pool, or `auto`. A sequence that does not fit into it, or into the
            smaller model's context, is decoded without guesses.
        max_num_seqs: sequences in one of its forwards, or `auto`.
        max_num_batched_tokens: tokens in one of its forwards, or `auto`.
        memory: the share of a GPU's free memory that is used if `kv_tokens` is `auto`. The larger
            model and its pool need the rest.

    Attributes:
        engine: the engine that the smaller model runs on.

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(
        self,
        model: Model,
        num_tokens: int = 4,
        kv_tokens: int | str = 16384,
        max_num_seqs: int | str = 256,
        max_num_batched_tokens: int | str = 1024,
        memory: float = 0.1,
    ) -> None:
        self.num_tokens = whole_number("engine.speculative.num_tokens", num_tokens)
        self.engine = TreeEngine(
            model, kv_tokens, max_num_seqs, max_num_batched_tokens, memory=memory
        )
        self._longest = min(model.network.context_length, self.engine.limits.kv_tokens)  # tokens

    def check(self, model: Model) -> None:
        """Check that the two models share their vocabulary; see `Drafter.check`."""
        smaller = self.engine.model
        ours, theirs = smaller.tokenizer.vocabulary, model.tokenizer.vocabulary
        differing = {token for token, _ in ours.items() ^ theirs.items()}
        if differing:
            raise ValueError(
                "engine.speculative.model must have the model's vocabulary: "
                f"{len(differing)} tokens differ, such as {min(differing)!r}"
            )
        if smaller.network.vocabulary_size > model.network.vocabulary_size:
            raise ValueError(
                f"engine.speculative.model has {smaller.network.vocabulary_size} token ids, the "
                f"model only {model.network.vocabulary_size}"
            )

    def propose(
        self, sequences: abc.Sequence[Sequence], limits: abc.Sequence[int]
    ) -> list[list[list[int]]]:
        """Draft one continuation for each sequence that fits; see `Drafter.propose`."""
        cache, ends = self.engine.cache, self.engine.model.network.end_tokens
        drafted: list[_DraftedSequence | None] = []
        for sequence, limit in zip(sequences, limits, strict=True):
            num_before = len(sequence.group.prompt) + len(sequence.generated)
            count = min(limit, self.num_tokens, self._longest - num_before)
            fits = count > 0
            drafted.append(_DraftedSequence(sequence, count, cache, ends) if fits else None)
        self.engine.run_sequences([job for job in drafted if job is not None])
        return [[] if job is None else [job.guesses] for job in drafted]

    def reset(self) -> None:
        """Drop the stored prefixes of the smaller model's engine."""
        self.engine.reset_cache()

    def close(self) -> None:
        """Close the smaller model's engine."""
        self.engine.close()


class _DraftedSequence(Sequence):
    """A sequence of another engine, decoded some tokens further by the smaller model."""

    def __init__(
        self, sequence: Sequence, count: int, cache: TreeCache, end_tokens: frozenset[int]
    ) -> None:
        super().__init__(sequence.group, sequence.sample_index)
        self._cache = cache
        self._end_tokens = end_tokens
        *prefix, self._last = *sequence.group.prompt, *sequence.generated
        self.prefix = tuple(prefix)
        self.capacity = count
        self.generated = list(sequence.generated)  # so that the random numbers go on
        self.guesses: list[int] = []
        self._is_done = False

    def start(self, node: CacheNode) -> None:
        self.leaf = self._cache.fork(node, self.capacity)
        self._cache.append(self.leaf, self._last)

    def accept(self, token: int, logprob: float) -> None:
        """Append a guess; an end token is none, because nothing is computed after one."""
        if token in self._end_tokens:
            self._is_done = True
            return
        self.generated.append(token)
        self.guesses.append(token)
        self._is_done = len(self.guesses) == self.capacity
        if not self._is_done:
            self._cache.append(self.leaf, token)

    @property
    def is_done(self) -> bool:
        return self._is_done

    def end(self) -> None:
        """Return no reply: the guesses are read off the sequence."""

    def charge(self, count: int) -> None:
        """Charge nothing: a request's usage counts what its own model computes."""
