"""The Game-of-24 log of Tree of Thoughts (arXiv 2305.10601) as a workload.

It is ToT-BFS with GPT-4, all puzzles together, 9,997 requests in 8 rounds. The order of its
requests is that of the log; the search itself is not run again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from treeshare.llm_backend.api import Engine, Generate, GenerateReply, Sampling
from treeshare.llm_backend.engines.serve import serve

from .workloads import Filler


@dataclass(frozen=True, slots=True)
class Ask:
    """A request of the log: a constant part for its role, then a part that shows the state."""

    role: str
    state: str
    samples: int
    tokens: int  # of each sample


@dataclass(frozen=True, slots=True)
class LoggedSearch:
    """ToT-BFS with GPT-4, as its authors published it: all puzzles' requests, round by round.

    The lines proposed are in the log. The prompts are not, nor the verdicts' texts: these have
    the mean length that the log's totals leave for them. Lengths of texts are in words and signs,
    near GPT-4's tokens.
    """

    rounds: tuple[tuple[Ask, ...], ...]
    num_puzzles: int
    shared: int  # tokens of a role's constant part

    @classmethod
    def read(cls, path: str | Path, num_puzzles: int | None = None) -> LoggedSearch:
        """Read the first puzzles of `game24_gpt4_bfs_log.json`, or all.

        Raises:
            ValueError: the file is missing or is no such log.
        """
        try:
            puzzles = json.loads(Path(path).read_text())
            usage = puzzles[-1]["usage_so_far"]
            asks = _logged_rounds(puzzles, 1)
            every = [ask for asked in asks for ask in asked]
            judged = [ask for ask in every if ask.role == "value"]
            proposed = sum(ask.tokens for ask in every if ask.role == "propose")
            left = usage["completion_tokens"] - proposed
            verdict = max(1, round(left / sum(ask.samples for ask in judged)))
            shown = sum(num_words(ask.state) for ask in every)
            shared = max(1, round((usage["prompt_tokens"] - shown) / len(every)))
        except OSError as error:
            raise ValueError(f"log: {path}: {error.strerror}") from None
        except (ValueError, LookupError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"log: {path} is not the Game-of-24 log: {error}") from None
        kept = puzzles[:num_puzzles]
        return cls(_logged_rounds(kept, verdict), len(kept), shared)

    @property
    def name(self) -> str:
        """The workload in a few words, with its sizes."""
        return f"GPT-4 log, {self.num_puzzles} puzzles"

    @property
    def kv_tokens(self) -> int:
        """KV entries of all requests if none is evicted."""
        every = [ask for asked in self.rounds for ask in asked]
        return 2 * self.shared + sum(
            num_words(ask.state) + ask.samples * ask.tokens for ask in every
        )

    @property
    def expected_steps(self) -> int:
        """Decode steps, approximately."""
        return sum(max(ask.tokens for ask in asked) for asked in self.rounds)

    def warm_up(self) -> LoggedSearch:
        """Return the first four rounds."""
        return replace(self, rounds=self.rounds[:4])

    def first(self, filler: Filler) -> None:
        """Return None: the first round has many requests."""
        return None

    def run(self, engine: Engine, filler: Filler) -> list[GenerateReply]:
        """Serve all requests and return their replies."""
        replies = []
        for asked in self.rounds:
            requests = [
                Generate(
                    (
                        filler.text(ask.role, self.shared),
                        filler.text(ask.state, num_words(ask.state)),
                    ),
                    ask.samples,
                    Sampling(max_tokens=ask.tokens, temperature=0.7, ignore_eos=True),
                    seed,
                )
                for seed, ask in enumerate(asked)
            ]
            replies += serve(engine, requests, GenerateReply)
        return replies


def num_words(text: str) -> int:
    """Count words, numbers, signs and ends of lines."""
    return len(re.findall(r"\w+|[^\w ]", text))


def _logged_rounds(puzzles: Sequence[Any], verdict: int) -> tuple[tuple[Ask, ...], ...]:
    """Return the rounds: for each step proposals for all states kept, then values of new states."""
    rounds = []
    for steps in zip(*(puzzle["steps"] for puzzle in puzzles), strict=True):
        proposals, values = [], []
        for step in steps:
            for text in step["ys"]:
                lines = "".join(y[len(text) :] for y in step["new_ys"] if y.startswith(text))
                state = _left(text) or step["x"]
                proposals.append(Ask("propose", state, 1, max(1, num_words(lines))))
            values += [
                Ask("value", _left(text), 3, verdict) for text in dict.fromkeys(step["new_ys"])
            ]
        rounds += [tuple(proposals), tuple(values)]
    return tuple(rounds)


def _left(text: str) -> str:
    """Return the numbers that the last line leaves, or the line itself if it is an answer."""
    line = text.rstrip("\n").rpartition("\n")[2]
    found = re.search(r"\(left: ([^)]*)\)", line)
    return found[1] if found else line
