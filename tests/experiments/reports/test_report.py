"""The report on finished runs: intervals, combined seeds, tables and figures."""

import math
import random
import sys

import pytest

from treeshare.experiments.reports.finished_runs import ConfigResult, config_results, find_runs
from treeshare.experiments.reports.intervals import Estimate, bootstrap, wilson
from treeshare.experiments.reports.plots import draw
from treeshare.experiments.reports.report import main, section

RIGHT, WRONG = "5 * (5 - 1 / 5)", "1 + 5 + 5 + 5"  # of the first puzzle
IO = [
    "engine=mock",
    "search=best_of_n",
    "search.role=io",
    "evaluator=heuristic",
    "save_trees=false",
]
SORTING = ["engine=mock", "task=sorting", "search=io"]
REPLIES = [f"engine.replies=['{RIGHT}','{WRONG}']", "task.limit=1"]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),  # bounds are the roots of (p - k/n)² = z² p (1 - p) / n
    [
        (0, 10, 0.0, 0.27754),
        (5, 10, 0.23659, 0.76341),
        (10, 10, 0.72246, 1.0),
        (62, 100, 0.52210, 0.70903),
    ],
)
def test_wilsons_interval(successes, trials, low, high):
    estimate = wilson(successes, trials)
    assert estimate.value == successes / trials
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-5)
    for bound in (estimate.low, estimate.high):
        error = (bound - estimate.value) ** 2
        if 0 < bound < 1:
            assert error == pytest.approx(1.959964**2 * bound * (1 - bound) / trials, rel=1e-5)


def test_the_bootstraps_interval_is_that_of_the_normal_for_many_values():
    rng = random.Random(0)
    values = [rng.gauss(10, 2) for _ in range(400)]
    estimate = bootstrap(values)
    mean = sum(values) / 400
    error = math.sqrt(sum((v - mean) ** 2 for v in values)) / 400
    assert estimate.value == pytest.approx(mean)
    assert estimate.low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert estimate.high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)
    assert estimate == bootstrap(values)
    assert bootstrap([3.0]).low == bootstrap([3.0]).high == 3.0


@pytest.mark.parametrize(
    "call", [lambda: wilson(0, 0), lambda: wilson(3, 2), lambda: bootstrap([])]
)
def test_nothing_has_no_interval(call):
    with pytest.raises(ValueError, match="no interval"):
        call()


@pytest.fixture
def report(monkeypatch, capfd):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["treeshare-report", *map(str, arguments)])
        code = main()
        return code, *capfd.readouterr()

    return call


def test_seeds_of_one_configuration_are_combined(treeshare, tmp_path):
    treeshare("-m", *IO, *REPLIES, "search.num_samples=1,4", "seed=0,1,2")
    treeshare(*IO, *REPLIES, "search.num_samples=1", "evaluator=oracle")
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
    assert oracle.seeds == 1 and oracle.parameters == {}


def test_results_of_one_name_are_distinguished_by_what_differs(treeshare, tmp_path):
    treeshare(*IO, *REPLIES)
    treeshare(*IO[:-2], *REPLIES, "evaluator=logprob")
    parameters = [result.parameters for result in config_results(find_runs([tmp_path]))]
    assert sorted(map(str, parameters)) == [
        "{'evaluator': 'Heuristic'}",
        "{'evaluator': 'LogProb'}",
    ]


