"""Sum up a run over its puzzles and processes, and print the sums as a table.

All finished puzzles of the run count, also those finished before an interruption.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treeshare.tasks.task import RoleSampling

from .rows import FailedSearch, Row, Session


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums and means over the finished puzzles of a run."""

    puzzles: int  # finished
    top1: float  # share of finished puzzles whose first answer is right, in [0, 1]
    any_of_b: float  # share with a right answer among the first b
    mean_accuracy: float  # right share of the first b answers, averaged over puzzles
    grades: dict[str, float]  # partial credit in [0, 1] by name, averaged over puzzles
    nodes: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    unique_kv_tokens: int
    logical_kv_tokens: int
    parse_failures: int
    budget_hits: int
    rounds: int  # times new requests went to the engine
    requests_per_round: float
    sequences_per_forward: float  # 0 if no model ran
    evicted_kv_tokens: int
    drafts: int  # times a sequence had drafted tokens to verify
    drafted_tokens: int
    accepted_tokens: int  # of these
    memo_hits: int  # states whose value a memo returned
    sessions: int  # processes that worked on the run
    seconds: float  # wall time of all of them
    tokens_per_second: float  # completion tokens
    scoring_failures: dict[str, int]  # answers that a scorer raised, timed out or died at, by kind

    @classmethod
    def of(cls, rows: Sequence[Row], sessions: Sequence[Session]) -> Totals:
        """Sum up all rows and sessions of a run."""
        tally = Tally()
        for session in sessions:
            tally.add_session(session)
        for row in rows:
            tally.add_row(row)
        return tally.totals()


class Tally:
    """Running sums for `Totals`.

    Adding a row takes the same time whatever the number of earlier rows.
    """

    def __init__(self) -> None:
        self._num_rows = 0
        self._sums: dict[str, Any] = dict.fromkeys((*_SUMMED, "budget_hits"), 0)
        self._grades: dict[str, float] = {}
        self._sessions: dict[int, Session] = {}  # the last of each process

    def add_row(self, row: Row) -> None:
        """Add a finished puzzle."""
        self._num_rows += 1
        for name in _SUMMED:
            self._sums[name] += getattr(row, name)
        self._sums["budget_hits"] += row.budget_hit is not None
        for name, grade in row.grades.items():
            self._grades[name] = self._grades.get(name, 0.0) + grade

    def add_session(self, session: Session) -> None:
        """Add a process's counters; they replace its earlier ones."""
        self._sessions[session.number] = session

    def totals(self) -> Totals:
        """The totals of all that was added so far."""
        sums, last = self._sums, self._sessions.values()

        def share(total: float) -> float:
            return _ratio(total, self._num_rows)

        def engine(counter: str) -> float:
            # an earlier version's session lacks the counters that came later
            return sum(session.engine.get(counter, 0) for session in last)

        scoring: Counter[str] = Counter()
        for session in last:
            scoring.update(session.scoring_failures)
        rounds = sum(session.rounds for session in last)
        seconds = sum(session.seconds for session in last)
        return Totals(
            puzzles=self._num_rows,
            top1=share(sums["correct_top1"]),
            any_of_b=share(sums["correct_any"]),
            mean_accuracy=share(sums["mean_accuracy"]),
            grades={name: share(total) for name, total in self._grades.items()},
            nodes=sums["nodes"],
            requests=sums["requests"],
            prompt_tokens=sums["prompt_tokens"],
            completion_tokens=sums["completion_tokens"],
            unique_kv_tokens=sums["unique_kv_tokens"],
            logical_kv_tokens=sums["logical_kv_tokens"],
            parse_failures=sums["parse_failures"],
            budget_hits=sums["budget_hits"],
            rounds=rounds,
            requests_per_round=_ratio(sum(session.requests for session in last), rounds),
            sequences_per_forward=_ratio(engine("sequences"), engine("steps")),
            evicted_kv_tokens=int(engine("evicted_kv_tokens")),
            drafts=int(engine("drafts")),
            drafted_tokens=int(engine("drafted_tokens")),
            accepted_tokens=int(engine("accepted_tokens")),
            memo_hits=sum(session.memo_hits for session in last),
            sessions=len(last),
            seconds=seconds,
            tokens_per_second=_ratio(sums["completion_tokens"], seconds),
            scoring_failures=dict(scoring),
        )


