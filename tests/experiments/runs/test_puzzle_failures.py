"""An exception of one puzzle becomes one line of failures.jsonl; the others go on."""

import json

import pytest
from places import PARTS

from treeshare.experiments.runs.config import SetupError
from treeshare.experiments.runs.failures import failing_line


def parts(task=None, verifier=None, policy=None, **more):
    """The configuration of a task, a verifier and a policy with the given faults."""
    verifying = {"_target_": "troubled_tasks.Verifier", **(verifier or {})}
    return {
        "task": {"_target_": "troubled_tasks.Task", **(task or {}), "verifier": verifying},
        "search": {"_target_": "troubled_tasks.Policy", **(policy or {})},
        **more,
    }


def at(where, fault=""):
    return {"where": where, "fault": fault}


FAULTS = {
    "root": parts(task=at("root")),
    "answer": parts(task=at("answer")),
    "check": parts(verifier=at("check")),
    "grades": parts(verifier=at("grades")),
    "policy": parts(policy={"fault": "divides"}),
}
OTHERS = {
    "text of a state": (parts(task=at("text")), "RuntimeError: no text"),
    "kind of an answer": (
        parts(task=at("answer_kind", "list")),
        "TypeError: the answer is [3], which is not a number",
    ),
    "check exits": (parts(verifier=at("check", "exits")), "SystemExit: 0"),
    "answer exits": (parts(task=at("answer", "exits")), "SystemExit: 0"),
    "root exits": (parts(task=at("root", "exits")), "SystemExit: 0"),
    "policy exits": (parts(policy={"fault": "exits"}), "SystemExit"),
    "check panics": (parts(verifier=at("check", "panics")), "BaseException: a panic"),
    "message that cannot be made": (
        parts(verifier=at("check", "unprintable")),
        "Unprintable: <exception str() failed>",
    ),
    "grade is NaN": (parts(verifier=at("grades", "nan")), "ValueError: grades={'score': nan}"),
    "grade is text": (
        parts(verifier=at("grades", "text")),
        "TypeError: grade 'score' is 'good', which is not a number",
    ),
    "value is text": (parts(policy={"fault": "value"}), "'good'"),
    "best is no list": (parts(policy={"fault": "best"}), "ctx.best"),
}


@pytest.mark.parametrize("given", FAULTS.values(), ids=FAULTS)
def test_the_others_go_on_and_the_users_line_is_named(given, run_with, read_rows):
    lines = (PARTS / "troubled_tasks.py").read_text().splitlines()
    (line,) = (number for number, text in enumerate(lines, start=1) if "1 / 0" in text)
    said = run_with(**given).failure_line()
    assert said.startswith("1 of 3 puzzles failed; first bare/1: ")
    assert f"troubled_tasks.py:{line}: ZeroDivisionError: division by zero" in said
    assert said.endswith("/failures.jsonl)")
    (failure,) = read_rows("failures.jsonl")
    assert failure["problem"] == "bare/1" and "Traceback" in failure["traceback"]
    assert [row["problem"] for row in read_rows()] == ["bare/0", "bare/2"]
    assert run_with(**given).failure_line() == said  # the same when it is resumed


@pytest.mark.parametrize(("given", "said"), OTHERS.values(), ids=OTHERS)
def test_other_errors_are_a_line_too(given, said, run_with, read_rows):
    summary = run_with(**given)
    assert len(summary.failures) == 1 and said in summary.failure_line()
    assert [row["problem"] for row in read_rows()] == ["bare/0", "bare/2"]


def test_command_ends_with_one_line_and_code_1(treeshare):
    part = "troubled_tasks"
    done = treeshare(
        *(
            "engine=mock",
            "expander=sample",
            "evaluator=logprob",
            f"task._target_={part}.Task",
            f"task.verifier._target_={part}.Verifier",
        ),
        *(f"search._target_={part}.Policy", "+search.fault=exits"),
    )
    assert done.code == 1 and done.err.count("\n") == 1
    assert done.err.startswith("treeshare: 1 of 3 puzzles failed; first bare/1: ")
    assert "puzzles         2 of 3 (1 failed)" in done.out


