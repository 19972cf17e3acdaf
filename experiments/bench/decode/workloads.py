"""What is decoded end to end: requests of known sizes to an engine, in the order of a search.

Few-shot prompting and the recorded reasoning trees of DeFT (arXiv 2404.00242 section 4), and
requests that need more memory than there is; another log is in `game24_log.py`. Sizes, branching
and pruning are as recorded; texts are filler of those lengths. Knows no network and no clock.
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
    """Texts of a wanted number of tokens, exactly so with a tokenizer of characters, else nearly.

    Equal keys give equal texts; texts of different keys, or of fillers of another seed, differ from
    their first tokens on.
    """

    def __init__(self, model: Model, seed: int = 0) -> None:
        texts = [model.decode([token]) for token in range(_SCANNED)]
        words = [text for text in texts if re.fullmatch(" [a-z]+", text)]
        self._words = words or [text for text in texts if re.fullmatch("[a-z]", text)]
        self._seed = seed

    def text(self, key: object, count: int) -> str:
        rng = random.Random(f"{self._seed} {key}")
        return "".join(rng.choices(self._words, k=count))


class Workload(Protocol):
    """Requests to an engine, some of which depend on replies."""

    @property
    def name(self) -> str: ...

    @property
    def kv_tokens(self) -> int:
        """KV entries if none is evicted."""
        ...

    @property
    def expected_steps(self) -> int:
        """Decode steps, about."""
        ...

    def warm_up(self) -> Workload:
        """Less of the same, that meets the same batches."""
        ...

    def first(self, filler: Filler) -> Generate | None:
        """The request whose first tokens tell of the prefill; None if there is no single one."""
        ...

    def run(self, engine: Engine, filler: Filler) -> list[GenerateReply]: ...


@dataclass(frozen=True, slots=True)
class FewShot:
    """Many samples of one prompt (DeFT section 4)."""

    prompt: int  # tokens
    branches: int  # samples
    tokens: int  # of each

    @property
    def name(self) -> str:
        return f"few-shot P={self.prompt} b={self.branches} N={self.tokens}"

    @property
    def kv_tokens(self) -> int:
        return self.prompt + self.branches * self.tokens

    @property
    def expected_steps(self) -> int:
        return self.tokens - 1

    def warm_up(self) -> FewShot:
        return self

    def first(self, filler: Filler) -> Generate:
        prompt = (filler.text("prompt", self.prompt),)
        return Generate(prompt, self.branches, Sampling(max_tokens=1, temperature=1.0))

    def run(self, engine: Engine, filler: Filler) -> list[GenerateReply]:
        sampling = Sampling(max_tokens=self.tokens, temperature=1.0)
        return serve(engine, [replace(self.first(filler), sampling=sampling)], GenerateReply)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A recorded search: each node goes on from its parent's text, from the step after its last,
    for the recorded number of tokens."""

    name: str
    recording: Recording

    @property
    def kv_tokens(self) -> int:
        return int(self.recording.length.sum())

    @property
    def expected_steps(self) -> int:
        return int(self.recording.last_iterations().max())

    def warm_up(self) -> Reasoning:
        """The same tree with an eighth of each node's tokens."""
        length = np.maximum(self.recording.length // 8, 1)
        length[0] = self.recording.length[0]
        return replace(self, recording=replace(self.recording, length=length))

    def first(self, filler: Filler) -> Generate:
        prompt = (filler.text("prompt", int(self.recording.length[0])),)
        return Generate(prompt, 1, Sampling(max_tokens=1, temperature=1.0))

    def run(self, engine: Engine, filler: Filler) -> list[GenerateReply]:
        parents, lengths = self.recording.parent.tolist(), self.recording.length.tolist()
        children: dict[int, list[int]] = defaultdict(list)
        for node, parent in enumerate(parents):
            children[parent].append(node)
        path = {0: self.first(filler).prefix_segments}
        replies: dict[int, GenerateReply] = {}

        def below(node: int) -> dict[int, Generate]:
            return {
                child: Generate(path[node], 1, Sampling(lengths[child], temperature=1.0), child)
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
class Pressure:
    """Two rounds of requests of which the second goes on from first samples of the first.

    Of the likeliest 8 tokens only: where thousands are as likely, as after filler, another order of
    the same sums now and then draws the next one.
    """

    prompts: int
    prompt: int  # tokens, the first half of them common to all
    branches: int  # samples
    tokens: int  # of each sample

    @property
    def name(self) -> str:
        return f"pressure {self.prompts} x {self.prompt} b={self.branches} N={self.tokens}"

    @property
    def kv_tokens(self) -> int:
        """If nothing is evicted."""
        half = self.prompt // 2
        grown = self.branches * self.tokens
        return half + self.prompts * (self.prompt - half + half + 2 * grown)

    def run(self, engine: Engine, filler: Filler) -> list[GenerateReply]:
        half = self.prompt // 2
        sampling = Sampling(max_tokens=self.tokens, temperature=1.0, top_k=8)
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
    """DeFT's recorded trees: indices of complete ones in each file.

    Raises:
        ValueError: as of `templates.recordings`.
    """
    return [Reasoning(name, recording) for name, recording in recordings(templates, trees).items()]
