"""Guesses by a smaller model of the same vocabulary, on a tree engine of its own.

The sequences to draft are prompts to that engine. What it has computed of a sequence before, and
what siblings share, lies in its tree cache, and guesses that turned out wrong are evicted from
there in time; so nothing is kept a sequence here. Knows nothing of how guesses are verified.
"""

from __future__ import annotations

from collections.abc import Sequence

from treeshare.llm_backend.cache.tree_cache import CacheNode, TreeCache
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.runtime.sequence import Draw


class ModelDrafter:
    """Drafts what a smaller model draws, with the uniform numbers that the larger will use: the
    more alike their distributions, the oftener the two draw the same token.

    Args:
        model: the smaller one.
        num_tokens: guesses for one sequence.
        kv_tokens: size of its KV pool. What does not fit into it, or into its context, is decoded
            without guesses.
        max_num_seqs: sequences in one of its forwards.
        max_num_batched_tokens: tokens in one of its forwards.

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(
        self,
        model: Model,
        num_tokens: int = 4,
        kv_tokens: int = 16384,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 1024,
    ) -> None:
        if num_tokens < 1:
            raise ValueError(f"engine.speculative.num_tokens={num_tokens} must be at least 1")
        self.num_tokens = num_tokens
        self.engine = TreeEngine(model, kv_tokens, max_num_seqs, max_num_batched_tokens)
        self._longest = min(model.context_length, kv_tokens)  # tokens

    def check(self, model: Model) -> None:
        smaller = self.engine.model
        differing = {token for token, _ in smaller.vocabulary.items() ^ model.vocabulary.items()}
        if differing:
            raise ValueError(
                "engine.speculative.model must have the model's vocabulary: "
                f"{len(differing)} tokens differ, such as {min(differing)!r}"
            )
        if smaller.vocabulary_size > model.vocabulary_size:
            raise ValueError(
                f"engine.speculative.model has {smaller.vocabulary_size} token ids, the model only "
                f"{model.vocabulary_size}"
            )

    def propose(self, draws: Sequence[Draw], limits: Sequence[int]) -> list[list[list[int]]]:
        drafted: list[_Drafted | None] = []
        for draw, limit in zip(draws, limits, strict=True):
            num_before = len(draw.ticket.prompt) + len(draw.generated)
            count = min(limit, self.num_tokens, self._longest - num_before)
            drafted.append(_Drafted(draw, count) if count > 0 else None)
        self.engine.run_jobs([job for job in drafted if job is not None])
        return [[] if job is None else [job.guesses] for job in drafted]

    def forget(self) -> None:
        self.engine.forget()

    def close(self) -> None:
        self.engine.close()


class _Drafted(Draw):
    """A sequence that another engine is decoding, some tokens further."""

    def __init__(self, draw: Draw, count: int) -> None:
        super().__init__(draw.ticket, draw.sample)
        *prefix, self._last = *draw.ticket.prompt, *draw.generated
        self.prefix = tuple(prefix)
        self.capacity = count
        self.generated = list(draw.generated)  # so that the steps, and the uniforms, go on
        self.guesses: list[int] = []
        self._is_done = False

    def start(self, cache: TreeCache, node: CacheNode) -> None:
        self.leaf = cache.fork(node, self.capacity)
        cache.append(self.leaf, self._last)

    def accept(self, token: int, logprob: float, cache: TreeCache, model: Model) -> None:
        """An end token is no guess: nothing is computed after one."""
        if token in model.end_tokens:
            self._is_done = True
            return
        self.generated.append(token)
        self.guesses.append(token)
        self._is_done = len(self.guesses) == self.capacity
        if not self._is_done:
            cache.append(self.leaf, token)

    @property
    def is_done(self) -> bool:
        return self._is_done

    def end(self) -> None:
        """What was guessed is all that is wanted."""

    def charge(self, count: int) -> None:
        """Requests are charged what their own model computes."""
