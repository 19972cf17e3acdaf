"""Hugging Face's `generate` behind the engine protocol: how a search runs without its own engine.

Every sequence has its prompt and its KV to itself, in left-padded batches; nothing is cached from
one request to the next. It is the baseline that speed is compared with, and gives no
log-probability of what it draws.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

import torch

from treeshare.llm_backend.api import (
    Completion,
    EngineStats,
    Failure,
    Generate,
    GenerateReply,
    PromptTooLong,
    Reply,
    Request,
    Reward,
    Score,
    ScoreReply,
    Usage,
)
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.model.random_models import LoadedNetwork
from treeshare.llm_backend.model.tokenizer import TokenizerError
from treeshare.llm_backend.runtime.sequence import NotANumber


@dataclass(slots=True)
class _Row:
    """One sequence: a sample of a Generate, or a continuation of a Score."""

    ticket: int
    request: Generate | Score
    tokens: tuple[int, ...]  # the prompt's, and those to score
    scored: int = 0  # how many of them are to score


class HuggingFaceEngine:
    """Serves requests with `generate` and, to score, with forwards over padded batches.

    Sampling is Hugging Face's own, seeded by a batch's first request: draws differ from the tree
    engine's, greedy texts do not.

    Args:
        loaded: network and tokenizer.
        model: the same, whose `encode` and `decode` are used.
        max_num_seqs: sequences in a batch; None serves each request by itself, its samples or
            continuations together.

    Raises:
        ValueError: `max_num_seqs` is below 1.
    """

    def __init__(
        self, loaded: LoadedNetwork, model: Model, max_num_seqs: int | None = None
    ) -> None:
        if max_num_seqs is not None and max_num_seqs < 1:
            raise ValueError(f"max_num_seqs={max_num_seqs} must be at least 1")
        loaded.network.set_attn_implementation("sdpa")  # Hugging Face's own choice
        self._network = loaded.network
        self._model = model
        self._max_batch = max_num_seqs
        self._ends = sorted(model.end_tokens)
        self._pad = self._ends[0] if self._ends else 0
        self._closing: dict[tuple[str, ...], torch.Tensor] = {}  # by the stop strings
        self._waiting: dict[object, deque[_Row]] = defaultdict(deque)  # by what a batch shares
        self._done: dict[int, list[Any]] = {}  # by ticket, in order
        self._stats = EngineStats()

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """One batch, and further ones until a request is answered."""
        began = time.perf_counter()
        replies: dict[int, Reply] = {}
        for ticket, request in requests.items():
            if isinstance(request, Reward):
                replies[ticket] = Failure(ValueError("no reward model is loaded"))
                continue
            try:
                self._waiting[_kind(request)] += self._rows(ticket, request)
            except ValueError as error:  # of its text or its length
                replies[ticket] = Failure(error)
        try:
            while any(self._waiting.values()) and not replies:
                for row, result in self._serve(self._next_batch()):
                    results = self._done.setdefault(row.ticket, [])
                    results.append(result)
                    if len(results) == _num_rows(row.request):
                        replies[row.ticket] = self._reply(row, self._done.pop(row.ticket))
        except BaseException:  # some rows of the requests are lost, so none is answered
            self.close()
            raise
        self._stats.seconds += time.perf_counter() - began
        return replies

    def cancel(self, tickets: Iterable[int]) -> None:
        numbers = set(tickets)
        for kind, rows in self._waiting.items():
            self._waiting[kind] = deque(row for row in rows if row.ticket not in numbers)
        for number in numbers & self._done.keys():
            del self._done[number]

    def stats(self) -> EngineStats:
        return self._stats

    def close(self) -> None:
        self._waiting.clear()
        self._done.clear()

    def _rows(self, ticket: int, request: Generate | Score) -> list[_Row]:
        """The sequences of a request.

        Raises:
            ValueError: its text cannot be encoded, is empty, or does not fit the model's context.
        """
        text = "".join(request.prefix_segments)
        if isinstance(request, Generate):
            prompt, num_more = self._model.encode(text), request.sampling.max_tokens
            rows = [_Row(ticket, request, prompt)] * request.n
        else:
            prompt, ends = self._model.encode_continuations(text, request.continuations)
            num_more = max(map(len, ends))
            rows = [_Row(ticket, request, prompt + end, len(end)) for end in ends]
        if not prompt:
            raise ValueError("the prompt is empty")
        if len(prompt) + num_more > self._model.context_length:
            raise PromptTooLong(
                f"a prompt of {len(prompt)} tokens and up to {num_more} more exceed the model's "
                f"context of {self._model.context_length} tokens"
            )
        return rows

    def _next_batch(self) -> list[_Row]:
        """From the front of the longest queue, so that all can go through one call."""
        queue = max(self._waiting.values(), key=len)
        if self._max_batch is None:
            first = queue[0].ticket
            batch = list(takewhile(lambda row: row.ticket == first, queue))
        else:
            batch = list(islice(queue, self._max_batch))
        for _ in batch:
            queue.popleft()
        return batch

    @torch.inference_mode()
    def _serve(self, rows: Sequence[_Row]) -> list[tuple[_Row, Any]]:
        width = max(len(row.tokens) for row in rows)
        padded = [[self._pad] * (width - len(row.tokens)) + list(row.tokens) for row in rows]
        ids = torch.tensor(padded, device=self._model.device)
        mask = torch.tensor(
            [[0] * (width - len(row.tokens)) + [1] * len(row.tokens) for row in rows],
            device=self._model.device,
        )
        self._stats.tokens += ids.numel()
        if isinstance(rows[0].request, Score):
            results: list[Any] = list(self._logprobs(rows, ids, mask))
        else:
            results = self._completions(rows, ids, mask)
        return list(zip(rows, results, strict=True))

    def _logprobs(
        self, rows: Sequence[_Row], ids: torch.Tensor, mask: torch.Tensor
    ) -> list[tuple[float, int]]:
        """(log-probability, tokens) of each row's end; only the logits that tell it are made."""
        kept = max(row.scored for row in rows)
        positions = (mask.cumsum(1) - 1).clamp_(min=0)
        logits = self._network(
            input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=kept + 1
        ).logits[:, :-1]
        logprobs = logits.float().log_softmax(-1).gather(2, ids[:, -kept:, None])[..., 0]
        self._count(len(rows), 1)
        return [
            (float(logprobs[i, kept - row.scored :].sum()), row.scored)
            for i, row in enumerate(rows)
        ]

    def _completions(
        self, rows: Sequence[_Row], ids: torch.Tensor, mask: torch.Tensor
    ) -> list[Completion | TokenizerError]:
        request = rows[0].request
        assert isinstance(request, Generate)
        sampling = request.sampling
        options: dict[str, Any] = {"do_sample": sampling.temperature > 0}
        if sampling.temperature > 0:
            options |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
            options["top_k"] = sampling.top_k or 0
        if sampling.stop:
            options["stopping_criteria"] = [self._stop_criterion(sampling.stop, ids)]
        torch.manual_seed(request.seed)
        output = self._network.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=sampling.max_tokens,
            eos_token_id=self._ends or None,
            pad_token_id=self._pad,
            **options,
        )
        drawn = output[:, ids.shape[1] :].tolist()
        self._count(len(rows), len(drawn[0]))
        return [self._completion(tokens, request) for tokens in drawn]

    def _stop_criterion(self, stop: tuple[str, ...], ids: torch.Tensor) -> StopCriterion:
        if stop not in self._closing:
            vocabulary = range(self._model.vocabulary_size)
            closing = [
                token not in self._ends and self._model.may_close(token, stop)
                for token in vocabulary
            ]
            self._closing[stop] = torch.tensor(closing, device=self._model.device)
        return StopCriterion(self._model, stop, self._closing[stop], ids)

    def _completion(self, tokens: list[int], request: Generate) -> Completion | TokenizerError:
        """Up to the end token or the first stop string; what follows is padding."""
        try:
            return self._ended(tokens, request.sampling.stop)
        except TokenizerError as error:
            return error

    def _ended(self, tokens: list[int], stop: tuple[str, ...]) -> Completion:
        for count, token in enumerate(tokens, start=1):
            has_ended = token in self._ends
            is_last = has_ended or count == len(tokens)
            if is_last or (stop and self._model.may_close(token, stop)):
                kept = tokens[: count - has_ended]
                text = self._model.decode(kept)
                cut = _first_stop(text, stop)
                if is_last and not has_ended and cut is None:
                    text = self._model.decode(kept, is_cut=True)
                    return Completion(text, count, math.nan, "length")
                if is_last or cut is not None:
                    return Completion(text[:cut], count, math.nan, "stop")
        raise AssertionError("generate drew no token")

    def _reply(self, row: _Row, results: list[Any]) -> Reply:
        if isinstance(row.request, Generate):
            for result in results:
                if isinstance(result, TokenizerError):
                    return Failure(result)
            size = sum(done.num_tokens for done in results)
            return GenerateReply(tuple(results), _usage(len(row.tokens), len(results), size))
        if any(math.isnan(logprob) for logprob, _ in results):
            return Failure(NotANumber("the model's logits are NaN"))
        size = sum(count for _, count in results)
        usage = _usage(len(row.tokens) - row.scored, len(results), size)
        return ScoreReply(tuple(p for p, _ in results), tuple(count for _, count in results), usage)

    def _count(self, num_rows: int, num_forwards: int) -> None:
        self._stats.steps += num_forwards
        self._stats.sequences += num_rows * num_forwards


