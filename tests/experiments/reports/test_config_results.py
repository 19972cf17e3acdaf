"""Seeds of one configuration are combined, and configurations are named by what differs."""

import shutil

import pytest

from treeshare.experiments.reports.config_results import config_results
from treeshare.experiments.reports.finished_runs import find_runs
from treeshare.experiments.reports.intervals import wilson

RIGHT, WRONG = "5 * (5 - 1 / 5)", "1 + 5 + 5 + 5"  # of the first puzzle
IO = [
    *("engine=mock", "search=best_of_n", "search.role=io", "evaluator=heuristic"),
    *("save_trees=false", f"engine.replies=['{RIGHT}','{WRONG}']", "task.limit=1"),
]


def test_seeds_of_one_configuration_are_combined(treeshare, tmp_path):
    treeshare("-m", *IO, "search.num_samples=1,4", "seed=0,1,2")
    treeshare(*IO, "search.num_samples=1", "evaluator=oracle")
    runs = find_runs([tmp_path])
    assert len(runs) == 7 and {run.seed for run in runs} == {0, 1, 2}
    found = {
        (result.series, result.parameters.get("num_samples")): result
        for result in config_results(runs)
    }
    assert found.keys() == {("best_of_n", "1"), ("best_of_n", "4"), ("best_of_n (oracle)", None)}
    one, oracle = found["best_of_n", "1"], found["best_of_n (oracle)", None]
    same = [run for run in runs if run.config["search.num_samples"] == 1 and not run.is_oracle]
    share = sum(run.rows[0].correct_top1 for run in same) / 3
    assert (one.seeds, one.task, one.model, one.b) == (3, "game24", "MockEngine", 5)
    assert one.top1 == wilson(share, 1)  # one puzzle, whatever the seeds
    tokens = [run.rows[0].prompt_tokens + run.rows[0].completion_tokens for run in same]
    assert one.tokens.value == pytest.approx(sum(tokens) / 3)
    assert one.seconds == pytest.approx(sum(run.seconds for run in same) / 3) and one.requests == 1
    assert one.nodes == sum(run.rows[0].nodes for run in same) / 3
    assert [means.top1 for means in one.puzzles.values()] == [share]
    assert oracle.seeds == 1 and oracle.parameters == {} and oracle.label == "best_of_n (oracle)"
    assert one.label == "best_of_n num_samples=1"


def test_results_of_one_name_are_distinguished_by_what_differs(treeshare, tmp_path):
    treeshare(*IO)
    treeshare(*IO, "evaluator=logprob")
    parameters = [result.parameters for result in config_results(find_runs([tmp_path]))]
    assert sorted(map(str, parameters)) == [
        "{'evaluator': 'Heuristic'}",
        "{'evaluator': 'LogProb'}",
    ]


def test_a_default_is_named_where_another_run_differs(treeshare, tmp_path):
    treeshare("-m", *IO, "search.num_samples=4,10")  # 10 is the default, which no identity has
    results = config_results(find_runs([tmp_path]))
    assert {result.label for result in results} == {
        "best_of_n num_samples=4",
        "best_of_n num_samples=10",
    }


def test_copies_of_a_run_do_not_count_twice(treeshare, tmp_path):
    treeshare(*IO)
    (alone,) = config_results(find_runs([tmp_path]))
    shutil.copytree(tmp_path / "outputs", tmp_path / "copy")
    (doubled,) = config_results(find_runs([tmp_path]))
    assert doubled.repeated == 1
    assert (doubled.top1, doubled.tokens, doubled.seconds) == (
        *(alone.top1, alone.tokens, alone.seconds),
    )


def test_runs_of_other_numbers_of_answers_are_apart(treeshare, tmp_path):
    treeshare(*IO, "output_dir=a", "answers=1")
    treeshare(*IO, "output_dir=b", "answers=3")
    results = config_results(find_runs([tmp_path]))
    assert {(result.label, result.b) for result in results} == {
        ("best_of_n answers=1", 1),
        ("best_of_n answers=3", 3),
    }
    (together,) = config_results(find_runs([tmp_path], answers=1))
    assert (together.label, together.b, together.repeated) == ("best_of_n", 1, 1)


def test_shards_of_one_run_are_combined(treeshare, tmp_path):
    for shard in ("0/2", "1/2"):
        treeshare("engine=mock", "search=io", "task.limit=5", f"++task.shard={shard}")
    (together,) = config_results(find_runs([tmp_path]))
    assert (len(together.puzzles), together.seeds, together.repeated) == (5, 1, 0)
