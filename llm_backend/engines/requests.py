"""The engine's jobs for new requests, or the reason why a request cannot be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treeshare.llm_backend.api import (
    Failure,
    Generate,
    OutOfKVMemory,
    PromptTooLong,
    Request,
    Reward,
    Score,
)
from treeshare.llm_backend.cache.tree_cache import TreeCache
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.model.tokenizer import Ids, TokenizerError
from treeshare.llm_backend.runtime.sequence import Job, ScoreRequestState, SequenceGroup


def make_jobs(
    model: Model, cache: TreeCache, requests: Mapping[int, Request]
) -> tuple[list[Job], dict[int, Failure]]:
    """Make the jobs of requests.

    Args:
        model: its tokenizer and its network's limits are used.
        cache: the tree cache in which the jobs will live.
        requests: by request id.

    Returns:
        The jobs, in the order of the requests; and by request id the failures of the requests that
        cannot be served.
    """
    jobs: list[Job] = []
    failures: dict[int, Failure] = {}
    served: dict[int, Generate | Score] = {}
    for request_id, request in requests.items():
        if isinstance(request, Generate | Score):
            served[request_id] = request
        else:
            failures[request_id] = refused(request)
    texts = ["".join(request.prefix_segments) for request in served.values()]
    prompts = model.tokenizer.encode_all(texts)
    for (request_id, request), text, prompt in zip(served.items(), texts, prompts, strict=True):
        made: Sequence[Job] | Exception
        try:
            made = _jobs(model, cache, request_id, request, text, prompt)
        except TokenizerError as error:
            made = error
        if isinstance(made, Exception):
            failures[request_id] = Failure(made)
        else:
            jobs += made
    return jobs, failures


def refused(request: object) -> Failure:
    """Return the failure of a request that is neither a `Generate` nor a `Score`."""
    if isinstance(request, Reward):
        reason = "no reward model is loaded: add reward_model=hf reward_model.name=..."
        return Failure(ValueError(reason))
    return Failure(TypeError(f"a {type(request).__name__} is no request"))


def context_misfit(context_length: int, num_prompt: int, num_more: int) -> PromptTooLong | None:
    """Return why a prompt does not fit the model's context; None if it fits.

    Args:
        context_length: tokens of the context.
        num_prompt: tokens of the prompt.
        num_more: tokens that may follow it.
    """
    if num_prompt + num_more <= context_length:
        return None
    return PromptTooLong(
        f"a prompt of {num_prompt} tokens and up to {num_more} more exceed the model's "
        f"context of {context_length} tokens"
    )


def _jobs(
    model: Model,
    cache: TreeCache,
    request_id: int,
    request: Generate | Score,
    text: str,
    prompt: Ids | TokenizerError,
) -> Sequence[Job] | Exception:
    """Return the jobs of a request, whose prompt has this text and these tokens, or a reason."""
    if isinstance(prompt, TokenizerError):
        return prompt
    if not prompt:
        return ValueError("the prompt is empty")
    if isinstance(request, Generate):
        longest = request.sampling.max_tokens
        misfit = _misfit(model, cache, prompt, longest, longest)
        if misfit is not None:
            return misfit
        ends = model.network.end_tokens
        return SequenceGroup(request_id, request, prompt, cache, model.tokenizer, ends).sequences()
    start, continuations = model.tokenizer.encode_continuations(text, request.continuations)
    job = ScoreRequestState(request_id, start, continuations, cache)
    longest = max(len(tokens) for tokens in continuations)
    return _misfit(model, cache, start, longest, job.capacity) or [job]


def _misfit(
    model: Model, cache: TreeCache, prompt: Ids, longest: int, capacity: int
) -> Exception | None:
    """Return why a request can never be served; None if it can."""
    misfit = context_misfit(model.network.context_length, len(prompt), longest)
    if misfit is None and len(prompt) - 1 + capacity > cache.num_slots:
        return OutOfKVMemory(
            f"a prompt of {len(prompt)} tokens and its continuation need "
            f"{len(prompt) - 1 + capacity} KV tokens, engine.kv_tokens={cache.num_slots}"
        )
    return misfit
