"""Reasoning search: policies grow a graph of nodes, a scheduler merges what they ask."""

from .beam import Beam
from .best_first import BestFirst
from .budget import Budget
from .context import Context, Evaluator, Expander, Policy, flatten, top_k
from .evaluators import Heuristic, LogProb, Oracle, ValuePrompt, Vote
from .expanders import Choose, Propose, Sample
from .graph import Node, SearchGraph
from .mcts import MCTS
from .sampling import IO, BestOfN, CoT, SelfConsistency
from .scheduler import Outcome, Scheduler
from .tot import ToTBFS, ToTDFS

__all__ = [
    "IO",
    "MCTS",
    "Beam",
    "BestFirst",
    "BestOfN",
    "Budget",
    "Choose",
    "CoT",
    "Context",
    "Evaluator",
    "Expander",
    "Heuristic",
    "LogProb",
    "Node",
    "Oracle",
    "Outcome",
    "Policy",
    "Propose",
    "Sample",
    "Scheduler",
    "SearchGraph",
    "SelfConsistency",
    "ToTBFS",
    "ToTDFS",
    "ValuePrompt",
    "Vote",
    "flatten",
    "top_k",
]
