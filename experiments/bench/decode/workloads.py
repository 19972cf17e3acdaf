"""Workloads of decoding end to end: requests of known sizes, in the order of a search.

They are few-shot prompting and the recorded reasoning trees of DeFT (arXiv 2404.00242 section 4),
and requests that need more memory than there is; another log is in game24_log.py. Sizes, branching
and pruning are as recorded. Texts are filler of those lengths, and no text ends before its length.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from treeshare.experiments.bench.templates import Recording, recordings
from treeshare.llm_backend.api import Engine, Generate, GenerateReply, Sampling
from treeshare.llm_backend.engines.serve import checked, serve
from treeshare.llm_backend.model.model import Model

_SCANNED = 4096  # token ids in which filler looks for words


class Filler:
    """Makes texts of a wanted number of tokens: exactly with a character tokenizer, else nearly.

    Equal keys give equal texts. Texts of different keys, or of fillers of another seed, differ from
    their first tokens on.

    Args:
        model: its tokenizer is used.
        seed: of the texts.
    """

    def __init__(self, model: Model, seed: int = 0) -> None:
        texts = [model.tokenizer.decode([token]) for token in range(_SCANNED)]
        words = [text for text in texts if re.fullmatch(" [a-z]+", text)]
        self._words = words or [text for text in texts if re.fullmatch("[a-z]", text)]
        self._seed = seed

    def text(self, key: object, count: int) -> str:
        """Return the text of a key, of `count` tokens."""
        rng = random.Random(f"{self._seed} {key}")
        return "".join(rng.choices(self._words, k=count))


class Workload(Protocol):
    """Requests to an engine, some of which depend on replies."""

    @property
    def name(self) -> str:
        """The workload in a few words, with its sizes."""
        ...

    @property
    def kv_tokens(self) -> int:
        """KV entries of all requests if none is evicted."""
        ...

    @property
    def expected_steps(self) -> int:
        """Decode steps, approximately."""
        ...

    def warm_up(self) -> Workload:
        """Return a smaller workload that meets the same sizes of batches."""
        ...

    def first(self, filler: Filler) -> Generate | None:
        """Return the request whose first tokens show the prefill's time; None if there is none."""
        ...

    def run(self, engine: Engine, filler: Filler) -> list[GenerateReply]:
        """Serve all requests and return their replies."""
        ...


@dataclass(frozen=True, slots=True)
class FewShot:
    """Many samples of one prompt (DeFT section 4)."""

    prompt: int  # tokens
    branches: int  # samples
    tokens: int  # of each

    @property
    def name(self) -> str:
        """The workload in a few words, with its sizes."""
        return f"few-shot P={self.prompt} b={self.branches} N={self.tokens}"

    @property
    def kv_tokens(self) -> int:
        """KV entries of all requests if none is evicted."""
        return self.prompt + self.branches * self.tokens

    @property
    def expected_steps(self) -> int:
        """Decode steps, approximately."""
        return self.tokens - 1

    def warm_up(self) -> FewShot:
        """Return the same workload."""
        return self

    def first(self, filler: Filler) -> Generate:
        """Return the request whose first tokens show the prefill's time."""
        prompt = (filler.text("prompt", self.prompt),)
        return Generate(prompt, self.branches, _sampling(1))

    def run(self, engine: Engine, filler: Filler) -> list[GenerateReply]:
        """Serve all requests and return their replies."""
        request = replace(self.first(filler), sampling=_sampling(self.tokens))
        return serve(engine, [request], GenerateReply)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A recorded search.

    Each node goes on from its parent's text, from the step after its last, for the recorded number
    of tokens.
    """

    name: str
    recording: Recording

    @property
    def kv_tokens(self) -> int:
        """KV entries of all requests if none is evicted."""
        return int(self.recording.length.sum())

    @property
    def expected_steps(self) -> int:
        """Decode steps, approximately."""
        return int(self.recording.last_iterations().max())

    def warm_up(self) -> Reasoning:
        """Return the same tree with an eighth of each node's tokens."""
        length = np.maximum(self.recording.length // 8, 1)
        length[0] = self.recording.length[0]
        return replace(self, recording=replace(self.recording, length=length))

    def first(self, filler: Filler) -> Generate:
        """Return the request whose first tokens show the prefill's time."""
        prompt = (filler.text("prompt", int(self.recording.length[0])),)
        return Generate(prompt, 1, _sampling(1))

    def run(self, engine: Engine, filler: Filler) -> list[GenerateReply]:
        """Serve all requests and return their replies."""
        parents, lengths = self.recording.parent.tolist(), self.recording.length.tolist()
        children: dict[int, list[int]] = defaultdict(list)
        for node, parent in enumerate(parents):
            children[parent].append(node)
        path = {0: self.first(filler).prefix_segments}
        replies: dict[int, GenerateReply] = {}

        def below(node: int) -> dict[int, Generate]:
            return {
                child: Generate(path[node], 1, _sampling(lengths[child]), child)
                for child in children[node]
            }

        new = below(0)
        while len(replies) < len(parents) - 1:
            answered = checked(engine.execute(new), GenerateReply)
            new = {}
            for node, reply in answered.items():
                path[node] = (*path[parents[node]], reply.completions[0].text)
                new |= below(node)
            replies |= answered
        return list(replies.values())


@dataclass(frozen=True, slots=True)
class MemoryPressure:
    """Two rounds of requests of which the second goes on from first samples of the first.

    They sample with top_k=8: after filler text the distribution is nearly flat, and rounding would
    change the draws.
    """

    prompts: int
    prompt: int  # tokens, the first half of them common to all
    branches: int  # samples
    tokens: int  # of each sample

    @property
    def name(self) -> str:
        """The workload in a few words, with its sizes."""
        return f"pressure {self.prompts} x {self.prompt} b={self.branches} N={self.tokens}"

    @property
    def kv_tokens(self) -> int:
        """KV entries of all requests if none is evicted."""
        half = self.prompt // 2
        grown = self.branches * self.tokens
        return half + self.prompts * (self.prompt - half + half + 2 * grown)

    def run(self, engine: Engine, filler: Filler) -> list[GenerateReply]:
        """Serve all requests and return their replies."""
        half = self.prompt // 2
        sampling = replace(_sampling(self.tokens), top_k=8)
        common = filler.text("common", half)
        prompts = [
            (common, filler.text(number, self.prompt - half)) for number in range(self.prompts)
        ]
        first = serve(
            engine,
            [
                Generate(prompt, self.branches, sampling, seed)
                for seed, prompt in enumerate(prompts)
            ],
            GenerateReply,
        )
        longer = [
            Generate(
                (*prompt, reply.completions[0].text, filler.text(("more", number), half)),
                self.branches,
                sampling,
                number,
            )
            for number, (prompt, reply) in enumerate(zip(prompts, first, strict=True))
        ]
        return first + serve(engine, longer, GenerateReply)


def reasoning(templates: str | Path, trees: Mapping[str, Sequence[int]]) -> list[Reasoning]:
    """Read DeFT's recorded trees.

    Args:
        templates: directory of DeFT's templates.
        trees: indices of complete trees, by file.

    Raises:
        ValueError: as of `templates.recordings`.
    """
    return [Reasoning(name, recording) for name, recording in recordings(templates, trees).items()]


def _sampling(max_tokens: int) -> Sampling:
    """Return parameters to draw exactly this number of tokens."""
    return Sampling(max_tokens, temperature=1.0, ignore_eos=True)
