"""Rows of finished runs, with the number of answers that counts; damaged runs are refused."""

import json

import pytest

from treeshare.experiments.reports.finished_runs import find_runs

TEN = [
    *("engine=mock", "search=best_of_n", "search.role=io", "evaluator=heuristic"),
    *("search.num_samples=10", "task.limit=1", "save_trees=false"),
]
RIGHT, WRONG = "5 * (5 - 1 / 5)", "1 + 5 + 5 + 5"  # of the first puzzle
REPLIES = f"engine.replies=['{RIGHT}','{WRONG}']"
BARE = {"task": {"_target_": "bare_task.Bare", "verifier": {"_target_": "bare_task.Likely"}}}


def counted(tmp_path, answers=None):
    (run,) = find_runs([tmp_path], answers)
    (row,) = run.rows
    return run.b, len(row.answers), row.correct_any, row.mean_accuracy


def test_fewer_answers_are_counted_from_the_marks(treeshare, tmp_path, run_directory):
    treeshare(*TEN, REPLIES)
    path = run_directory() / "results.jsonl"
    row = json.loads(path.read_text())
    assert len(row["answers"]) == 5 < row["num_ranked"]
    marks = [False, False, True, True, False]
    row |= {"correct": marks, "correct_top1": False, "correct_any": True, "mean_accuracy": 0.4}
    path.write_text(json.dumps(row) + "\n")
    assert counted(tmp_path) == (5, 5, True, 0.4)
    assert counted(tmp_path, 5) == (5, 5, True, 0.4)
    assert counted(tmp_path, 3) == (3, 3, True, 1 / 3)
    assert counted(tmp_path, 2) == (2, 2, False, 0.0)
    with pytest.raises(ValueError, match="only the first 5 answers are marked, not 7"):
        find_runs([tmp_path], 7)


def test_more_answers_than_were_ranked_are_all_of_them(treeshare, tmp_path, run_directory):
    treeshare(*TEN, REPLIES, "answers=20")
    _, length, *_ = counted(tmp_path)
    assert counted(tmp_path, 50)[:2] == (50, length)


def test_a_later_session_may_have_counted_fewer(treeshare, tmp_path, run_directory):
    treeshare(*TEN, REPLIES, "answers=5")
    path = run_directory() / "config.yaml"
    path.write_text(path.read_text().replace("answers: 5", "answers: 8"))
    assert counted(tmp_path)[:2] == (5, 5)


def test_rows_of_version_0_1_0_have_one_number_of_answers(treeshare, tmp_path, run_directory):
    treeshare(*TEN, REPLIES)
    path = run_directory() / "results.jsonl"
    row = json.loads(path.read_text())
    for key in ("correct", "more_answers", "num_ranked"):
        del row[key]
    path.write_text(json.dumps(row) + "\n")
    assert counted(tmp_path)[:2] == (5, 5)
    for answers in (3, 7):
        with pytest.raises(ValueError, match=f"the first 5 answers are marked, not {answers}"):
            find_runs([tmp_path], answers)


def test_failures_and_devices_are_read(run_with, run_directory, tmp_path):
    run_with(**BARE)
    failure = dict.fromkeys(("problem", "error", "message", "traceback"), "x")
    (run_directory() / "failures.jsonl").write_text(json.dumps(failure) + "\n")
    sessions = run_directory() / "sessions.jsonl"
    lines = [json.loads(line) for line in sessions.read_text().splitlines()]
    for line in lines:
        line["resources"] = {"device": "cuda", "dtype": "bfloat16"}
    sessions.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (run,) = find_runs([tmp_path])
    assert run.num_failed == 1
    assert run.resources == {"cuda bfloat16": len(run.rows)}


def test_many_kinds_of_grades_are_refused(run_with, run_directory, tmp_path):
    run_with(**BARE)
    path = run_directory() / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["grades"] = {f"grade {i}": 0.5 for i in range(21)}
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(ValueError, match=r"results\.jsonl has more than 20 kinds of grades"):
        find_runs([tmp_path])


HOSTILE_CONFIGS = {
    "bomb": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "garbage": "a: [1",
    "no answers": "seed: 0",
    "no seed": "answers: 5",
    "list": "[1, 2]",
    "wrong types": "seed: [0]\nanswers: five",
    "true": "seed: true\nanswers: true",
    "another seed": "seed: 3\nanswers: 5",
}


@pytest.mark.parametrize("config", HOSTILE_CONFIGS.values(), ids=HOSTILE_CONFIGS)
def test_hostile_configurations_are_refused_by_name(config, run_with, run_directory, tmp_path):
    run_with(**BARE)
    (run_directory() / "config.yaml").write_text(config)
    with pytest.raises(ValueError) as info:
        find_runs([tmp_path])
    assert str(run_directory()) in str(info.value) and "\n" not in str(info.value)


@pytest.mark.parametrize("meta", ["[", "[]", '{"layout": 3}', '{"layout": 2, "task": 1}'])
def test_hostile_meta_is_refused_by_name(meta, run_with, run_directory, tmp_path):
    run_with(**BARE)
    (run_directory() / "meta.json").write_text(meta)
    with pytest.raises(ValueError, match=r"meta\.json"):
        find_runs([tmp_path])


def test_doubled_rows_are_refused_by_line(run_with, run_directory, tmp_path):
    run_with(**BARE)
    path = run_directory() / "results.jsonl"
    path.write_text(2 * path.read_text())
    with pytest.raises(ValueError, match=r"results\.jsonl:3 repeats 'bare/0'"):
        find_runs([tmp_path])
