"""Jobs work on parts of a run at the same time, and the run takes in what they found."""

import json
import sys
from contextlib import ExitStack

import pytest

from treeshare.experiments.reports.finished_runs import find_runs
from treeshare.experiments.results import shards
from treeshare.experiments.results.directory import exclusive, set_aside
from treeshare.experiments.results.shards import Shard, is_counted, shard_directories
from treeshare.experiments.runs.config import SetupError
from treeshare.tasks.task import Problem

EDITED = "from bare_task import Bare, Likely\n\nclass Task(Bare):\n    pass\n"


def bare(shard=None, size=10, **more):
    verifier = {"_target_": "bare_task.Likely"}
    task = {"_target_": "limited_task.Limited", "limit": size, "verifier": verifier}
    return {"task": task | {"shard": shard}, **more}


def results(directory):
    """The rows by puzzle, without times and processes, and the trees."""
    rows = [json.loads(line) for line in (directory / "results.jsonl").read_text().splitlines()]
    assert len({row["problem"] for row in rows}) == len(rows)
    kept = {row["problem"]: {**row, "seconds": 0, "session": 0} for row in rows}
    return kept, {path.name: path.read_text() for path in (directory / "trees").iterdir()}


@pytest.fixture
def whole(run_with, run_directory, tmp_path):
    """What a run without shards finds."""
    run_with(**bare())
    found = results(run_directory())
    run_directory().rename(tmp_path / "whole")
    return found


@pytest.mark.parametrize("text", ["8/8", "1/0", "-1/8", "a/b", "1", "1/2/3", "", 3])
def test_what_is_no_shard_is_refused(text, run_with, tmp_path):
    with pytest.raises(SetupError) as info:
        run_with(**bare(text))
    line = f"task.shard={text} must be i/n with i from 0 to n - 1, such as 0/8"
    assert str(info.value) == f"task: {line}" or str(info.value) == line
    assert not list(tmp_path.iterdir())


def test_a_shard_without_a_puzzle_is_refused(run_with):
    with pytest.raises(SetupError, match=r"task\.shard=9/10 has no puzzle: there are 3 in all"):
        run_with(**bare("9/10", size=3))


def test_shards_are_disjoint_and_together_the_whole():
    problems = [Problem(str(i), i) for i in range(10)]
    parts = [Shard(i, 4).take(problems) for i in range(4)]
    assert [problem.data for problem in parts[1]] == [1, 5, 9]
    assert sorted(problem.data for part in parts for problem in part) == list(range(10))


def test_shards_are_put_together(run_with, run_directory, whole, tmp_path):
    for i in range(3):
        summary = run_with(**bare(f"{i}/4"))
        assert summary.title == f"bare IO MockEngine seed 0 shard {i}/4"
        assert summary.num_problems == len(summary.rows)
    directory = run_directory()
    names = [path.name for path in shard_directories(directory)]
    assert names == ["0-of-4", "1-of-4", "2-of-4"]
    assert len(find_runs([tmp_path / "outputs"])) == 3

    summary = run_with(**bare())  # searches the missing part
    assert (summary.totals.puzzles, summary.totals.sessions, summary.note) == (10, 4, "")
    assert results(directory) == whole
    assert {row.session for row in summary.rows} == {1, 2, 3, 4}
    assert [path.name for path in shard_directories(directory)] == names  # they stay
    (run,) = find_runs([tmp_path / "outputs"])
    assert len(run.rows) == 10
    assert len(find_runs([directory / "shards/0-of-4"])) == 1


def test_shards_that_are_the_whole_need_no_engine(run_with, run_directory, whole):
    for i in range(2):
        run_with(**bare(f"{i}/2"))
    summary = run_with(**bare())
    assert summary.note == "10 puzzles were taken from shards: nothing was run"
    assert results(run_directory()) == whole
    assert run_with(**bare()).note == "already finished: nothing was run"


def test_doubled_puzzles_are_taken_once(run_with, run_directory, whole):
    run_with(**bare(size=4))
    for shard in ("0/2", "0/3", "1/3"):
        run_with(**bare(shard))
    assert run_with(**bare()).totals.puzzles == 10
    assert results(run_directory()) == whole


