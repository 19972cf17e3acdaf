"""The engines' tokens and jobs for new requests, or the reason why a request cannot be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treeshare.llm_backend.api import (
    Chat,
    EngineCapabilities,
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
from treeshare.llm_backend.model.tokenizer import Ids
from treeshare.llm_backend.runtime.sequence import Job, ScoreRequestState, SequenceGroup


def capabilities_of(model: Model) -> EngineCapabilities:
    """Return what an engine that runs a model can do."""
    chat = None if model.chat is None else str(model.chat)
    return EngineCapabilities(scores=True, seeds=True, logprobs=True, chat=chat)


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
    prompts = encode_prompts(model, list(served.values()))
    for (request_id, request), prompt in zip(served.items(), prompts, strict=True):
        made: Sequence[Job] | Exception
        try:
            made = _jobs(model, cache, request_id, request, prompt)
        except ValueError as error:  # of its text
            made = error
        if isinstance(made, Exception):
            failures[request_id] = Failure(made)
        else:
            jobs += made
    return jobs, failures


def encode_prompts(model: Model, requests: Sequence[Generate | Score]) -> list[Ids | ValueError]:
    """Return the tokens of the prompts; in place of one that has none, why."""
    chats = [None if model.chat is None else request.chat for request in requests]
    texts = [
        "".join(request.prefix_segments)
        for request, chat in zip(requests, chats, strict=True)
        if chat is None
    ]
    if texts and model.chat is not None:
        model.chat.warn_of_plain_text()
    plain = iter(model.tokenizer.encode_all(texts))
    return [next(plain) if chat is None else _encoded_chat(model, chat) for chat in chats]


def encode_continuations(model: Model, request: Score, prompt: Ids) -> tuple[Ids, list[Ids]]:
    """Return the tokens after which a request's continuations are scored, and their tokens.

    Args:
        model: its tokenizer and chat format are used.
        request: the request.
        prompt: the tokens of its prompt.

    Raises:
        ValueError: a continuation has no tokens.
    """
    tokenizer, texts = model.tokenizer, request.continuations
    if model.chat is None or request.chat is None:
        return tokenizer.encode_continuations("".join(request.prefix_segments), texts)
    ends = [tokenizer.encode_after(text) for text in texts]
    if not all(ends):
        raise ValueError(f"the continuation {texts[ends.index(())]!r} adds no token to the prompt")
    return prompt, ends


def _encoded_chat(model: Model, chat: Chat) -> Ids | ValueError:
    assert model.chat is not None
    try:
        return model.chat.encode(chat)
    except ValueError as error:
        return error


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
    prompt: Ids | ValueError,
) -> Sequence[Job] | Exception:
    """Return the jobs of a request, whose prompt has these tokens, or a reason."""
    if isinstance(prompt, ValueError):
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
    start, continuations = encode_continuations(model, request, prompt)
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
