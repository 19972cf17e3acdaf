"""A network stand-in that checks every row of logits against dense forwards without sharing."""

import copy
import dataclasses

from treeshare.experiments.check_model import dense


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


class Dense(dense.Dense):
    """A copy of a model on its own attention: no cache, no sharing, one forward a text."""

    def __init__(self, model):
        network = copy.deepcopy(model.network.hf)
        network.set_attn_implementation("eager")
        super().__init__(network, model.network.end_tokens)
