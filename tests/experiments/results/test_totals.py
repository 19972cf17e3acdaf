"""Running totals equal the totals of all rows at any time."""

import sys
from dataclasses import asdict, replace
from itertools import cycle

import pytest

from treeshare.experiments.results.rows import Row, Session
from treeshare.experiments.results.summary import Tally, Totals, replayed

ROW = Row(
    "p", True, True, 0.5, 2, ["a", None], 3, 4, 5, 6, 7, 8, 9, 1, None, 0.5, False, 0, {"g": 0.5}
)


def row(number):
    return replace(ROW, problem=f"p/{number}", nodes=number, correct_top1=number % 2 == 0)


def session(number, num_rows, **more):
    return Session(
        number, 10 * num_rows, num_rows, float(num_rows), {"steps": 2.0}, 1, num_rows, **more
    )


def test_totals_are_those_of_all_rows_at_any_time():
    rows = [row(i) for i in range(20)]
    rows[3] = replace(rows[3], budget_hit="requests", grades={})
    sessions = [session(1, 0), session(1, 3), session(2, 9, scoring_failures={"raised": 2})]
    tally = Tally()
    for one in sessions:
        tally.add_session(one)
    for number, one in enumerate(rows, start=1):
        tally.add_row(one)
        assert tally.totals() == Totals.of(rows[:number], sessions)
    totals = asdict(tally.totals())
    assert (totals["puzzles"], totals["top1"], totals["nodes"]) == (20, 0.5, sum(range(20)))
    assert (totals["budget_hits"], totals["sessions"], totals["seconds"]) == (1, 2, 12.0)
    assert totals["grades"] == {"g": pytest.approx(19 * 0.5 / 20)}
    assert totals["scoring_failures"] == {"raised": 2}


def steps_of(call):
    """The number of bytecode instructions that a call executes, nested calls included."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_a_row_costs_the_same_after_100_and_after_20000():
    tally, costs = Tally(), []
    for number in range(20_001):
        if number in (100, 20_000):
            costs.append(steps_of(lambda: (tally.add_row(ROW), tally.totals())))
        else:
            tally.add_row(ROW)
    assert costs[0] == costs[1] > 100


def test_a_run_sums_over_all_rows_once(run_with, monkeypatch):
    calls, of = [], Totals.of
    monkeypatch.setattr(Totals, "of", lambda *args: calls.append(len(args[0])) or of(*args))
    verifier = {"_target_": "bare_task.Likely"}
    run_with(task={"_target_": "bare_task.Bare", "size": 20, "verifier": verifier})
    assert calls == [20]


def test_replayed_totals_are_those_of_the_time():
    rows, sessions, expected = [], [], []
    for number, process in zip(range(9), cycle([1, 1, 2]), strict=False):
        sessions.append(session(process, number))
        rows.append(row(number))
        expected.append(Totals.of(rows, sessions))
    found = list(replayed(rows, [*sessions, session(3, 9)]))
    assert [one for one, _ in found] == rows
    assert [totals for _, totals in found] == expected


def test_sessions_of_earlier_versions_count_from_the_first_row():
    old = [Session(1, 5, 2, 3.0, {}), Session(1, 9, 4, 6.0, {})]
    (_, first), (_, second) = replayed([row(0), row(1)], old)
    assert first.seconds == second.seconds == 6.0 and second.puzzles == 2
