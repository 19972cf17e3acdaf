"""Describes every policy, expander and evaluator of the package: its paper and what it may cost.

The facts are class attributes of the classes themselves; this module reads them.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import ClassVar, Protocol

from treeshare.search.evaluators.prompted import (
    Heuristic,
    LogProb,
    Oracle,
    SelfEvaluation,
    ValuePrompt,
    Vote,
)
from treeshare.search.evaluators.reward_models import OutcomeReward, ProcessReward
from treeshare.search.expanders import Choose, Propose, Sample

from .astar import AStar
from .beam import Beam
from .best_first import BestFirst
from .dvts import DVTS
from .got import GoT
from .one_shot import IO, BestOfN, CoT, SelfConsistency, WeightedSelfConsistency
from .particle import ParticleFilter
from .rebase import REBASE
from .self_refine import SelfRefine
from .simulation.ab_mcts import ABMCTS
from .simulation.gumbel import GumbelMCTS
from .simulation.lats import LATS
from .simulation.mcts import MCTS
from .simulation.rap import RAP
from .simulation.treequest_adapter import AskTell
from .tot import ToTBFS, ToTDFS


class Described(Protocol):
    """A class that says in class attributes where it comes from and what it may cost.

    Attributes:
        paper: its source.
        asks: the roles of the task's prompts that it asks for; `expand` is the run's expander.
        max_requests: the most requests of a search (a policy), or of one call (an expander or
            evaluator). It is an expression over the parameters (`depth` is the task's, unless it is
            given), and for an evaluator over `nodes`, the length of the call, and `depth`, the
            depth of the deepest node. None is no bound.
    """

    paper: ClassVar[str]
    asks: ClassVar[str]
    max_requests: ClassVar[str | None]


class DescribedPolicy(Described, Protocol):
    """A policy that says what it evaluates, and which of its requests go out together.

    Attributes:
        evaluates: the nodes that it gives to the run's evaluator.
        together: the requests of one search that share a batch.
    """

    evaluates: ClassVar[str]
    together: ClassVar[str]


POLICIES: tuple[type[DescribedPolicy], ...] = (
    *(IO, CoT, SelfConsistency, WeightedSelfConsistency, BestOfN, SelfRefine),
    *(ToTBFS, ToTDFS, Beam, DVTS, REBASE, ParticleFilter, BestFirst, AStar),
    *(MCTS, GumbelMCTS, RAP, LATS, ABMCTS, GoT, AskTell),
)
EXPANDERS: tuple[type[Described], ...] = (Propose, Sample, Choose)
EVALUATORS: tuple[type[Described], ...] = (
    *(ValuePrompt, SelfEvaluation, Vote, LogProb, Heuristic, Oracle, OutcomeReward, ProcessReward),
)


@dataclass(frozen=True, slots=True)
class Description:
    """A policy's row of the catalog: the class's name and the attributes of `DescribedPolicy`."""

    policy: str
    paper: str
    asks: str
    evaluates: str
    together: str
    max_requests: str | None


def describe() -> tuple[Description, ...]:
    """Return a row for every policy of the package: samplers first, then trees, then graphs."""
    return tuple(
        Description(
            policy.__name__,
            policy.paper,
            policy.asks,
            policy.evaluates,
            policy.together,
            policy.max_requests,
        )
        for policy in POLICIES
    )


def markdown() -> str:
    """Return the rows of `describe` as a Markdown table."""
    names = ["policy", "paper", "asks", "evaluates", "together", "requests"]
    assert len(names) == len(fields(Description))
    return _table(names, [astuple(row) for row in describe()])


def parts_markdown() -> str:
    """Return the expanders and evaluators as a Markdown table."""
    names = ["class", "paper", "asks", "requests of one call"]
    parts = (*EXPANDERS, *EVALUATORS)
    return _table(names, [(p.__name__, p.paper, p.asks, p.max_requests) for p in parts])


def _table(names: list[str], rows: list[tuple[str | None, ...]]) -> str:
    lines = [names, ["---"] * len(names)]
    for *texts, requests in rows:
        lines.append([*map(str, texts), "no bound" if requests is None else f"`{requests}`"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
