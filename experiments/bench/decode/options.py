"""The keys of conf/bench_decode.yaml, their checks, and the workloads they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from treeshare.llm_backend.model.attention import BACKENDS

from .engine_comparison import HF_BATCHED, HF_ONE, ArmOptions
from .game24_log import LoggedSearch
from .verification import Verification, verifications
from .workloads import FewShot, MemoryPressure, Reasoning, reasoning

Work = FewShot | Reasoning | LoggedSearch | Verification | MemoryPressure
"""A workload of decoding."""
ARMS = "arms"
"""Name of the workload that compares engines on a search."""


@dataclass(slots=True)
class ModelOptions:
    """The keys under `model`."""

    name: str
    dtype: str
    device: str
    fused: bool


@dataclass(slots=True)
class FewShotOptions:
    """The keys under `few_shot`."""

    prompts: list[int]
    branches: list[int]
    tokens: int


@dataclass(slots=True)
class SpeculativeOptions:
    """The keys under `speculative`."""

    sizes: list[int]
    prompt: int
    tokens: int


@dataclass(slots=True)
class PressureOptions:
    """The keys under `pressure`."""

    prompts: int
    prompt: int
    branches: int
    tokens: int


@dataclass(slots=True)
class Options:
    """The keys of bench_decode.yaml.

    Raises:
        ValueError: a value is not among those allowed.
    """

    workload: list[str]
    model: ModelOptions
    attention: list[str]
    templates: str | None
    log: str | None
    few_shot: FewShotOptions
    reasoning: dict[str, list[int]]
    gpt4_puzzles: int
    speculative: SpeculativeOptions
    pressure: PressureOptions
    arms: ArmOptions
    max_num_seqs: int
    max_num_batched_tokens: int
    spans: int
    trace: bool
    seed: int
    output_dir: str

    def __post_init__(self) -> None:
        for name, known in (("workload", tuple(WORKLOADS)), ("attention", BACKENDS)):
            chosen = getattr(self, name)
            if not chosen:
                raise ValueError(f"{name}=[] must name at least one")
            for each in chosen:
                if each not in known:
                    raise ValueError(f"{name}={each!r} must be one of {', '.join(known)}")
        arms = (HF_ONE, HF_BATCHED, *BACKENDS)
        for each in self.arms.names:
            if each not in arms:
                raise ValueError(f"arms.names={each!r} must be one of {', '.join(arms)}")
        for name, needs in NEEDS.items():
            if name in self.workload and getattr(self, needs) is None:
                raise ValueError(f"workload={name!r} needs {needs}=<{NEEDED[needs]}>")
        positive = {
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "gpt4_puzzles": self.gpt4_puzzles,
        }
        for group in ("few_shot", "speculative", "pressure"):
            positive |= {f"{group}.{k}": v for k, v in asdict(getattr(self, group)).items()}
        for name, value in positive.items():
            for number in value if isinstance(value, list) else [value]:
                if number < 1:
                    raise ValueError(f"{name}={number} must be at least 1")
        if self.spans < 0:
            raise ValueError(f"spans={self.spans} must be at least 0")


NEEDS = {"reasoning": "templates", "speculative": "templates", "gpt4_log": "log"}
"""The key that a workload cannot do without."""
NEEDED = {
    "templates": "the directory of DeFT's templates",
    "log": "game24_gpt4_bfs_log.json of Tree of Thoughts",
}
"""What such a key must name."""
WORKLOADS: Mapping[str, Callable[[Options], Sequence[Work]]] = {
    "few_shot": lambda options: [
        FewShot(prompt, branches, options.few_shot.tokens)
        for prompt in options.few_shot.prompts
        for branches in options.few_shot.branches
    ],
    "reasoning": lambda options: reasoning(options.templates or "", options.reasoning),
    "gpt4_log": lambda options: [LoggedSearch.read(options.log or "", options.gpt4_puzzles)],
    "speculative": lambda options: verifications(
        options.templates or "", **asdict(options.speculative)
    ),
    "pressure": lambda options: [MemoryPressure(**asdict(options.pressure))],
    ARMS: lambda options: [],
}
"""Functions that make the workloads of a name."""


def build(options: Options) -> list[tuple[str, Work]]:
    """Make all workloads that the options name, but for the search, each with its group.

    Raises:
        ValueError: a file is missing, or cannot be read as the workload needs it.
    """
    return [(name, work) for name in options.workload for work in WORKLOADS[name](options)]