def test_first_problem_may_be_the_bad_one(run_with, read_rows):
    ids = ["bare/1", "bare/0", "bare/2"]
    summary = run_with(**parts(task={**at("root"), "ids": ids}))
    assert "first bare/1: " in summary.failure_line()
    assert [row["problem"] for row in read_rows()] == ["bare/0", "bare/2"]


def test_fail_fast_stops_at_a_puzzle_that_cannot_begin(run_with, read_rows):
    assert run_with(**FAULTS["root"], fail_fast=True).failures
    assert [row["problem"] for row in read_rows()] == ["bare/0"]


def test_interrupt_in_a_verifier_ends_the_run(run_with, read_rows, monkeypatch):
    monkeypatch.syspath_prepend(PARTS)
    import troubled_tasks

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(troubled_tasks, "go_wrong", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_with(**FAULTS["check"])
    assert [row["problem"] for row in read_rows()] == ["bare/0"]


@pytest.mark.parametrize("kind", ["number", "numpy", "torch"])
def test_numbers_become_plain(kind, run_with, read_rows, run_directory):
    given = parts(task=at("answer_kind", kind))
    assert not run_with(**given, evaluator={"_target_": "troubled_tasks.Numbers"}).failures
    row = read_rows()[1]
    assert row["answers"] == ["3", "3"] and row["grades"] == {"score": 0.5}
    tree = json.loads((run_directory() / "trees" / "bare+1.json").read_text())
    node = tree["nodes"][1]
    found = (node["value"], node["prior"], node["visits"], node["value_sum"], node["is_terminal"])
    assert found == (0.25, 0.5, 2, 1.0, True)


def test_ids_that_are_no_file_names(run_with, read_rows, run_directory):
    ids = ["x" * 300, "x" * 299 + "y", "\ud800", "é" * 100, "", "a\nb"]
    summary = run_with(**parts(task={"ids": ids}))
    assert not summary.failures and summary.num_missing_trees == 0
    assert [row["problem"] for row in read_rows()] == ids
    trees = [json.loads(path.read_text()) for path in (run_directory() / "trees").iterdir()]
    assert {tree["graph"]["problem"] for tree in trees} == set(ids)
    assert run_with(**parts(task={"ids": ids})).rows == summary.rows


def test_ids_that_are_no_text_are_refused(run_with):
    with pytest.raises(SetupError, match="task: a problem has the id 1; ids must be text"):
        run_with(**parts(task={"ids": [1, 2]}))


def test_scoring_failures_are_counted_where_there_are_some(run_with, read_rows):
    table = run_with(**parts(verifier=at("counts"))).table()
    assert "scoring failures  6 timed out\n" in table
    assert read_rows("sessions.jsonl")[-1]["scoring_failures"] == {"raised": 0, "timed_out": 6}


def test_scoring_failures_are_left_out_where_there_are_none(run_with):
    assert "scoring failures" not in run_with(**parts()).table()


def test_innermost_line_outside_of_libraries_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import json\n\n\ndef read():\n    json.loads('{')\n")
    monkeypatch.syspath_prepend(tmp_path)
    import mine

    with pytest.raises(ValueError) as info:
        mine.read()
    assert failing_line(info.value) == "mine.py:5"
    wrapped = RuntimeError("of the package")
    wrapped.__cause__ = info.value
    info.value.__cause__ = wrapped
    assert failing_line(wrapped) == "mine.py:5"
    assert failing_line(ValueError("never raised")) == ""


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("/tmp/ipykernel_7/123.py", "/tmp/ipykernel_7/123.py:1"),  # a cell of a notebook
        ("<string>", ""),
        ("numpy/random/mtrand.pyx", ""),  # compiled code of a library
        (json.__file__, ""),
    ],
)
def test_a_cell_of_a_notebook_is_the_users_code(file, line):
    with pytest.raises(ZeroDivisionError) as info:
        exec(compile("1 / 0", file, "exec"), {})
    traceback = info.value.__traceback__.tb_next  # without this test
    assert failing_line(info.value.with_traceback(traceback)) == line
