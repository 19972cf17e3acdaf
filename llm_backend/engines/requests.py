"""From requests to jobs: what the engine can serve, and why not what it cannot.

This module does not know when jobs run.
"""

from __future__ import annotations

from collections.abc import Mapping

from treeshare.llm_backend.api import (
    Failure,
    Generate,
    OutOfKVMemory,
    PromptTooLong,
    Request,
    Reward,
    Score,
)
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.model.tokenizer import Ids, TokenizerError
from treeshare.llm_backend.runtime.sequence import Draw, GenerateTicket, Scoring

Jobs = list[Draw | Scoring]


def take_in(
    model: Model, num_slots: int, requests: Mapping[int, Request]
) -> tuple[Jobs, dict[int, Failure]]:
    """Jobs of requests, in their order; and by ticket the failures of those without any.

    Args:
        model: its tokenizer and its context count.
        num_slots: of the KV pool.
        requests: by ticket.
    """
    jobs: Jobs = []
    failures: dict[int, Failure] = {}
    served: dict[int, Generate | Score] = {}
    for number, request in requests.items():
        if isinstance(request, Generate | Score):
            served[number] = request
        elif isinstance(request, Reward):
            reason = "no reward model is loaded: add reward_model=hf reward_model.name=..."
            failures[number] = Failure(ValueError(reason))
        else:
            failures[number] = Failure(TypeError(f"a {type(request).__name__} is no request"))
    texts = ["".join(request.prefix_segments) for request in served.values()]
    prompts = model.encode_all(texts)
    for (number, request), text, prompt in zip(served.items(), texts, prompts, strict=True):
        made: Jobs | Exception
        try:
            made = _jobs(model, num_slots, number, request, text, prompt)
        except TokenizerError as error:
            made = error
        if isinstance(made, Exception):
            failures[number] = Failure(made)
        else:
            jobs += made
    return jobs, failures


def _jobs(
    model: Model,
    num_slots: int,
    number: int,
    request: Generate | Score,
    text: str,
    prompt: Ids | TokenizerError,
) -> Jobs | Exception:
    """Jobs of a request, whose prompt has this text and these tokens; or why there are none."""
    if isinstance(prompt, TokenizerError):
        return prompt
    if not prompt:
        return ValueError("the prompt is empty")
    if isinstance(request, Generate):
        longest = request.sampling.max_tokens
        misfit = _misfit(model, num_slots, prompt, longest, longest)
        ticket = GenerateTicket(number, request, prompt)
        return misfit or [Draw(ticket, k) for k in range(request.n)]
    start, continuations = model.encode_continuations(text, request.continuations)
    job = Scoring(number, start, continuations)
    longest = max(len(tokens) for tokens in continuations)
    return _misfit(model, num_slots, start, longest, job.capacity) or [job]


def _misfit(
    model: Model, num_slots: int, prompt: Ids, longest: int, capacity: int
) -> Exception | None:
    """Why a request can never be served."""
    context = model.context_length
    if len(prompt) + longest > context:
        return PromptTooLong(
            f"a prompt of {len(prompt)} tokens and up to {longest} more exceed the model's "
            f"context of {context} tokens"
        )
    if len(prompt) - 1 + capacity > num_slots:
        return OutOfKVMemory(
            f"a prompt of {len(prompt)} tokens and its continuation need "
            f"{len(prompt) - 1 + capacity} KV tokens, engine.kv_tokens={num_slots}"
        )
    return None
