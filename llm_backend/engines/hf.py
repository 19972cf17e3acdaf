"""Hugging Face's `generate` as an engine, for any decoder.

Every sequence has its prompt and its KV to itself, in left-padded batches, and no KV is kept from
one request to the next. It serves models that the tree engine refuses, and it is the baseline that
speed is compared with. Tokens are drawn as the tree engine draws them, so texts and scores are the
same but for rounding.
"""

from __future__ import annotations

import inspect
import logging
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
    Reply,
    Request,
    Score,
    ScoreReply,
    Usage,
    whole_number,
)
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.model.network import OWN_ATTENTION
from treeshare.llm_backend.model.tokenizer import Tokenizer, TokenizerError
from treeshare.llm_backend.runtime.sequence import NotANumber
from treeshare.llm_backend.sampling.sampler import SamplingParamsBatch, sample, streams, uniforms

from .requests import (
    capabilities_of,
    context_misfit,
    encode_continuations,
    encode_prompts,
    refused,
)

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Row:
    """One sequence: a sample of a `Generate`, or a continuation of a `Score`."""

    request_id: int
    request: Generate | Score
    tokens: tuple[int, ...]  # the prompt's, and those to score
    scored: int = 0  # how many of them are to score
    stream: int = 0  # random stream of a sample


