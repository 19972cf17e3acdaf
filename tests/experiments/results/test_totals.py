"""Running totals equal the totals of all rows at any time."""

import sys
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path

import pytest

from treeshare.experiments.results.rows import Row, Session
from treeshare.experiments.results.summary import (
    Summary,
    Tally,
    Totals,
    replayed,
    search_limits,
)
from treeshare.search import IO, MCTS, BestFirst, Choose, CoT, Sample, SelfConsistency, ToTBFS

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


def reached(*numbers, **more):
    """A summary of ten rows, of which these reached a terminal state."""
    rows = [replace(row(i), reached_terminal=i in numbers, **more) for i in range(10)]
    return Summary("title", Path("run"), 10, 5, rows, [], Totals.of(rows, []), [], 0)


def test_the_table_says_how_many_searches_reached_no_terminal_state():
    assert "terminal" not in reached(*range(10)).table()
    lines = reached(2, 3, 4).table().splitlines()
    assert "terminal states  7 of 10 searches reached none" in lines
    assert lines[-1].startswith("results ")


@pytest.mark.parametrize(
    ("limits", "hit", "said"),
    [
        ({}, None, " (10 replies could not be read)"),
        ({"search.depth": 3}, None, " (10 replies could not be read): raise search.depth (3)"),
        (
            {"search.depth": 3, "search.expansions": 30},
            "nodes",
            " (10 replies could not be read): raise budget.nodes, search.depth (3) or "
            "search.expansions (30)",
        ),
    ],
)
def test_if_no_search_reached_one_the_table_says_what_to_raise(limits, hit, said):
    summary = replace(reached(budget_hit=hit), search_limits=limits)
    assert summary.table().splitlines()[-1] == f"no search reached a terminal state{said}"


def test_the_limits_of_a_search_are_the_keys_that_it_has():
    sampling = {"step": {"max_tokens": 8}, "io": {"max_tokens": 9}, "cot": {}, "value": {}}
    step, io = {"+task.sampling.step.max_tokens": 8}, {"+task.sampling.io.max_tokens": 9}

    def limits(policy, expander=Sample()):  # noqa: B008
        return search_limits(policy, expander, sampling, 4)

    assert limits(ToTBFS()) == {"search.depth": 4, **step}
    assert limits(ToTBFS(depth=2), Choose()) == {"search.depth": 2}
    assert limits(BestFirst()) == {"search.expansions": 30, **step}
    assert limits(MCTS(), Choose()) == {"search.depth": 4, "search.num_simulations": 100}
    assert limits(IO()) == limits(SelfConsistency(role="io")) == io
    assert limits(CoT()) == {}
    assert limits(object(), Choose()) == {}


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
