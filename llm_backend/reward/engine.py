"""A reward model beside an engine: serves `Classify` and leaves all else to the engine.

The answers of all searches of a round are scored together, in the call that hands the round's
other requests on. This module is free of torch; Hugging Face's sequence classifiers are in
sequence_classifier.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from treeshare.llm_backend.api import (
    Classify,
    ClassifyReply,
    Engine,
    EngineStats,
    Failure,
    Reply,
    Request,
)


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
            replies |= zip(asked, self._classified(list(asked.values())), strict=True)
        if others or not replies:
            replies |= self._engine.execute(others)
        return replies

    def cancel(self, tickets: Iterable[int]) -> None:
        self._engine.cancel(tickets)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def close(self) -> None:
        self._engine.close()

    def _classified(self, requests: Sequence[Classify]) -> list[Reply]:
        try:
            scored = self._classifier.classify(requests)
        except Exception as error:  # of foreign code: which of the texts it was is found out below
            if len(requests) == 1:
                return [Failure(error)]
            return [reply for request in requests for reply in self._classified([request])]
        return [_without_nan(reply) for reply in scored]


def _without_nan(reply: Reply) -> Reply:
    if isinstance(reply, ClassifyReply) and math.isnan(reply.score):
        return Failure(ArithmeticError("the reward model's score is NaN"))
    return reply
