"""The scores by which Monte-Carlo tree search chooses a child.

UCT (Kocsis & Szepesvári, "Bandit based Monte-Carlo planning", ECML 2006), PUCT (Silver
et al., "Mastering the game of Go without human knowledge", Nature 2017, Methods), and the variant
of UCT in llm-reasoners (Hao et al., arXiv 2404.05221), which RAP and LATS use.
"""

from __future__ import annotations

import math


def uct_score(value_sum: float, visits: int, parent_visits: int, c: float) -> float:
    """Return W/n + c·√(ln N / n); ∞ for n = 0, so that every child is tried once before any twice.

    Args:
        value_sum: W, the sum of the values backed up through the child.
        visits: n, the simulations through the child.
        parent_visits: N, the simulations through its parent.
        c: weight of the exploration term. The paper's is 2·C_p; C_p = 1/√2 gives UCB1.
    """
    if visits == 0:
        return math.inf
    return value_sum / visits + c * math.sqrt(math.log(parent_visits) / visits)


def puct_score(
    value_sum: float,
    visits: int,
    parent_visits: int,
    prior: float,
    c: float,
    first_play_urgency: float,
) -> float:
    """Return Q + c·P·√N / (1 + n), where Q is W/n, or the first-play urgency if n = 0.

    Args:
        value_sum: W, the sum of the values backed up through the child.
        visits: n, the simulations through the child.
        parent_visits: N, the simulations through its parent. The paper's Σ_b N(s, b) counts those
            through the children, without the one that evaluated the parent itself.
        prior: P, the child's probability among its siblings.
        c: weight of the exploration term.
        first_play_urgency: the Q of an unvisited child.
    """
    mean = value_sum / visits if visits else first_play_urgency
    return mean + c * prior * math.sqrt(parent_visits) / (1 + visits)


def uct_with_guess(guess: float, visits: int, parent_visits: int, c: float) -> float:
    """Return Q + c·√(ln N / max(1, n)), where an unvisited child has a first guess as its Q.

    Under this rule of llm-reasoners, an unpromising child may never be tried.

    Args:
        guess: Q, the child's value or the first guess of it.
        visits: n, the simulations through the child.
        parent_visits: N, the simulations through its parent.
        c: weight of the exploration term.
    """
    return guess + c * math.sqrt(math.log(parent_visits) / max(1, visits))
