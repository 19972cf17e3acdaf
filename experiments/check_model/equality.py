"""The check that a tree engine serves a model as its own forward does, text by text.

Prompts fork from two common beginnings, in a KV pool that is too small to keep them, so that
prefixes are split, shared, evicted and computed again. Each token that was drawn is then looked up
in a forward of its text alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from treeshare.llm_backend.api import Failure, Generate, Sampling, Score, ScoreReply
from treeshare.llm_backend.engines.requests import make_jobs
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.model.network import OWN_ATTENTION
from treeshare.llm_backend.runtime.sequence import Sequence

from .dense import Dense

_STARTS = ("1, 2, 3, 4, 5, 6, 7", "Question: how many legs do two cats have? Answer:")
_BRANCHES = (" 8", " and", "\n\n", " are eight, nine or")
_SCORED = (" one", " 4 and 5")
_TOKENS = 8  # of a completion
_SAMPLES = 3  # completions of a prompt
ALLOWED = 1e-2
"""Nats by which a log-probability may differ in fp32; rounding gives some 1e-5."""
ALLOWED_16_BITS = 1.0
"""The same in 16 bits; rounding gives up to 0.3 with the attentions of transformers as well."""


@dataclass(frozen=True, slots=True)
class Equality:
    """How the replies of an engine compare with dense forwards.

    Attributes:
        logprobs: log-probabilities that were compared.
        difference: the largest difference of one, nats.
        allowed: by how much one may differ, nats.
        greedy: tokens that were drawn greedily.
        other_greedy: those of them that are less probable than the best by more than `allowed`.
        evicted: KV tokens that the pool evicted.
    """

    logprobs: int
    difference: float
    allowed: float
    greedy: int
    other_greedy: int
    evicted: int

    @property
    def is_equal(self) -> bool:
        """Whether every reply is that of the dense forwards."""
        return self.difference <= self.allowed and not self.other_greedy


def compare(model: Model) -> tuple[Equality, TreeEngine]:
    """Serve requests with a tree engine, and compare the replies with dense forwards.

    Args:
        model: the model; its network is left on its own attention.

    Returns:
        The comparison, and the engine with its small pool, closed.

    Raises:
        ValueError: the network cannot run on tree attention, or its context is too short.
        ArithmeticError: the network's logits are NaN.
    """
    prompts = [start + branch for start in _STARTS for branch in _BRANCHES]
    longest = max(len(model.tokenizer.encode(prompt)) for prompt in prompts)
    engine = TreeEngine(
        model,
        kv_tokens=2 * (longest + _SAMPLES * _TOKENS) + 16,  # what runs fits, and little more
        max_num_seqs=2 * _SAMPLES,
        max_num_batched_tokens=max(16, longest),
    )
    sequences = _drawn(engine, prompts)
    scores = _scored(engine, prompts)
    evicted = engine.stats().evicted_kv_tokens
    engine.close()

    model.network.use_attention(OWN_ATTENTION)
    dense = Dense(model.network.hf, model.network.end_tokens)
    allowed = ALLOWED if model.network.dtype == torch.float32 else ALLOWED_16_BITS
    differences: list[float] = []
    greedy = other_greedy = 0
    for sequence in sequences:
        rows = dense.logprobs(sequence.group.prompt, sequence.generated)
        chosen = torch.tensor(sequence.generated, device=rows.device)[:, None]
        logprobs = rows.gather(1, chosen)[:, 0]
        differences.append(sequence.logprob - float(logprobs.sum()))
        if sequence.sampling.temperature == 0:
            greedy += len(logprobs)
            other_greedy += int((rows.max(1).values - logprobs > allowed).sum())
    for text, score in zip(prompts, scores, strict=True):
        prompt, ends = model.tokenizer.encode_continuations(text, _SCORED)
        for end, logprob in zip(ends, score.logprobs, strict=True):
            differences.append(logprob - dense.logprob(prompt, end))
    worst = float(np.abs(differences).max())  # NaN if any is
    return Equality(len(differences), worst, allowed, greedy, other_greedy, evicted), engine


def _drawn(engine: TreeEngine, prompts: list[str]) -> list[Sequence]:
    """Draw completions of each prompt, one greedily and several at temperature 1."""
    greedy, warm = (Sampling(max_tokens=_TOKENS, temperature=heat) for heat in (0.0, 1.0))
    requests = [Generate((prompt,), 1, greedy) for prompt in prompts]
    requests += [Generate((prompt,), _SAMPLES, warm, seed) for seed, prompt in enumerate(prompts)]
    jobs, failures = make_jobs(engine.model, engine.cache, dict(enumerate(requests)))
    for failure in failures.values():
        raise failure.error
    sequences = [job for job in jobs if isinstance(job, Sequence)]
    engine.run_sequences(sequences)
    for sequence in sequences:
        if sequence.group.error is not None:
            raise sequence.group.error
    return sequences


def _scored(engine: TreeEngine, prompts: list[str]) -> list[ScoreReply]:
    """Score the continuations after each prompt."""
    replies = dict(engine.execute({i: Score((p,), _SCORED) for i, p in enumerate(prompts)}))
    while len(replies) < len(prompts):
        replies |= engine.execute({})
    scores = []
    for i in range(len(prompts)):
        reply = replies[i]
        if isinstance(reply, Failure):
            raise reply.error
        assert isinstance(reply, ScoreReply)
        scores.append(reply)
    return scores
