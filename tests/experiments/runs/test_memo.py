"""A run with a memo is reported and resumed, and refused if its values would be wrong."""

import json

import pytest

MEMO = ["engine=mock", "task.limit=4", "max_live=1", "evaluator=memo"]
PLAIN = [*MEMO[:3], "evaluator=value", "evaluator.mode=score"]
SPENT = ("requests", "rounds", "seconds", "unique_kv_tokens", "logical_kv_tokens")
SPENT += ("prompt_tokens", "completion_tokens", "session")


def found(directory):
    """The rows without what the search spent and the number of the process, and the trees."""
    rows = [json.loads(line) for line in (directory / "results.jsonl").read_text().splitlines()]
    kept = [{key: row[key] for key in row if key not in SPENT} for row in rows]
    trees = {path.name: path.read_text() for path in (directory / "trees").iterdir()}
    return kept, trees


@pytest.fixture
def finish(treeshare, run_directory, tmp_path):
    """Runs to the end, moves the directory away, and returns results, last session and table."""

    def call(*args):
        done = treeshare(*args)
        assert done.code == 0, done.err
        path = run_directory()
        session = json.loads((path / "sessions.jsonl").read_text().splitlines()[-1])
        result = found(path), session, done.out
        path.rename(tmp_path / f"moved{len(list(tmp_path.iterdir()))}")
        return result

    return call


def test_hits_are_reported_and_change_nothing(finish):
    results, session, table = finish(*MEMO)
    expected, plain_session, plain_table = finish(*PLAIN)
    assert results == expected
    assert plain_session["memo_hits"] == 0 and "memo hits" not in plain_table
    assert session["memo_hits"] > 0
    assert f"{session['memo_hits']:,} values not asked for" in table
    assert session["requests"] + session["memo_hits"] == plain_session["requests"]


@pytest.mark.parametrize("more", [[], ["record=true"]], ids=["", "recorded"])
def test_interrupted_run_finds_the_same(more, finish, treeshare, monkeypatch):
    command = [*MEMO, "engine._target_=troubled_engines.Interrupted", *more]
    expected, _, _ = finish(*command)
    monkeypatch.setenv("BREAK_AT", "9")
    assert treeshare(*command).code == 130
    monkeypatch.delenv("BREAK_AT")
    results, session, _ = finish(*command)
    assert session["number"] == 2
    assert results == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "evaluator.evaluator.mode=sample",
            "evaluator: Memo cannot keep the values of ValuePrompt",
        ),
        ("budget=small", "budget.requests cannot be used with Memo"),
    ],
)
def test_what_is_not_sound_is_refused(override, message, treeshare, tmp_path):
    done = treeshare(*MEMO, override)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_other_evaluators_can_be_wrapped_and_combined(treeshare, read_rows):
    prefix = "treeshare.search"
    done = treeshare(
        *MEMO[:3],
        "evaluator=combined",
        f"evaluator.evaluators.value._target_={prefix}.Memo",
        f"++evaluator.evaluators.value.evaluator._target_={prefix}.SelfEvaluation",
        "++evaluator.evaluators.oracle={_target_: " + prefix + ".Oracle, verifier: "
        "{_target_: treeshare.tasks.Game24Verifier}}",
        "++evaluator.weights.oracle=0.1",
    )
    assert done.code == 0, done.err
    assert "memo hits" in done.out and "the evaluator knew the answers" in done.out
    assert all(row["oracle"] for row in read_rows())