class StopCriterion:
    """Ends a row of `generate` when its reply holds a stop string: one of its `stopping_criteria`.

    The option `stop_strings` of `generate` does the same, but it reads the whole vocabulary at
    every call. Here a reply is decoded only when its newest token may complete a stop string.

    Args:
        model: turns tokens into text.
        stop: the stop strings.
        closing: [vocabulary] bool, the tokens that may complete one of them.
        prompts: [rows, width] token ids that the replies follow.
    """

    def __init__(
        self, model: Model, stop: tuple[str, ...], closing: torch.Tensor, prompts: torch.Tensor
    ) -> None:
        self._model = model
        self._stop = stop
        self._closing = closing
        self._width = prompts.shape[1]
        self._is_done = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        candidates = self._closing[input_ids[:, -1]] & ~self._is_done
        rows = candidates.nonzero()[:, 0]  # the host waits for the device here, once a step
        if len(rows):
            replies = input_ids[rows, self._width :].tolist()
            held = [_first_stop(self._model.decode(r), self._stop) is not None for r in replies]
            self._is_done[rows] = torch.tensor(held, device=rows.device)
        return self._is_done


def _first_stop(text: str, stop: tuple[str, ...]) -> int | None:
    """Where the first stop string begins; None if the text holds none."""
    return min((at for each in stop if (at := text.find(each)) >= 0), default=None)


def _num_rows(request: Generate | Score) -> int:
    return request.n if isinstance(request, Generate) else len(request.continuations)


def _kind(request: Generate | Score) -> object:
    """What all rows of a batch share."""
    return request.sampling if isinstance(request, Generate) else Score


def _usage(prompt: int, num_rows: int, num_tokens: int) -> Usage:
    """Nothing is shared, so every sequence computes all of its own."""
    every = num_rows * prompt + num_tokens
    return Usage(prompt, num_tokens, every, every)
