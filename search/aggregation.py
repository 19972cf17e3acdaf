"""Aggregates the values of a path into a score, and scored solutions into a ranking of answers.

The product and the minimum are the solution scores of Lightman et al. (arXiv 2305.20050), the last
step's value that of Snell et al. (arXiv 2408.03314). An answer's score aggregates the solutions
that give it: their number (Wang et al., arXiv 2203.11171), the sum of their scores (the "voting
verifier" of Li et al., arXiv 2206.02336), or the best of them (Cobbe et al., arXiv 2110.14168).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import fmean
from typing import Literal

from treeshare.tasks.task import HasEqualAnswers

from .context import Context, value_or_least
from .graph import Node

Aggregate = Literal["sum", "last", "min", "prod", "mean"]
AnswerRule = Literal["majority", "weighted", "best"]

# Name to function of the values of a path's steps.
AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "last": lambda values: values[-1],
    "min": min,
    "prod": math.prod,
    "mean": fmean,
}

# Name to function of the scores of the solutions that give an answer.
ANSWER_RULES: dict[str, Callable[[Sequence[float]], float]] = {
    "majority": len,
    "weighted": lambda scores: math.fsum(score for score in scores if score > -math.inf),
    "best": max,
}


def path_score(node: Node, aggregate: str) -> float:
    """Return aggregate(v_1, ..., v_t) over the values of the path's steps; -∞ if one is missing.

    Args:
        node: the end of the path.
        aggregate: a name from `AGGREGATES`.
    """
    values = [step.value for step in node.path[1:] if step.value is not None]
    is_complete = len(values) == node.depth > 0
    return AGGREGATES[aggregate](values) if is_complete else -math.inf


def rank_answers(
    ctx: Context,
    nodes: Sequence[Node],
    rule: str,
    score: Callable[[Node], float] = value_or_least,
) -> list[Node]:
    """Return one node for each distinct answer, the answer of highest score first.

    An answer's score is taken over the nodes that give it:

        majority  Σ 1        weighted  Σ score(node)        best  max score(node)

    Two answers are equal if their texts are, or, for a task that is `HasEqualAnswers`, if the task
    gives them equal keys. The node returned for an answer is its best by `score`. Ties go to the
    earlier node, and among answers to the one seen first.

    Args:
        ctx: the search.
        nodes: solutions. One that is listed twice has two votes; one that is not terminal, or has
            no answer, has none.
        rule: `majority`, `weighted` or `best`.
        score: a node's score; -∞ if it is not known, which adds nothing to `weighted`. The rule
            `weighted` needs scores of 0 or more.
    """
    given = [(node, ctx.task.answer(node.state)) for node in nodes if node.is_terminal]
    voters = [(node, answer) for node, answer in given if answer is not None]
    answers = [answer for _, answer in voters]
    keys: Sequence[Hashable] = answers
    if isinstance(ctx.task, HasEqualAnswers):
        keys = ctx.task.answer_keys(answers)
    groups: dict[Hashable, list[Node]] = {}
    for (node, _), key in zip(voters, keys, strict=True):
        groups.setdefault(key, []).append(node)

    def total(group: list[Node]) -> float:
        return ANSWER_RULES[rule]([score(node) for node in group])

    return [max(group, key=score) for group in sorted(groups.values(), key=total, reverse=True)]


def rank_finished(
    ctx: Context, rule: str, score: Callable[[Node], float] = value_or_least
) -> list[Node]:
    """Rank the answers of all terminal nodes; without any answer, return the default ranking.

    Nodes whose score is not known count only if no score is known.

    Args:
        ctx: the search.
        rule: as in `rank_answers`.
        score: as in `rank_answers`.
    """
    finished = [node for node in ctx.graph if node.is_terminal]
    scored = [node for node in finished if score(node) > -math.inf]
    return rank_answers(ctx, scored or finished, rule, score) or ctx.ranked(score)
