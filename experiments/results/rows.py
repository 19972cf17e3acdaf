"""The rows of a run's files: a finished puzzle, a failed puzzle, the counters of a process.

A row checks its own fields when it is made, because a user's task or an edited file may give values
that sums, tables and JSON cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


class _Checked:
    """A data class whose fields are checked when it is made.

    Raises:
        TypeError: a field is not of its type.
        ValueError: a number is not finite, is below 0, or has more than 64 bits.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        kind_of_row: Any = type(self)
        for name, hint in _hints(kind_of_row).items():
            value = getattr(self, name)
            if not _matches(value, hint):
                kind = getattr(hint, "__name__", None) if get_origin(hint) is None else str(hint)
                raise TypeError(f"{name}={_short(value)} is not of type {kind}")
            for number in value.values() if isinstance(value, dict) else [value]:
                if isinstance(number, int | float):
                    if not math.isfinite(number):
                        raise ValueError(f"{name}={_short(value)} is not finite")
                    if not -(2**63) <= number < 2**64:
                        raise ValueError(f"{name}={_short(value)} has more than 64 bits")
            if isinstance(value, int | float) and value < 0 and name != "seed":
                raise ValueError(f"{name}={_short(value)} must be at least 0")


@dataclass(frozen=True, slots=True)
class Row(_Checked):
    """One finished puzzle: a line of results.jsonl."""

    problem: str  # its id
    correct_top1: bool  # the first of the ranking is right
    correct_any: bool  # any of the answers is right (any-of-b)
    mean_accuracy: float  # share of the answers that are right, in [0, 1]; 0 without any
    num_answers: int  # nodes that hold an answer; the others count as wrong
    answers: list[str | None]  # of the first b nodes of the ranking, best first
    nodes: int  # of the graph, the root included
    requests: int  # sent to the engine
    rounds: int  # times the search waited for the model
    prompt_tokens: int
    completion_tokens: int
    unique_kv_tokens: int  # KV entries computed
    logical_kv_tokens: int  # KV entries if no sequence shared any
    parse_failures: int
    budget_hit: str | None  # the limit that ended the search
    seconds: float  # wall time from its start to its end, other searches' work included
    oracle: bool  # the evaluator was given the answers
    seed: int
    grades: dict[str, float] = field(default_factory=dict)  # partial credit of the first answer
    digest: str = ""  # of the puzzle's data; empty in earlier versions' files
    session: int = 0  # the number of the process that wrote the row; 0 in earlier versions' files
    reached_terminal: bool = True  # the search made a terminal state
    correct: list[bool] = field(default_factory=list)  # each of `answers` is right
    more_answers: list[str | None] = field(default_factory=list)  # that follow in the ranking
    num_ranked: int = 0  # nodes of the ranking


@dataclass(frozen=True, slots=True)
class FailedSearch(_Checked):
    """One puzzle that raised an error in its search or in its marking: a line of failures.jsonl."""

    problem: str
    error: str  # the exception's type
    message: str  # its first line
    traceback: str
    where: str = ""  # the line that raised it, such as `my_policies.py:12`


@dataclass(frozen=True, slots=True)
class Session(_Checked):
    """Counters of one process so far: a line of sessions.jsonl, written whenever a puzzle ends.

    The last line of each process counts. It is there even if the process was killed.
    """

    number: int  # of the process, from 1
    requests: int  # sent to the engine
    rounds: int  # times new requests went to the engine
    seconds: float  # wall time since the searches began
    engine: dict[str, float]  # llm_backend.api.EngineStats
    memo_hits: int = 0  # states whose value a memo returned
    num_rows: int = 0  # of results.jsonl when this was written; 0 in earlier versions' files
    scoring_failures: dict[str, int] = field(default_factory=dict)  # the verifier's, by kind
    resources: dict[str, Any] = field(default_factory=dict)  # device, dtype, attention, limits
    shard: str = ""  # the shard and its session that this one was taken from, such as `0-of-8/1`


def check_results(
    path: Path, rows: Sequence[Row], *, seed: int | None = None, oracle: bool | None = None
) -> None:
    """Refuse rows that cannot belong to one run.

    Args:
        path: the file that the rows were read from, named in messages.
        rows: the rows, one for each line.
        seed: the run's; None takes that of the first row.
        oracle: whether the run's evaluator was given the answers; None takes the first row's.

    Raises:
        ValueError: a puzzle has two rows, or a row is of another seed or evaluator. The message
            names the line.
    """
    lines: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path}:{number}"
        if row.problem in lines:
            raise ValueError(
                f"{where} repeats {row.problem!r}, the puzzle of line {lines[row.problem]}"
            )
        lines[row.problem] = number
        seed = row.seed if seed is None else seed
        if row.seed != seed:
            raise ValueError(f"{where} is of seed {row.seed}, the run of seed {seed}")
        oracle = row.oracle if oracle is None else oracle
        if row.oracle != oracle:
            raise ValueError(f"{where} has oracle={row.oracle}, the run oracle={oracle}")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


def _matches(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return any(_matches(value, one) for one in inner)
    if origin is list:
        return isinstance(value, list) and all(_matches(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _matches(key, inner[0]) and _matches(item, inner[1]) for key, item in value.items()
        )
    if hint in (int, float):
        return type(value) in ((int,) if hint is int else (int, float))
    return isinstance(value, hint)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