class HuggingFaceEngine:
    """Serves requests with `generate` and, to score, with forwards over padded batches.

    A request that cannot be served fails alone. An exception in the middle of a batch (memory, an
    interrupt) is raised to the caller, and drops all requests.

    Args:
        model: tokenizer and network; its `attention` is not used.
        max_num_seqs: sequences in a batch; None serves each request by itself, its samples or
            continuations together.

    Raises:
        ValueError: `max_num_seqs` is below 1.
    """

    def __init__(self, model: Model, max_num_seqs: int | None = 64) -> None:
        if max_num_seqs is not None:
            whole_number("engine.max_num_seqs", max_num_seqs, otherwise=", or null for no limit")
        self.capabilities = capabilities_of(model)
        self._model = model
        self._tokenizer = model.tokenizer
        self._network = model.network
        self._attention = _own_attention(model)
        self._accepts = set(inspect.signature(model.network.hf.forward).parameters)
        self._can_pad = self._ignores_padding()
        if not self._can_pad:
            logger.info(
                "%s reads padding, so a batch holds texts of one length",
                type(model.network.hf).__name__,
            )
        self._max_num_seqs = max_num_seqs
        self._ends = sorted(model.network.end_tokens)
        known = (token for token in self._ends if token < model.network.vocabulary_size)
        self._pad = next(known, 0)
        self._closing: dict[tuple[str, ...], torch.Tensor] = {}  # by the stop strings
        self._waiting: dict[object, deque[_Row]] = defaultdict(deque)  # by what a batch shares
        self._done: dict[int, list[Any]] = {}  # by request id, in order
        self._stats = EngineStats()

    @property
    def resources(self) -> dict[str, Any]:
        """What the engine computes with, by the names of the configuration's keys."""
        return self._network.resources | {
            "attention": self._attention,
            "fused": False,
            "max_num_seqs": self._max_num_seqs,
        }

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """Serve one batch, and further ones until a request is answered; see `Engine.execute`.

        Raises:
            ValueError: an id is that of an outstanding request; then no request is taken in.
        """
        began = time.perf_counter()
        if twice := requests.keys() & self._outstanding():
            raise ValueError(f"request id {min(twice)} is that of an outstanding request")
        replies: dict[int, Reply] = {}
        for request_id, request in requests.items():
            if not isinstance(request, Generate | Score):
                replies[request_id] = refused(request)
                continue
            try:
                for row in self._rows(request_id, request):
                    self._waiting[self._shared(row)].append(row)
            except ValueError as error:  # of its text or its length
                replies[request_id] = Failure(error)
        try:
            while any(self._waiting.values()) and not replies:
                for row, result in self._serve(self._next_batch()):
                    results = self._done.setdefault(row.request_id, [])
                    results.append(result)
                    if len(results) == _num_rows(row.request):
                        replies[row.request_id] = _reply(row, self._done.pop(row.request_id))
        except BaseException as error:  # some rows of the requests are lost, so none is answered
            self.close()
            if isinstance(error, torch.OutOfMemoryError):
                raise MemoryError(
                    f"out of memory on {self._network.device}: lower "
                    f"engine.max_num_seqs={self._max_num_seqs}"
                ) from error
            raise
        self._stats.seconds += time.perf_counter() - began
        return replies

    def cancel(self, request_ids: Iterable[int]) -> None:
        """Drop outstanding requests; see `Engine.cancel`."""
        ids = set(request_ids)
        for kind, rows in self._waiting.items():
            self._waiting[kind] = deque(row for row in rows if row.request_id not in ids)
        for request_id in ids & self._done.keys():
            del self._done[request_id]

    def stats(self) -> EngineStats:
        """Return the counters since the engine was made."""
        return self._stats

    def close(self) -> None:
        """Drop all requests."""
        self._waiting.clear()
        self._done.clear()

    def _outstanding(self) -> set[int]:
        waiting = {row.request_id for rows in self._waiting.values() for row in rows}
        return waiting | self._done.keys()

    def _rows(self, request_id: int, request: Generate | Score) -> list[_Row]:
        """Return the sequences of a request.

        Raises:
            ValueError: its text cannot be encoded, is empty, or does not fit the model's context.
        """
        (prompt,) = encode_prompts(self._model, [request])
        if isinstance(prompt, ValueError):
            raise prompt
        if isinstance(request, Generate):
            num_more = request.sampling.max_tokens
            seeds = streams([request.seed] * request.n, range(request.n)).tolist()
            rows = [_Row(request_id, request, prompt, stream=stream) for stream in seeds]
        else:
            prompt, ends = encode_continuations(self._model, request, prompt)
            num_more = max(map(len, ends))
            rows = [_Row(request_id, request, prompt + end, len(end)) for end in ends]
        if not prompt:
            raise ValueError("the prompt is empty")
        misfit = context_misfit(self._network.context_length, len(prompt), num_more)
        if misfit is not None:
            raise misfit
        return rows

    @torch.inference_mode()
    def _ignores_padding(self) -> bool:
        """Return whether padding before a text leaves its logits as they are."""
        self._network.use_attention(self._attention)
        if hasattr(self._network.hf.config.get_text_config(), "index_topk"):
            return False  # an index of keys counts those of padding, in texts longer than these
        length = min(12, self._network.context_length)
        padding = length // 3
        ids = (13 + 7919 * torch.arange(length, device=self._network.device))[None]
        ids %= self._network.vocabulary_size
        mask = (torch.arange(length, device=ids.device) >= padding).long()[None]
        alone = self._forward(ids[:, padding:], mask[:, padding:], 1)
        padded = self._forward(ids, mask, 1)
        bound = 1e-3 if alone.dtype == torch.float32 else 0.1
        return bool((padded - alone).float().norm() <= bound * alone.float().norm())

    def _shared(self, row: _Row) -> object:
        """Return what all rows of a batch share."""
        request = row.request
        kind = request.sampling if isinstance(request, Generate) else Score
        return kind if self._can_pad else (kind, len(row.tokens))

    def _next_batch(self) -> list[_Row]:
        """Take rows from the front of the longest queue, so that all can go through one call."""
        queue = max(self._waiting.values(), key=len)
        if self._max_num_seqs is None:
            first = queue[0].request_id
            batch = list(takewhile(lambda row: row.request_id == first, queue))
        else:
            batch = list(islice(queue, self._max_num_seqs))
        for _ in batch:
            queue.popleft()
        return batch

    @torch.inference_mode()
    def _serve(self, rows: Sequence[_Row]) -> list[tuple[_Row, Any]]:
        self._network.use_attention(self._attention)
        device = self._network.device
        width = max(len(row.tokens) for row in rows)
        padded = [[self._pad] * (width - len(row.tokens)) + list(row.tokens) for row in rows]
        ids = torch.tensor(padded, device=device)
        mask = torch.tensor(
            [[0] * (width - len(row.tokens)) + [1] * len(row.tokens) for row in rows],
            device=device,
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
        """Return (log-probability, number of tokens) of each row's end, from one forward."""
        kept = max(row.scored for row in rows)
        logits = self._forward(ids, mask, kept + 1)[:, :-1].float()
        logprobs = logits.log_softmax(-1).gather(2, ids[:, -kept:, None])[..., 0]
        self._count(len(rows), 1)
        return [
            (float(logprobs[i, kept - row.scored :].sum()), row.scored)
            for i, row in enumerate(rows)
        ]

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, kept: int) -> torch.Tensor:
        """Compute the logits of the last `kept` tokens of each row."""
        options = {
            "position_ids": (mask.cumsum(1) - 1).clamp_(min=0),
            "logits_to_keep": kept,
            "use_cache": False,
        }
        accepted = {name: value for name, value in options.items() if name in self._accepts}
        output = self._network.hf(input_ids=ids, attention_mask=mask, **accepted)
        logits: torch.Tensor = output.logits[:, -kept:]
        return logits

    def _completions(
        self, rows: Sequence[_Row], ids: torch.Tensor, mask: torch.Tensor
    ) -> list[Completion | Exception]:
        request = rows[0].request
        assert isinstance(request, Generate)
        sampling = request.sampling
        ends = [] if sampling.ignore_eos else self._ends
        draws = _Draws([row.stream for row in rows], request, ids)
        options: dict[str, Any] = {}
        if sampling.stop:
            options["stopping_criteria"] = [self._stop_criterion(sampling.stop, ids)]
        hf = self._network.hf
        # A model's own defaults, such as a repetition penalty, would change the draws.
        defaults, hf.generation_config = hf.generation_config, type(hf.generation_config)()
        try:
            output = hf.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=sampling.max_tokens,
                eos_token_id=ends or None,
                pad_token_id=self._pad,
                do_sample=False,  # `draws` leaves one token to choose
                logits_processor=[draws],
                **options,
            )
        finally:
            hf.generation_config = defaults
        drawn = output[:, ids.shape[1] :].tolist()
        self._count(len(rows), len(drawn[0]))
        logprobs = torch.stack(draws.logprobs, dim=1).tolist()
        return [
            self._completion(tokens, values, sampling.stop, ends)
            for tokens, values in zip(drawn, logprobs, strict=True)
        ]

    def _stop_criterion(self, stop: tuple[str, ...], ids: torch.Tensor) -> StopCriterion:
        if stop not in self._closing:
            vocabulary = range(self._network.vocabulary_size)
            closing = [
                token not in self._ends and self._tokenizer.may_close(token, stop)
                for token in vocabulary
            ]
            self._closing[stop] = torch.tensor(closing, device=self._network.device)
        return StopCriterion(self._tokenizer, stop, self._closing[stop], ids)

    def _completion(
        self, tokens: list[int], logprobs: list[float], stop: tuple[str, ...], ends: list[int]
    ) -> Completion | Exception:
        """Return a row's completion, or why it has none."""
        try:
            return self._ended(tokens, logprobs, stop, ends)
        except (TokenizerError, NotANumber) as error:
            return error

    def _ended(
        self, tokens: list[int], logprobs: list[float], stop: tuple[str, ...], ends: list[int]
    ) -> Completion:
        """Cut a row's tokens at the end token or the first stop string; padding follows it."""
        for count, token in enumerate(tokens, start=1):
            has_ended = token in ends
            is_last = has_ended or count == len(tokens)
            if not (is_last or (stop and self._tokenizer.may_close(token, stop))):
                continue
            logprob = sum(logprobs[:count])
            if math.isnan(logprob):
                raise NotANumber("the model's logits are NaN")
            kept = tokens[: count - has_ended]
            text = self._tokenizer.decode(kept)
            cut = _first_stop(text, stop)
            if is_last and not has_ended and cut is None:
                text = self._tokenizer.decode(kept, is_cut=True)
                return Completion(text, count, logprob, "length")
            if is_last or cut is not None:
                return Completion(text[:cut], count, logprob, "stop")
        raise AssertionError("generate drew no token")

    def _count(self, num_rows: int, num_forwards: int) -> None:
        self._stats.steps += num_forwards
        self._stats.sequences += num_rows * num_forwards


