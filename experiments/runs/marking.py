"""Mark a search that has ended: make its row of results.jsonl and the text of its tree.

The task, the verifier and the policy may be the user's own code. What they raise is passed on; the
caller decides what it ends.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from treeshare.experiments.results.rows import Row
from treeshare.search.graph import SearchGraph
from treeshare.search.scheduler import Outcome
from treeshare.tasks.task import HasGrades, Problem

from .config import Setup


def row_of(setup: Setup, problem: Problem, outcome: Outcome) -> Row:
    """The row of one search, with its answers marked by the verifier.

    Raises:
        Exception: whatever the task or the verifier raises.
        TypeError: an answer or a grade is of a wrong type.
        ValueError: a grade is not finite.
    """
    ranked = outcome.ranked[: setup.options.answers]
    answers = [setup.task.answer(node.state) if node.is_terminal else None for node in ranked]
    is_right = [
        answer is not None and bool(setup.verifier.check(problem, answer)) for answer in answers
    ]
    return Row(
        problem=problem.id,
        correct_top1=any(is_right[:1]),
        correct_any=any(is_right),
        mean_accuracy=sum(is_right) / len(is_right) if is_right else 0.0,
        num_answers=sum(answer is not None for answer in answers),
        answers=[_as_text(answer) for answer in answers],
        nodes=len(outcome.graph),
        requests=outcome.requests,
        rounds=outcome.rounds,
        **asdict(outcome.usage),
        parse_failures=outcome.parse_failures,
        budget_hit=outcome.budget_hit,
        seconds=outcome.seconds,
        oracle=setup.is_oracle,
        seed=setup.options.seed,
        grades=_grades(setup, problem, outcome),
    )


def tree_of(row: Row, outcome: Outcome) -> str:
    """The search's graph as node-link JSON, with its ranking and its answers.

    NumPy's and PyTorch's numbers in the graph become plain ones.

    Raises:
        Exception: whatever the text of a state raises.
        TypeError: a node has a value that is not a number where one is needed.
    """
    _convert_numbers(outcome.graph)
    ranked = [node.id for node in outcome.ranked]
    return outcome.graph.to_json(problem=row.problem, ranked=ranked, answers=row.answers)


def _grades(setup: Setup, problem: Problem, outcome: Outcome) -> dict[str, float]:
    """Partial credit; empty if the verifier gives none or nothing was ranked."""
    if not outcome.ranked or not isinstance(setup.verifier, HasGrades):
        return {}
    grades = setup.verifier.grades(problem, outcome.ranked[0].state)
    return {name: _number(grade, f"grade {name!r}") for name, grade in grades.items()}


def _convert_numbers(graph: SearchGraph) -> None:
    for node in graph:
        node.is_terminal = bool(node.is_terminal)
        for name in ("value", "prior", "logprob", "visits", "value_sum"):
            value = getattr(node, name)
            if value is not None and type(value) not in (int, float):
                setattr(node, name, _number(value, f"{name} of node {node.id}"))


def _as_text(answer: Any) -> str | None:
    if answer is None or type(answer) is str:
        return answer
    return str(answer) if isinstance(answer, str) else str(_number(answer, "the answer"))


def _number(value: Any, what: str) -> Any:
    """Convert any kind of number to an int or a float."""
    try:
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, str | bytes):
            raise TypeError
        return number if type(number) in (int, float) else float(number)
    except (OverflowError, RuntimeError, TypeError, ValueError):
        raise TypeError(f"{what} is {value!r}, which is not a number") from None
