"""The engine's units of work: one per sampled sequence, one per scored prompt.

Both are jobs of the engine: it admits them, computes the tokens that they ask for, and collects
their replies when they are done.
"""

from __future__ import annotations

import math
from collections import abc
from collections.abc import Iterator
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
from treeshare.llm_backend.model.tokenizer import Tokenizer, TokenizerError
from treeshare.llm_backend.sampling.sampler import streams

from .packing import KVNode


class NotANumber(ArithmeticError):
    """The model's logits for a request are NaN."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class SequenceGroup:
    """The sequences of one `Generate` request, and what they share.

    Args:
        request_id: the request's id.
        request: the request.
        prompt: its token ids, at least one.
        cache: the tree cache that holds their KV.
        tokenizer: turns generated ids into text.
        end_tokens: ids that end a completion.
    """

    request_id: int
    request: Generate
    prompt: tuple[int, ...]
    cache: TreeCache
    tokenizer: Tokenizer
    end_tokens: frozenset[int]
    prefix: tuple[int, ...] = field(init=False)  # shared: the last prompt token is each leaf's own
    streams: list[int] = field(init=False)  # random stream of each sequence
    completions: dict[int, Completion] = field(default_factory=dict)  # by sample index
    num_computed: int = 0  # KV entries computed on its behalf
    error: Exception | None = None  # of one of its sequences; it ends all of them
    is_answered: bool = False

    def __post_init__(self) -> None:
        n = self.request.n
        self.prefix = self.prompt[:-1]
        self.streams = streams([self.request.seed] * n, range(n)).tolist()
        if self.request.sampling.ignore_eos:
            self.end_tokens = frozenset()

    def sequences(self) -> list[Sequence]:
        """Return new sequences, from the beginning of the request."""
        return [Sequence(self, k) for k in range(self.request.n)]

    def reply(self) -> GenerateReply | Failure | None:
        """Return the reply, once: when every sequence is in, or one has failed."""
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


class Sequence:
    """One sample of a `Generate` request: a leaf that grows by one token a step.

    Args:
        group: the request's sequences.
        sample_index: number of the sample in its request.

    Attributes:
        generated: token ids drawn so far.
        completion: the finished text; None while the sequence goes on.
        leaf: its tokens in the tree cache, from `start` on; its lock keeps the prefix.
        sampling: how its tokens are drawn.
        stream: its random stream (`sampler.streams`).
    """

    leaf: Leaf

    def __init__(self, group: SequenceGroup, sample_index: int) -> None:
        self.group = group
        self.request_id = group.request_id
        self.sample_index = sample_index
        self.sampling = group.request.sampling
        self.stream = group.streams[sample_index]
        self.prefix = group.prefix
        self.capacity = self.sampling.max_tokens
        self.generated: list[int] = []
        self.logprob = 0.0
        self.completion: Completion | None = None

    def start(self, node: CacheNode) -> None:
        """Take a leaf below `node`, where the prefix ends."""
        self.leaf = self.group.cache.fork(node, self.capacity)
        self.group.cache.append(self.leaf, self.group.prompt[-1])

    def to_compute(self) -> Iterator[KVNode]:
        """Yield the nodes that still need KV, parents first; the leaf, always, last."""
        yield from _uncomputed(self.leaf.anchor)
        yield self.leaf

    def accept(self, token: int, logprob: float) -> None:
        """Append the token drawn after the leaf's last one, or fail the request.

        Args:
            token: its id.
            logprob: its log-probability, nats; NaN fails the request.
        """
        self.generated.append(token)
        self.logprob += logprob
        try:
            if math.isnan(logprob):
                raise _not_a_number(self.leaf.stop)
            self.completion = self._completed()
        except (TokenizerError, NotANumber) as error:
            self.group.error = error
        if not self.is_done:
            self.group.cache.append(self.leaf, token)

    @property
    def is_decoding(self) -> bool:
        """Whether the next token is all there is to compute, and it is not the very first."""
        leaf = self.leaf
        is_next = leaf.start + leaf.num_computed > 0 and leaf.num_computed == len(leaf.tokens) - 1
        return is_next and next(_uncomputed(leaf.anchor), None) is None

    @property
    def is_done(self) -> bool:
        """Whether the text is finished, or the request has failed."""
        return self.completion is not None or self.group.error is not None

    @property
    def error(self) -> Exception | None:
        """What the request failed with; None if it did not fail."""
        return self.group.error

    @property
    def leaves(self) -> list[Leaf]:
        """The leaves that the job holds in the tree cache."""
        return [self.leaf]

    def end(self) -> GenerateReply | Failure | None:
        """Return the request's reply, if this was its last sequence or one has failed."""
        if self.completion is not None:
            self.group.completions[self.sample_index] = self.completion
        return self.group.reply()

    def again(self) -> list[Sequence]:
        """Return the jobs of the request, from its beginning."""
        self.group.error = None
        self.group.completions.clear()
        return self.group.sequences()

    def charge(self, count: int) -> None:
        """Count KV entries that were computed on the request's behalf."""
        self.group.num_computed += count

    def path_lengths(self) -> list[int]:
        """Return the entries that each of the job's sequences would read if it shared none."""
        return [self.leaf.start + self.leaf.num_computed]

    def _completed(self) -> Completion | None:
        """The finished text, or None while the sequence goes on."""
        sampling, tokenizer = self.sampling, self.group.tokenizer
        has_ended = self.generated[-1] in self.group.end_tokens
        is_full = len(self.generated) == sampling.max_tokens
        may_stop = bool(sampling.stop) and tokenizer.may_close(self.generated[-1], sampling.stop)
        if not (has_ended or is_full or may_stop):
            return None
        tokens = self.generated[:-1] if has_ended else self.generated
        text = tokenizer.decode(tokens)
        cuts = [at for stop in sampling.stop if (at := text.find(stop)) >= 0]
        if not (has_ended or is_full or cuts):
            return None
        if not (has_ended or cuts):
            text = tokenizer.decode(tokens, is_cut=True)
        return Completion(
            text[: min(cuts)] if cuts else text,
            len(self.generated),
            self.logprob,
            "stop" if has_ended or cuts else "length",
        )