_SUMMED = (
    *("correct_top1", "correct_any", "mean_accuracy", "nodes", "requests", "prompt_tokens"),
    *("completion_tokens", "unique_kv_tokens", "logical_kv_tokens", "parse_failures"),
)


def replayed(
    rows: Sequence[Row], sessions: Sequence[Session], counted: Mapping[str, Row] | None = None
) -> Iterator[tuple[Row, Totals]]:
    """The rows of a run that count, each with the totals at the time when it was written.

    Sessions of earlier versions do not store the number of rows; they count from the first row on.

    Args:
        rows: all rows on disk.
        sessions: all sessions on disk.
        counted: by puzzle, the rows that count, as they are yielded; None counts all.
    """
    tally, waiting = Tally(), list(reversed(sessions))
    for number, row in enumerate(rows):
        while waiting and waiting[-1].num_rows <= number:
            tally.add_session(waiting.pop())
        counts = row if counted is None else counted.get(row.problem)
        if counts is not None:
            tally.add_row(counts)
            yield counts, tally.totals()


def resource_kinds(rows: Sequence[Row], sessions: Sequence[Session]) -> dict[str, int]:
    """The rows by what computed them, such as `cuda bfloat16 deft`: the number of each kind.

    The kinds are in the order in which they first computed a row.
    """
    keys = ("gpu", "device", "dtype", "attention", "chat")
    kinds = {}
    for session in sessions:
        words = [str(session.resources[key]) for key in keys if key in session.resources]
        if session.resources.get("fused"):
            words.append("fused")
        kinds[session.number] = " ".join(words)
    return dict(Counter(kinds.get(row.session, "") for row in rows))


def search_limits(
    policy: object, expander: object, sampling: RoleSampling, depth: int
) -> dict[str, Any]:
    """What may keep a search from a terminal state: the keys to raise, with their values.

    They are the policy's depth and number of expansions, and the length of the replies that hold
    steps or solutions. A policy of the user's has those that its attributes name.

    Args:
        policy: the run's policy.
        expander: the run's expander.
        sampling: the task's sampling by role.
        depth: the depth of a policy that sets none.
    """
    names = ("depth", "num_simulations", "expansions", "trials")
    given = {name: getattr(policy, name) for name in names if hasattr(policy, name)}
    if "depth" in given:
        given["depth"] = given["depth"] or depth
    limits = {f"search.{name}": value for name, value in given.items()}
    asks = getattr(policy, "asks", "expand")
    if "expand" in asks:
        asks = f"{asks} {getattr(expander, 'asks', '')}"
    roles = [policy.role] if hasattr(policy, "role") else re.findall("[a-z]+", asks)
    for role in roles:
        # a reflection is no step
        if role != "reflect" and "max_tokens" in sampling.get(role, {}):
            limits[f"+task.sampling.{role}.max_tokens"] = sampling[role]["max_tokens"]
    return limits


