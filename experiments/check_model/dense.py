"""Logits of a network on its own attention: one forward a text, without a cache or sharing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class Dense:
    """A network on its own attention, as the reference that engines are compared with.

    Args:
        hf: a Hugging Face causal language model; the caller puts it on its own attention.
        end_tokens: ids that end a text.
    """

    def __init__(self, hf: Any, end_tokens: frozenset[int]) -> None:
        self.network = hf
        self.end_tokens = end_tokens
        self._next: dict[tuple[int, ...], torch.Tensor] = {}

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """Compute what follows each token of a text.

        Returns:
            Logits [len(tokens), vocabulary], fp32.
        """
        ids = torch.tensor([list(tokens)], device=self.network.device)
        logits: torch.Tensor = self.network(ids, use_cache=False).logits[0]
        return logits.float()

    def next_logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """Return the logits [vocabulary], fp32, after the last token; they are remembered."""
        key = tuple(tokens)
        if key not in self._next:
            self._next[key] = self.logits(key)[-1]
        return self._next[key]

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """Return the greedy continuation of at most `count` token ids, with the end token."""
        tokens = list(prompt)
        while len(tokens) < len(prompt) + count and tokens[-1] not in self.end_tokens:
            tokens.append(int(self.next_logits(tokens).argmax()))
        return tokens[len(prompt) :]

    def logprobs(self, prompt: Sequence[int], continuation: Sequence[int]) -> torch.Tensor:
        """Compute the log-probabilities of all tokens at each place of a continuation.

        Returns:
            [len(continuation), vocabulary], fp64, nats.
        """
        rows = self.logits([*prompt, *continuation])[len(prompt) - 1 : -1]
        return torch.log_softmax(rows.double(), dim=-1)

    def logprob(self, prompt: Sequence[int], continuation: Sequence[int]) -> float:
        """Return the sum of the log-probabilities of `continuation` after `prompt`, nats."""
        rows = self.logprobs(prompt, continuation)
        chosen = torch.tensor(list(continuation), device=rows.device)[:, None]
        return float(rows.gather(1, chosen).sum())
