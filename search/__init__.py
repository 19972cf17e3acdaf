"""Reasoning search: policies grow a graph of nodes, a scheduler merges what they ask."""

from .ab_mcts import ABMCTS
from .ask_tell import AskTell
from .astar import AStar
from .beam import Beam
from .best_first import BestFirst
from .budget import Budget
from .context import Context, Evaluator, Expander, Policy, flatten, top_k
from .describe import describe
from .dvts import DVTS
from .evaluators import Heuristic, LogProb, Oracle, SelfEvaluation, ValuePrompt, Vote
from .expanders import Choose, Propose, Sample
from .got import GoT
from .graph import Node, SearchGraph
from .gumbel import GumbelMCTS
from .lats import LATS
from .mcts import MCTS
from .particle import ParticleFilter
from .rap import RAP
from .rebase import REBASE
from .rewards import OutcomeReward, ProcessReward
from .sampling import IO, BestOfN, CoT, SelfConsistency, WeightedSelfConsistency
from .scheduler import Outcome, Scheduler
from .self_refine import SelfRefine
from .tot import ToTBFS, ToTDFS
from .wrappers import Combined, Memo

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