@dataclass(slots=True)
class ContinuationNode:
    """A run of tokens that a group of continuations share, and what their logits must yield."""

    parent: int | None  # index of the node above; None below the prompt
    tokens: list[int]
    targets: list[tuple[int, int, int]]  # (offset of the token, next token id, continuation)


class ScoreRequestState:
    """A `Score` request under way: its continuations as a tree of leaves.

    The start that several continuations share is computed once.

    Args:
        request_id: the request's id.
        prompt: token ids after which all continuations are scored, at least one.
        continuations: token ids of each, at least one.
        cache: the tree cache that holds their KV.
    """

    def __init__(
        self,
        request_id: int,
        prompt: tuple[int, ...],
        continuations: abc.Sequence[tuple[int, ...]],
        cache: TreeCache,
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.prefix = prompt[:-1]
        self.continuations = continuations
        self.cache = cache
        self.nodes = _continuation_tree(prompt[-1], continuations)
        self.capacity = sum(len(node.tokens) for node in self.nodes)
        self.logprobs = [0.0] * len(continuations)
        self.num_computed = 0
        self.leaves: list[Leaf] = []  # one a node, from `start` on

    def start(self, node: CacheNode) -> None:
        """Take leaves below `node`, where the prefix ends: all of them, or none if one fails."""
        leaves: list[Leaf] = []
        try:
            for below in self.nodes:
                parent = node if below.parent is None else leaves[below.parent]
                leaves.append(self.cache.fork(parent, len(below.tokens), keep=False))
                for token in below.tokens:
                    self.cache.append(leaves[-1], token)
        except BaseException:
            self.cache.release(leaves, keep=False)
            raise
        self.leaves = leaves

    def to_compute(self) -> Iterator[KVNode]:
        """Yield the nodes that still need KV, parents first."""
        yield from _uncomputed(self.leaves[0].anchor)
        yield from (leaf for leaf in self.leaves if leaf.num_computed < len(leaf.tokens))

    @property
    def is_done(self) -> bool:
        """Whether every continuation is scored."""
        return all(leaf.num_computed == len(leaf.tokens) for leaf in self.leaves)

    @property
    def error(self) -> Exception | None:
        """What the request failed with; None if it did not fail."""
        if any(map(math.isnan, self.logprobs)):
            return _not_a_number(len(self.prompt) + max(map(len, self.continuations)))
        return None

    def end(self) -> ScoreReply | Failure:
        """Return the reply."""
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

    def again(self) -> list[ScoreRequestState]:
        """Return the job of the request, from its beginning."""
        return [ScoreRequestState(self.request_id, self.prompt, self.continuations, self.cache)]

    def charge(self, count: int) -> None:
        """Count KV entries that were computed on the request's behalf."""
        self.num_computed += count

    def path_lengths(self) -> list[int]:
        """Return the entries that each of the job's sequences would read if it shared none."""
        return [len(self.prefix) + len(tokens) for tokens in self.continuations]


Job = Sequence | ScoreRequestState
"""What the engine admits, runs and collects."""


def _not_a_number(num_tokens: int) -> NotANumber:
    return NotANumber(f"the model's logits are NaN within the first {num_tokens} tokens")


def _uncomputed(node: CacheNode | None) -> Iterator[CacheNode]:
    path = []
    while node is not None and node.num_computed < len(node.tokens):
        path.append(node)
        node = node.parent
    return reversed(path)


def _continuation_tree(
    last: int, continuations: abc.Sequence[tuple[int, ...]]
) -> list[ContinuationNode]:
    """Build the radix tree of the tokens that must be computed to score some continuations.

    These are the prompt's last token, then each continuation but its last token. The token at depth
    i predicts the continuation's token i.
    """
    fed = [(last, *tokens[:-1]) for tokens in continuations]
    nodes: list[ContinuationNode] = []
    stack: list[tuple[int | None, list[int], int]] = [(None, list(range(len(fed))), 0)]
    while stack:
        parent, group, depth = stack.pop()
        stop = depth
        while all(len(fed[j]) > stop and fed[j][stop] == fed[group[0]][stop] for j in group):
            stop += 1
        targets = [(i - depth, continuations[j][i], j) for j in group for i in range(depth, stop)]
        nodes.append(ContinuationNode(parent, list(fed[group[0]][depth:stop]), targets))
        branches: dict[int, list[int]] = {}
        for j in group:
            if len(fed[j]) > stop:
                branches.setdefault(fed[j][stop], []).append(j)
        stack += [(len(nodes) - 1, branch, stop) for branch in branches.values()]
    return nodes
