"""A network stand-in that checks every row of logits against dense forwards without sharing."""

import copy
import dataclasses

import torch


class DenseCheck:
    """A network that compares every row of logits with a dense forward of its path.

    The path is read back from the segments and from what was written to each slot, so a wrong
    segment, slot or position shows as a wrong path or as wrong logits.
    """

    def __init__(self, network, dense, tolerance=1e-4):
        self._network = network
        self._dense = dense
        self._tolerance = tolerance
        self._token_in_slot = {}
        self.max_difference = 0.0
        self.num_checked = 0

    def __getattr__(self, name):
        return getattr(self._network, name)

    def on(self, model):
        """The model with this network in place of its own."""
        return dataclasses.replace(model, network=self)

    def forward(self, tokens, positions, slots, segments, attention, pool, rows):
        self._token_in_slot |= dict(zip(slots.tolist(), tokens, strict=True))
        logits = self._network.forward(tokens, positions, slots, segments, attention, pool, rows)
        for actual, row in zip(logits, rows, strict=True):
            path = self._path(row, positions[row], segments)
            assert path[-1] == tokens[row]
            expected = self._dense.next_logits(path)
            self.max_difference = max(self.max_difference, (actual - expected).abs().max().item())
            self.num_checked += 1
        assert self.max_difference <= self._tolerance
        return logits

    def _path(self, row, position, segments):
        seen = {}
        for segment in segments:
            if segment.lo <= row < segment.hi:
                for at, slot in enumerate(segment.slots.tolist(), start=segment.start):
                    assert at not in seen, "two keys at one position"
                    seen[at] = self._token_in_slot[slot]
        return [seen[at] for at in range(position + 1)]


class Dense:
    """A copy of a model on its own attention: no cache, no sharing, one forward a text."""

    def __init__(self, model):
        self.network = copy.deepcopy(model.network.hf)
        self.network.set_attn_implementation("eager")
        self.end_tokens = model.network.end_tokens
        self._next = {}

    @torch.inference_mode()
    def logits(self, tokens):
        """[len(tokens), vocabulary] fp32: what follows each position."""
        return self.network(torch.tensor([tokens]), use_cache=False).logits[0].float()

    def next_logits(self, tokens):
        """[vocabulary] fp32: what follows the last token. Remembered."""
        key = tuple(tokens)
        if key not in self._next:
            self._next[key] = self.logits(key)[-1]
        return self._next[key]

    def greedy(self, prompt, count):
        """Greedy continuation of token ids, end token included."""
        tokens = list(prompt)
        while len(tokens) < len(prompt) + count and tokens[-1] not in self.end_tokens:
            tokens.append(int(self.next_logits(tokens).argmax()))
        return tokens[len(prompt) :]

    def logprob(self, prompt, continuation):
        """Sum of the log-probabilities of `continuation` after `prompt`, nats."""
        logprobs = torch.log_softmax(self.logits([*prompt, *continuation]).double(), dim=-1)
        rows = range(len(prompt) - 1, len(prompt) + len(continuation) - 1)
        return sum(logprobs[row, t].item() for row, t in zip(rows, continuation, strict=True))