def test_a_shard_that_goes_on_is_taken_in_again(run_with, run_directory):
    run_with(**bare("0/2", size=4))
    run_with(**bare(size=2))
    run_with(**bare("0/2"))
    summary = run_with(**bare())
    assert (summary.totals.puzzles, summary.totals.sessions) == (10, 4)
    assert len({row.problem for row in summary.rows}) == 10


def test_a_shard_at_work_is_passed_over_and_not_overwritten(run_with, run_directory):
    for i in range(2):
        run_with(**bare(f"{i}/2"))
    directory = run_directory()
    with exclusive(directory / "shards/1-of-2"):
        with pytest.raises(SetupError, match=r"another process is at work in .*/shards/1-of-2"):
            run_with(**bare(overwrite=True))
        with pytest.raises(SetupError, match=r"another process is at work in .*/shards/1-of-2"):
            run_with(**bare("1/2", size=30))
        assert run_with(**bare()).totals.sessions == 2  # of the one shard, and its own
    run_with(**bare(overwrite=True))
    assert not shard_directories(directory)
    earlier = directory.with_name(f"{directory.name}.earlier-1")
    assert len(shard_directories(earlier)) == 2


def test_an_interrupted_adoption_goes_on(run_with, run_directory, whole, monkeypatch):
    for i in range(2):
        run_with(**bare(f"{i}/2"))
    directory = run_directory()
    append, count = shards.RunDirectory.save_tree, 0

    def interrupted(self, problem, tree):
        nonlocal count
        count += 1
        if count in (1, 4, 9):
            raise KeyboardInterrupt
        append(self, problem, tree)

    monkeypatch.setattr(shards.RunDirectory, "save_tree", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run_with(**bare())
    assert run_with(**bare()).totals.sessions == 2
    assert results(directory) == whole


def test_a_shard_of_another_code_is_refused(run_with, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    verifier = {"_target_": "sharded.Likely"}
    task = {"_target_": "sharded.Task", "size": 4, "verifier": verifier}
    (tmp_path / "sharded.py").write_text(EDITED)
    run_with(task=task | {"shard": "0/2"})
    (tmp_path / "sharded.py").write_text(EDITED.replace("pass", "extra = 1"))
    sys.modules.pop("sharded")
    with pytest.raises(SetupError, match=r"^sharded\.py has changed since this run began"):
        run_with(task=task)
    sys.modules.pop("sharded")


def test_eight_jobs_run_at_once(treeshare, treeshare_process, tmp_path):
    command = ["engine=mock", "search=io", "task.limit=4"]
    with ExitStack() as stack:  # each holds the lock of its part alone
        for i in range(3):
            directory = tmp_path / "outputs/game24/io/MockEngine"
            stack.enter_context(exclusive(directory / f"x/shards/{i}-of-8"))
    multirun = treeshare("-m", *command, "task.shard=0/2,1/2")
    assert multirun.code == 0 and multirun.out.count("puzzles         2 of 2") == 2
    assert "4 puzzles were taken from shards: nothing was run" in treeshare(*command).out


def test_set_aside_takes_the_next_free_number(tmp_path):
    directory = tmp_path / "run"
    for number in (1, 2):
        directory.mkdir()
        (directory / "file").write_text(str(number))
        set_aside(directory)
        assert (tmp_path / f"run.earlier-{number}/file").read_text() == str(number)
    set_aside(directory)
    assert not directory.exists() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("run", True),
        ("run.earlier-2", False),
        ("run.earlier-2/shards/0-of-2", False),
        ("run/shards/0-of-2", False),
        ("bare/shards/0-of-2", True),
    ],
)
def test_which_directories_are_runs_of_their_own(path, counts, tmp_path):
    (tmp_path / path).mkdir(parents=True)
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run/results.jsonl").write_text("{}\n")
    assert is_counted(tmp_path / path, tmp_path) == counts
    assert is_counted(tmp_path / path, tmp_path / path)