def test_the_page_has_a_table_and_a_figure_for_each_task(treeshare, report, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `report`")
    treeshare("-m", *IO, *REPLIES, "search.num_samples=1,4")
    treeshare(*SORTING, "task.limit=3")
    code, out, err = report("outputs", "--out", "page")
    assert (code, out, err) == (0, "page/report.md\n", "")
    page = (tmp_path / "page/report.md").read_text()
    assert (
        "## game24\n\n![game24](game24.svg)\n" in page
        and "| best_of_n num_samples=4 | MockEngine |" in page
    )
    assert "| *ToT, b = 5* | *GPT-4* | 100 |  | 74.0% | 5 |" in page
    assert "## sorting" in page and page.count("GPT-4") == page.partition("## sorting")[0].count(
        "GPT-4"
    )
    for line in page.splitlines():
        if line.startswith("| io"):
            assert line.startswith(
                "| io | MockEngine | 3 | 0.0% [0.0, 56.1] | 0.0% [0.0, 56.1] | 5 |"
            )
    figures = {path.name: path.read_bytes() for path in (tmp_path / "page").glob("*.*g")}
    assert figures.keys() == {"game24.svg", "game24.png", "sorting.svg", "sorting.png"}
    text = figures["game24.svg"].decode()
    for words in ("best_of_n: num_samples", "ToT, b = 5 (GPT-4)", "tokens a puzzle", "any-of-5"):
        assert words in text
    assert "GPT-4" not in figures["sorting.svg"].decode()
    report("outputs/game24", "--out", "again")
    assert (tmp_path / "again/game24.svg").read_bytes() == figures["game24.svg"]


@pytest.mark.parametrize("costs", [[0.0663], [0.1, 0.1 + 1e-12], [0.0], [0.0, 7.0]])
def test_costs_that_have_no_range(costs, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `report`")
    share = Estimate(0.5, 0.2, 0.8)
    shown = [
        ConfigResult(
            "game24", "io", "m", {"num_samples": str(i)}, 1, 1, frozenset("a"), False, share, share,
            share, Estimate(cost, cost, cost), 1.0, cost, 1.0, {},
        )
        for i, cost in enumerate(costs)
    ]  # fmt: skip
    assert all(path.stat().st_size for path in draw("game24", shown, tmp_path))


def test_what_cannot_be_compared_is_said(treeshare, tmp_path):
    treeshare(*IO, *REPLIES)
    treeshare("engine=mock", "search=io", "task.limit=2", "evaluator=oracle")
    text = section("game24", config_results(find_runs([tmp_path])))
    assert "**The runs are not all over the same puzzles.**" in text
    assert "In runs marked oracle the evaluator knew the answers." in text
    assert "arXiv 2305.10601" in text and "counts any of the 5 answers" in text


def test_partial_credit_has_a_column(treeshare, tmp_path):
    treeshare(*SORTING, "task.limit=2")
    text = section("sorting", config_results(find_runs([tmp_path])))
    assert "| mean accuracy | tokens |" in text  # nothing was ranked
    treeshare(*SORTING, "task.limit=2", "engine.replies=['[1, 2, 3]']")
    text = section("sorting", config_results(find_runs([tmp_path])))
    assert "| mean accuracy | score | tokens |" in text


def test_nothing_to_report_is_one_line(report, tmp_path, treeshare):
    (tmp_path / "empty").mkdir()
    for paths, message in (
        (["none"], "none is not a directory"),
        (["empty"], "no results.jsonl with a finished puzzle in empty"),
    ):
        code, out, err = report(*paths)
        assert (code, out, err) == (2, "", f"treeshare-report: {message}\n")
    treeshare(*IO, *REPLIES)
    (file,) = tmp_path.glob("outputs/**/results.jsonl")
    file.write_text("garbage\n")
    code, _, err = report("outputs")
    assert code == 2 and err.count("\n") == 1 and "results.jsonl:1 is not a Row" in err


BARE = {"task": {"_target_": "bare_task.Bare", "verifier": {"_target_": "bare_task.Likely"}}}
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
def test_hostile_configurations_are_one_line(config, run_with, run_directory, report):
    run_with(**BARE)
    (run_directory() / "config.yaml").write_text(config)
    code, out, err = report("outputs")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("treeshare-report: /") and str(run_directory()) in err


def test_doubled_rows_are_one_line(run_with, run_directory, report):
    run_with(**BARE)
    path = run_directory() / "results.jsonl"
    path.write_text(2 * path.read_text())
    code, _, err = report("outputs")
    assert code == 2 and "results.jsonl:3 repeats 'bare/0', the puzzle of line 1" in err


NASTY = "<img src=x onerror=alert(1)>|[a](b)`*$x^{$\\_"


def test_names_cannot_break_out_of_the_page_or_the_plot(run_with, report, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `report`")
    run_with(**BARE, name=NASTY)
    (folder,) = tmp_path.glob("outputs/bare")
    folder.rename(folder.with_name(NASTY))
    assert report("outputs", "--out", "page")[0] == 0
    page = (tmp_path / "page/report.md").read_text()
    for character in "<>`*$\\":
        assert character not in page.replace("**", "").partition("Brackets hold")[0]
    (row,) = (line for line in page.splitlines() if "MockEngine" in line)
    head = next(line for line in page.splitlines() if line.startswith("| run |"))
    assert row.count("|") == head.count("|") and "&#60;img src=x" in row


def test_names_that_no_file_can_hold_are_replaced(run_with, report, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `report`")
    run_with(**BARE)
    (folder,) = tmp_path.glob("outputs/bare/IO")
    folder.rename(folder.with_name("a\udc80b\x07c\n"))
    assert report("outputs", "--out", "page")[0] == 0
    assert "| a\ufffdb\ufffdc\ufffd |" in (tmp_path / "page/report.md").read_text()


def test_without_matplotlib_the_extra_is_named(treeshare, report, monkeypatch):
    treeshare(*IO, *REPLIES)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = report("outputs")
    assert (code, err) == (2, 'treeshare-report: plots need `pip install "treeshare[report]"`\n')
