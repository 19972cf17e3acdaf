"""The tree engine's work under way: one job for each sampled sequence and for each scored prompt.

A job knows its tokens and its place in the tree cache; the engine decides when it runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from treeshare.llm_backend.api import (
    Completion,
    Failure,
    Generate,
    GenerateReply,
    ScoreReply,
    Usage,
)
from treeshare.llm_backend.cache.tree_cache import CacheNode, Leaf, TreeCache
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.model.tokenizer import TokenizerError

from .packing import KVNode


class NotANumber(ArithmeticError):
    """The model's logits for a request are NaN."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class GenerateTicket:
    """A Generate request under way: collects its samples."""

    number: int
    request: Generate
    prompt: tuple[int, ...]  # token ids
    prefix: tuple[int, ...] = field(init=False)  # shared: the last one is each leaf's first
    completions: dict[int, Completion] = field(default_factory=dict)  # by sample index
    num_computed: int = 0  # KV entries computed on its behalf
    error: Exception | None = None  # of one of its samples, which ends all of them
    is_answered: bool = False

    def __post_init__(self) -> None:
        self.prefix = self.prompt[:-1]

    def reply(self) -> GenerateReply | Failure | None:
        """The reply, once: when every sample is in, or one has failed."""
        if self.error is not None:
            was_answered, self.is_answered = self.is_answered, True
            return None if was_answered else Failure(self.error)
        n = self.request.n
        if len(self.completions) < n:
            return None
        ordered = tuple(self.completions[k] for k in range(n))
        num_generated = sum(completion.num_tokens for completion in ordered)
        return GenerateReply(
            ordered,
            Usage(
                prompt_tokens=len(self.prompt),
                completion_tokens=num_generated,
                logical_kv_tokens=n * len(self.prompt) + num_generated,
                unique_kv_tokens=self.num_computed,
            ),
        )


class Draw:
    """One sample of a Generate request: a leaf that grows by one token a step."""

    leaf: Leaf  # from `start` on; its lock keeps the prefix

    def __init__(self, ticket: GenerateTicket, sample: int) -> None:
        self.ticket = ticket
        self.number = ticket.number
        self.sample = sample
        self.prefix = ticket.prefix
        self.capacity = ticket.request.sampling.max_tokens
        self.generated: list[int] = []
        self.logprob = 0.0
        self.completion: Completion | None = None

    def start(self, cache: TreeCache, node: CacheNode) -> None:
        """Take a place below `node`, where the prefix ends."""
        self.leaf = cache.fork(node, self.capacity)
        cache.append(self.leaf, self.ticket.prompt[-1])

    def to_compute(self) -> Iterator[KVNode]:
        """Nodes that still need KV, parents first; the leaf, always, last."""
        yield from _uncomputed(self.leaf.anchor)
        yield self.leaf

    def accept(self, token: int, logprob: float, cache: TreeCache, model: Model) -> None:
        """Take the token drawn after the leaf's last one, or fail the request."""
        self.generated.append(token)
        self.logprob += logprob
        try:
            if math.isnan(logprob):
                raise _not_a_number(self.leaf.stop)
            self.completion = self._completed(model)
        except (TokenizerError, NotANumber) as error:
            self.ticket.error = error
        if not self.is_done:
            cache.append(self.leaf, token)

    @property
    def is_decoding(self) -> bool:
        """Whether the next token is all there is to compute, and it is not the very first."""
        leaf = self.leaf
        is_next = leaf.start + leaf.num_computed > 0 and leaf.num_computed == len(leaf.tokens) - 1
        return is_next and next(_uncomputed(leaf.anchor), None) is None

    @property
    def is_done(self) -> bool:
        return self.completion is not None or self.ticket.error is not None

    @property
    def error(self) -> Exception | None:
        return self.ticket.error

    @property
    def leaves(self) -> list[Leaf]:
        return [self.leaf]

    def end(self) -> GenerateReply | Failure | None:
        """The request's reply, if this was its last sample or one has failed."""
        if self.completion is not None:
            self.ticket.completions[self.sample] = self.completion
        return self.ticket.reply()

    def again(self) -> list[Draw]:
        """The jobs of the request, from its beginning."""
        self.ticket.error = None
        self.ticket.completions.clear()
        return [Draw(self.ticket, k) for k in range(self.ticket.request.n)]

    def charge(self, count: int) -> None:
        self.ticket.num_computed += count

    def path_lengths(self) -> list[int]:
        """Entries that each of the job's sequences would read if it shared none."""
        return [self.leaf.start + self.leaf.num_computed]

    def _completed(self, model: Model) -> Completion | None:
        """The finished text, or None while the sequence goes on."""
        sampling = self.ticket.request.sampling
        has_ended = self.generated[-1] in model.end_tokens
        is_full = len(self.generated) == sampling.max_tokens
        may_stop = bool(sampling.stop) and model.may_close(self.generated[-1], sampling.stop)
        if not (has_ended or is_full or may_stop):
            return None
        tokens = self.generated[:-1] if has_ended else self.generated
        text = model.decode(tokens)
        cuts = [at for stop in sampling.stop if (at := text.find(stop)) >= 0]
        if not (has_ended or is_full or cuts):
            return None
        if not (has_ended or cuts):
            text = model.decode(tokens, is_cut=True)
        return Completion(
            text[: min(cuts)] if cuts else text,
            len(self.generated),
            self.logprob,
            "stop" if has_ended or cuts else "length",
        )