class _Draws:
    """Draws each row's tokens as the tree engine does: one of `generate`'s `logits_processor`s.

    Args:
        streams: random stream of each row.
        request: its sampling parameters are those of all rows.
        prompts: [rows, width] token ids that the completions follow.

    Attributes:
        logprobs: log-probabilities of the tokens drawn, [rows] fp32 for each step, nats.
    """

    def __init__(self, streams: Sequence[int], request: Generate, prompts: torch.Tensor) -> None:
        device = prompts.device
        self._streams = torch.tensor(streams, device=device)
        self._params = SamplingParamsBatch.of([request.sampling] * len(streams), device)
        self._width = prompts.shape[1]
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [rows, vocabulary] that leave only the tokens drawn."""
        steps = torch.full_like(self._streams, input_ids.shape[1] - self._width)
        tokens, logprobs = sample(scores, self._params, uniforms(self._streams, steps))
        self.logprobs.append(logprobs)
        return torch.full_like(scores, float("-inf")).scatter_(1, tokens[:, None], 0.0)


class StopCriterion:
    """Ends a row of `generate` when its reply holds a stop string: one of its `stopping_criteria`.

    The option `stop_strings` of `generate` does the same, but it reads the whole vocabulary at
    every call. Here a reply is decoded only when its newest token may complete a stop string.

    Args:
        tokenizer: turns tokens into text.
        stop: the stop strings.
        closing: [vocabulary] bool, the tokens that may complete one of them.
        prompts: [rows, width] token ids that the replies follow.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: tuple[str, ...],
        closing: torch.Tensor,
        prompts: torch.Tensor,
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._closing = closing
        self._width = prompts.shape[1]
        self._is_done = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Return which rows have ended, [rows] bool."""
        candidates = self._closing[input_ids[:, -1]] & ~self._is_done
        rows = candidates.nonzero()[:, 0]  # the host waits for the device here, once a step
        if len(rows):
            replies = input_ids[rows, self._width :].tolist()
            held = [_first_stop(self._decode(reply), self._stop) is not None for reply in replies]
            self._is_done[rows] = torch.tensor(held, device=rows.device)
        return self._is_done

    def _decode(self, tokens: list[int]) -> str:
        try:
            return self._tokenizer.decode(tokens)
        except TokenizerError:  # the request fails with it once the batch has ended
            return ""


def _own_attention(model: Model) -> str:
    """Return transformers' attention for the network: SDPA, where that computes what it needs."""
    network = model.network
    name = type(network.hf).__name__
    if getattr(network.hf.config.get_text_config(), "attn_logit_softcapping", None) is not None:
        logger.info("%s runs on eager attention, because SDPA has no softcap", name)
        return OWN_ATTENTION
    try:
        network.use_attention("sdpa")
    except ValueError:
        logger.info("%s runs on eager attention, because it does not support SDPA", name)
        return OWN_ATTENTION
    return "sdpa"


def _first_stop(text: str, stop: tuple[str, ...]) -> int | None:
    """Return where the first stop string begins; None if the text holds none."""
    return min((at for each in stop if (at := text.find(each)) >= 0), default=None)


def _num_rows(request: Generate | Score) -> int:
    return request.n if isinstance(request, Generate) else len(request.continuations)


def _reply(row: _Row, results: list[Any]) -> Reply:
    """Return the reply to a request whose rows have these results."""
    if isinstance(row.request, Generate):
        for result in results:
            if isinstance(result, Exception):
                return Failure(result)
        size = sum(done.num_tokens for done in results)
        return GenerateReply(tuple(results), _usage(len(row.tokens), len(results), size))
    if any(math.isnan(logprob) for logprob, _ in results):
        return Failure(NotANumber("the model's logits are NaN"))
    size = sum(count for _, count in results)
    usage = _usage(len(row.tokens) - row.scored, len(results), size)
    return ScoreReply(tuple(p for p, _ in results), tuple(count for _, count in results), usage)


def _usage(prompt: int, num_rows: int, num_tokens: int) -> Usage:
    """Return the usage of sequences that share nothing."""
    every = num_rows * prompt + num_tokens
    return Usage(prompt, num_tokens, every, every)
