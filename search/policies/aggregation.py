"""From values to scores of paths, and from scored solutions to a ranking of answers.

A path's score aggregates the values of its steps: product and minimum are the solution scores of
Lightman et al. (arXiv 2305.20050, section 2.6 and appendix F), the last step's value that of Snell
et al. (arXiv 2408.03314). An answer's score aggregates the solutions that give it:
their number (Wang et al., arXiv 2203.11171, section 2), the sum of their scores (the "voting
verifier" of Li et al., arXiv 2206.02336) or the best of them (Cobbe et al., arXiv 2110.14168,
section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import fmean
from typing import Literal

from treeshare.search.context import Context, value_or_least
from treeshare.search.graph import Node
from treeshare.tasks.task import HasEqualAnswers

Aggregate = Literal["sum", "last", "min", "prod", "mean"]
AnswerRule = Literal["majority", "weighted", "best"]

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "last": lambda values: values[-1],
    "min": min,
    "prod": math.prod,
    "mean": fmean,
}

ANSWER_RULES: dict[str, Callable[[Sequence[float]], float]] = {
    "majority": len,
    "weighted": lambda scores: math.fsum(score for score in scores if score > -math.inf),
    "best": max,
}


def path_score(node: Node, aggregate: str) -> float:
    """aggregate(v_1, ..., v_t) over the values of the path's steps; -∞ while one is missing."""
    values = [step.value for step in node.path[1:] if step.value is not None]
    is_complete = len(values) == node.depth > 0
    return AGGREGATES[aggregate](values) if is_complete else -math.inf


def rank_answers(
    ctx: Context,
    nodes: Sequence[Node],
    rule: str,
    score: Callable[[Node], float] = value_or_least,
) -> list[Node]:
    """One node for each distinct answer, the answer of highest score first.

    An answer's score is taken over the nodes that give it:

        majority  Σ 1        weighted  Σ score(node)        best  max score(node)

    Answers are one if their texts are, or, for a task that is `HasEqualAnswers`, if it says so.
    A node listed twice votes twice; one that is not terminal, or has no answer, not at all; one
    whose score is -∞ (not known) adds nothing to `weighted`, which wants scores of 0 or more.
    The node that stands for an answer is its best by `score`. Ties go to the earlier node, and
    among answers to the one seen first.
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
    """`rank_answers` of all terminal nodes of the graph; without any answer, the default ranking.

    Nodes whose score is not known count only where no score is.
    """
    finished = [node for node in ctx.graph if node.is_terminal]
    scored = [node for node in finished if score(node) > -math.inf]
    return rank_answers(ctx, scored or finished, rule, score) or ctx.ranked(score)