@dataclass(slots=True)
class ScoredRun:
    """Tokens that a group of continuations share, and what is to be read off their logits."""

    parent: int | None  # index of the run above; None below the prompt
    tokens: list[int]
    targets: list[tuple[int, int, int]]  # (offset of the token, next token id, continuation)


class Scoring:
    """A Score request: the continuations as a tree of leaves, each shared start computed once.

    Args:
        number: its ticket.
        prompt: token ids after which all continuations are scored, at least one.
        continuations: token ids of each, at least one.
    """

    def __init__(
        self, number: int, prompt: tuple[int, ...], continuations: Sequence[tuple[int, ...]]
    ) -> None:
        self.number = number
        self.prompt = prompt
        self.prefix = prompt[:-1]
        self.continuations = continuations
        self.runs = _shared_runs(prompt[-1], continuations)
        self.capacity = sum(len(run.tokens) for run in self.runs)
        self.logprobs = [0.0] * len(continuations)
        self.num_computed = 0
        self.leaves: list[Leaf] = []  # one a run, from `start` on

    def start(self, cache: TreeCache, node: CacheNode) -> None:
        """Take places below `node`, where the prefix ends: all of them, or none if one fails."""
        leaves: list[Leaf] = []
        try:
            for run in self.runs:
                parent = node if run.parent is None else leaves[run.parent]
                leaves.append(cache.fork(parent, len(run.tokens), keep=False))
                for token in run.tokens:
                    cache.append(leaves[-1], token)
        except BaseException:
            cache.release(leaves, keep=False)
            raise
        self.leaves = leaves

    def to_compute(self) -> Iterator[KVNode]:
        yield from _uncomputed(self.leaves[0].anchor)
        yield from (leaf for leaf in self.leaves if leaf.num_computed < len(leaf.tokens))

    @property
    def is_done(self) -> bool:
        return all(leaf.num_computed == len(leaf.tokens) for leaf in self.leaves)

    @property
    def error(self) -> Exception | None:
        if any(map(math.isnan, self.logprobs)):
            return _not_a_number(len(self.prompt) + max(map(len, self.continuations)))
        return None

    def end(self) -> ScoreReply | Failure:
        error = self.error
        if error is not None:
            return Failure(error)
        lengths = tuple(len(tokens) for tokens in self.continuations)
        return ScoreReply(
            tuple(self.logprobs),
            lengths,
            Usage(
                prompt_tokens=len(self.prompt),
                completion_tokens=sum(lengths),
                logical_kv_tokens=len(self.prompt) * len(lengths) + sum(lengths),
                unique_kv_tokens=self.num_computed,
            ),
        )

    def again(self) -> list[Scoring]:
        """The job of the request, from its beginning."""
        return [Scoring(self.number, self.prompt, self.continuations)]

    def charge(self, count: int) -> None:
        self.num_computed += count

    def path_lengths(self) -> list[int]:
        return [len(self.prefix) + len(tokens) for tokens in self.continuations]


def _not_a_number(num_tokens: int) -> NotANumber:
    return NotANumber(f"the model's logits are NaN within the first {num_tokens} tokens")


def _uncomputed(node: CacheNode | None) -> Iterator[CacheNode]:
    path = []
    while node is not None and node.num_computed < len(node.tokens):
        path.append(node)
        node = node.parent
    return reversed(path)


def _shared_runs(last: int, continuations: Sequence[tuple[int, ...]]) -> list[ScoredRun]:
    """A radix tree of what is fed in to score: the prompt's last token, then each continuation but
    its last token. The token at depth i predicts the continuation's token i."""
    fed = [(last, *tokens[:-1]) for tokens in continuations]
    runs: list[ScoredRun] = []
    stack: list[tuple[int | None, list[int], int]] = [(None, list(range(len(fed))), 0)]
    while stack:
        parent, group, depth = stack.pop()
        stop = depth
        while all(len(fed[j]) > stop and fed[j][stop] == fed[group[0]][stop] for j in group):
            stop += 1
        targets = [(i - depth, continuations[j][i], j) for j in group for i in range(depth, stop)]
        runs.append(ScoredRun(parent, list(fed[group[0]][depth:stop]), targets))
        branches: dict[int, list[int]] = {}
        for j in group:
            if len(fed[j]) > stop:
                branches.setdefault(fed[j][stop], []).append(j)
        stack += [(len(runs) - 1, branch, stop) for branch in branches.values()]
    return runs
