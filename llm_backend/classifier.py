"""A reward model beside an engine: serves `Classify` and leaves all else to the engine.

The answers of all searches of a round are scored together, in the call that hands the round's
other requests on. Knows neither torch nor transformers; Hugging Face's sequence classifiers are in
sequence_classifier.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from .api import Classify, Engine, EngineStats, Reply, Request


class Classifier(Protocol):
    def classify(self, requests: Sequence[Classify]) -> Sequence[Reply]:
        """A ClassifyReply for each request, or a Failure where it cannot be served."""
        ...


class ClassifierEngine:
    """`engine`, and `classifier` for what only that can answer.

    The statistics are the engine's alone; what the classifier read is in the replies' usage.
    """

    def __init__(self, engine: Engine, classifier: Classifier) -> None:
        self._engine = engine
        self._classifier = classifier

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        asked = {ticket: r for ticket, r in requests.items() if isinstance(r, Classify)}
        others = {ticket: r for ticket, r in requests.items() if ticket not in asked}
        replies: dict[int, Reply] = {}
        if asked:
            scored = self._classifier.classify(list(asked.values()))
            replies |= zip(asked, scored, strict=True)
        if others or not replies:
            replies |= self._engine.execute(others)
        return replies

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def close(self) -> None:
        self._engine.close()
