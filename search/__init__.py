"""Reasoning search: policies grow graphs of nodes, and a scheduler merges their requests."""

from treeshare.search.evaluators.composite import Combined, Memo
from treeshare.search.evaluators.prompted import (
    Heuristic,
    LogProb,
    Oracle,
    SelfEvaluation,
    ValuePrompt,
    Vote,
)
from treeshare.search.evaluators.reward_models import OutcomeReward, ProcessReward
from treeshare.search.policies.astar import AStar
from treeshare.search.policies.beam import Beam
from treeshare.search.policies.best_first import BestFirst
from treeshare.search.policies.catalog import describe
from treeshare.search.policies.dvts import DVTS
from treeshare.search.policies.got import GoT
from treeshare.search.policies.one_shot import (
    IO,
    BestOfN,
    CoT,
    SelfConsistency,
    WeightedSelfConsistency,
)
from treeshare.search.policies.particle import ParticleFilter
from treeshare.search.policies.rebase import REBASE
from treeshare.search.policies.self_refine import SelfRefine
from treeshare.search.policies.simulation.ab_mcts import ABMCTS
from treeshare.search.policies.simulation.gumbel import GumbelMCTS
from treeshare.search.policies.simulation.lats import LATS
from treeshare.search.policies.simulation.mcts import MCTS
from treeshare.search.policies.simulation.rap import RAP
from treeshare.search.policies.simulation.treequest_adapter import AskTell
from treeshare.search.policies.tot import ToTBFS, ToTDFS

from .budget import Budget
from .context import Context, flatten, top_k
from .expanders import Choose, Propose, Sample
from .graph import Node, SearchGraph
from .parts import Evaluator, Expander, Policy
from .scheduler import Outcome, Scheduler

__all__ = [
    "ABMCTS",
    "DVTS",
    "IO",
    "LATS",
    "MCTS",
    "RAP",
    "REBASE",
    "AStar",
    "AskTell",
    "Beam",
    "BestFirst",
    "BestOfN",
    "Budget",
    "Choose",
    "CoT",
    "Combined",
    "Context",
    "Evaluator",
    "Expander",
    "GoT",
    "GumbelMCTS",
    "Heuristic",
    "LogProb",
    "Memo",
    "Node",
    "Oracle",
    "Outcome",
    "OutcomeReward",
    "ParticleFilter",
    "Policy",
    "ProcessReward",
    "Propose",
    "Sample",
    "Scheduler",
    "SearchGraph",
    "SelfConsistency",
    "SelfEvaluation",
    "SelfRefine",
    "ToTBFS",
    "ToTDFS",
    "ValuePrompt",
    "Vote",
    "WeightedSelfConsistency",
    "describe",
    "flatten",
    "top_k",
]