@dataclass(frozen=True, slots=True)
class Summary:
    """The results of a run, as far as it is finished."""

    title: str
    directory: Path
    num_problems: int  # of the task
    num_answers: int  # b, the number of answers of a puzzle that count
    rows: list[Row]
    failures: list[FailedSearch]
    totals: Totals
    trees: list[Path]  # those on disk
    num_missing_trees: int  # of finished puzzles; 0 if none are to be saved
    num_others: int = 0  # rows on disk of puzzles that are not asked for
    resources: dict[str, int] = field(default_factory=dict)  # rows by what computed them
    chat: str = ""  # the chat format of the prompts; empty for plain text
    note: str = ""  # a line below the title
    search_limits: dict[str, Any] = field(default_factory=dict)  # by key, what bounds a search

    def table(self) -> str:
        """The table of totals that `treeshare` prints, without a newline at its end."""
        t = self.totals
        failed = f" ({len(self.failures)} failed)" if self.failures else ""
        sessions = f" in {t.sessions} sessions" if t.sessions > 1 else ""
        forward = f", {t.sequences_per_forward:.1f} sequences a forward"
        cells = {
            "puzzles": f"{t.puzzles:,} of {self.num_problems:,}{failed}",
            **({"prompts": f"chat, {self.chat}"} if self.chat else {}),
            "top-1": f"{t.top1:.1%}",
            f"any-of-{self.num_answers}": f"{t.any_of_b:.1%}",
            "mean accuracy": f"{t.mean_accuracy:.1%}",
            **{name: f"{grade:.1%}" for name, grade in t.grades.items()},
            "nodes": f"{t.nodes:,}",
            "requests": f"{t.requests:,}",
            "tokens in, out": f"{t.prompt_tokens:,}, {t.completion_tokens:,}",
            "KV tokens": f"{t.unique_kv_tokens:,} unique, {t.logical_kv_tokens:,} logical: "
            f"{_ratio(t.logical_kv_tokens, t.unique_kv_tokens):.2f}x",
            "rounds": f"{t.rounds:,}",
            "mean batch": f"{t.requests_per_round:.1f} requests a round"
            + (forward if t.sequences_per_forward else ""),
            "evictions": f"{t.evicted_kv_tokens:,} KV tokens",
            "parse failures": f"{t.parse_failures:,}",
            "budget hits": f"{t.budget_hits:,}",
            "wall seconds": f"{t.seconds:.1f}{sessions}",
        }
        if t.drafts:
            cells["drafted tokens"] = (
                f"{t.accepted_tokens:,} accepted of {t.drafted_tokens:,}: "
                f"{1 + t.accepted_tokens / t.drafts:.2f} tokens a verification"
            )
        if t.memo_hits:
            cells["memo hits"] = f"{t.memo_hits:,} values not asked for"
        if any(t.scoring_failures.values()):
            counts = (f"{n:,} {kind}" for kind, n in t.scoring_failures.items() if n)
            cells["scoring failures"] = ", ".join(counts).replace("_", " ")
        if any(row.oracle for row in self.rows):
            cells["oracle"] = "the evaluator knew the answers"
        if self.num_others:
            cells["other puzzles"] = (
                f"{self.num_others:,} on disk are not counted, except in rounds and seconds"
            )
        if len(self.resources) > 1:
            kinds = [f"{kind or 'unknown'} ({n:,})" for kind, n in self.resources.items()]
            cells["resources"] = f"{len(kinds)} kinds, with their puzzles: {', '.join(kinds)}"
        num_unreached = sum(not row.reached_terminal for row in self.rows)
        if 0 < num_unreached < len(self.rows):
            cells["terminal states"] = f"{num_unreached:,} of {t.puzzles:,} searches reached none"
        cells["results"] = str(self.directory / "results.jsonl")
        if self.trees:
            cells["a tree"] = str(self.trees[0])
        if self.num_missing_trees:
            cells["trees"] = f"{self.num_missing_trees:,} of {t.puzzles:,} trees are missing"
        width = max(map(len, cells))
        lines = [f"{label:<{width}}  {text}" for label, text in cells.items()]
        advice = [self._advice()] if self.rows and num_unreached == len(self.rows) else []
        return "\n".join([self.title, *([self.note] if self.note else []), *lines, *advice])

    def _advice(self) -> str:
        """What to raise, if no search reached a terminal state."""
        hit = {f"budget.{row.budget_hit}" for row in self.rows if row.budget_hit}
        keys = [*sorted(hit), *(f"{key} ({n})" for key, n in self.search_limits.items())]
        text = "no search reached a terminal state"
        if self.totals.parse_failures:
            text += f" ({self.totals.parse_failures:,} replies could not be read)"
        if not keys:
            return text
        *others, last = keys
        return f"{text}: raise {', '.join(others)} or {last}" if others else f"{text}: raise {last}"

    def failure_line(self) -> str:
        """One line on the failed puzzles, of which there must be one at least."""
        first = self.failures[0]
        where = f"{first.where}: " if first.where else ""
        return (
            f"{len(self.failures)} of {self.num_problems} puzzles failed; "
            f"first {first.problem}: {where}{first.error}: {first.message} "
            f"(all in {self.directory / 'failures.jsonl'})"
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
