"""Mark a search that has ended: make its row of results.jsonl and the text of its tree.

The task, the verifier and the policy may be the user's own code. What they raise is passed on; the
caller decides what it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from treeshare.experiments.results.digests import digest_of
from treeshare.experiments.results.rows import Row
from treeshare.search.graph import SearchGraph
from treeshare.search.scheduler import Outcome
from treeshare.tasks.task import HasGrades, Problem

from .config import Setup

_KEPT, _MOST_CHARACTERS = 100, 20_000
"""What a row keeps at most of the answers of a ranking, unless more of them count."""


def row_of(setup: Setup, problem: Problem, outcome: Outcome, session: int) -> Row:
    """The row of one search, with its answers marked by the verifier.

    Args:
        setup: the run.
        problem: the puzzle that was searched.
        outcome: what its search returned.
        session: the number of this process in the run.

    Raises:
        Exception: whatever the task or the verifier raises.
        TypeError: an answer or a grade is of a wrong type.
        ValueError: a grade is not finite.
    """
    given = [
        setup.task.answer(node.state) if node.is_terminal else None
        for node in outcome.ranked[: max(setup.options.answers, _KEPT)]
    ]
    answers, more = given[: setup.options.answers], given[setup.options.answers :]
    correct = [
        answer is not None and bool(setup.verifier.check(problem, answer)) for answer in answers
    ]
    return Row(
        problem=problem.id,
        **_accuracy(correct),
        num_answers=sum(answer is not None for answer in answers),
        answers=[_as_text(answer) for answer in answers],
        correct=correct,
        more_answers=_kept(more),
        num_ranked=len(outcome.ranked),
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
        digest=digest_of(problem.data),
        session=session,
        reached_terminal=any(node.is_terminal for node in outcome.graph),
    )


def recounted(setup: Setup, problem: Problem, row: Row) -> Row:
    """The row of a finished puzzle as it is with the run's number of answers.

    Answers that did not count when the row was written are marked now.

    Raises:
        Exception: whatever the verifier raises.
        ValueError: the row does not hold that many answers of its ranking.
    """
    number = setup.options.answers
    kept = [*row.answers, *row.more_answers]
    if len(kept) < min(number, row.num_ranked):
        raise ValueError(
            f"answers={number}: the row of {row.problem!r} keeps {len(kept)} of {row.num_ranked} "
            "ranked answers: overwrite=true starts the run again, name=... keeps both"
        )
    answers = kept[:number]
    if len(answers) == len(row.answers):
        return row
    later = answers[len(row.correct) :]
    correct = row.correct[:number] + [
        answer is not None and bool(setup.verifier.check(problem, answer)) for answer in later
    ]
    return replace(
        row,
        **_accuracy(correct),
        num_answers=sum(answer is not None for answer in answers),
        answers=answers,
        correct=correct,
        more_answers=kept[number:],
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


def _kept(answers: Iterable[Any]) -> list[str | None]:
    """The first of the answers that do not count: those that are short, and can be marked later.

    A row holds texts, so the first answer that is none ends the list.
    """
    kept: list[str | None] = []
    for answer in answers:
        is_markable = answer is None or type(answer) is str
        if not is_markable or sum(len(text or "") for text in (*kept, answer)) > _MOST_CHARACTERS:
            break
        kept.append(answer)
    return kept


def _accuracy(correct: Sequence[bool]) -> dict[str, Any]:
    return {
        "correct_top1": any(correct[:1]),
        "correct_any": any(correct),
        "mean_accuracy": sum(correct) / len(correct) if correct else 0.0,
    }


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
