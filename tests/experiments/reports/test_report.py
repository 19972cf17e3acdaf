"""The command that writes the report on finished runs."""

import csv
import re
import shlex
import sys

import pytest
from places import ROOT

from treeshare.experiments.reports.report import main

RIGHT, WRONG = "5 * (5 - 1 / 5)", "1 + 5 + 5 + 5"  # of the first puzzle
IO = [
    *("engine=mock", "search=best_of_n", "search.role=io", "evaluator=heuristic"),
    *("save_trees=false", f"engine.replies=['{RIGHT}','{WRONG}']", "task.limit=1"),
]
SORTING = ["engine=mock", "task=sorting", "search=io", "task.limit=3"]
BARE = {"task": {"_target_": "bare_task.Bare", "verifier": {"_target_": "bare_task.Likely"}}}


@pytest.fixture
def report(monkeypatch, capfd):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["treeshare-report", *map(str, arguments)])
        code = main()
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def drawing():
    pytest.importorskip("matplotlib", reason="needs the extra `report`")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("drawing")
def test_the_page_has_a_table_and_a_figure_for_each_task(treeshare, report, tmp_path):
    treeshare("-m", *IO, "search.num_samples=1,4")
    treeshare(*SORTING)
    code, out, err = report("outputs", "--out", "page")
    assert (code, out, err) == (0, "page/report.md\n", "")
    page = (tmp_path / "page/report.md").read_text()
    assert "## game24\n\n![game24](game24.svg)\n" in page
    assert "| best_of_n num_samples=4 | MockEngine |" in page
    assert (
        "| best_of_n num_samples=1 | best_of_n num_samples=4 | MockEngine | McNemar | 1 |" in page
    )
    assert "## sorting" in page and "GPT-4" not in page.partition("## sorting")[2]
    (line,) = (line for line in page.splitlines() if line.startswith("| io | MockEngine |"))
    assert line.startswith("| io | MockEngine | 3 | 0.0% [0.0, 56.1] | 0.0% [0.0, 56.1] | 5 |")
    assert names(tmp_path / "page") == [
        *("game24.png", "game24.svg", "report.md", "sorting.png", "sorting.svg"),
    ]
    svg = (tmp_path / "page/game24.svg").read_text()
    for words in ("best_of_n num_samples=1", "ToT, b = 5 (GPT-4)", "tokens a puzzle", "any-of-5"):
        assert words in svg
    for words in ("seconds a puzzle", "nodes a puzzle"):
        assert words in svg
    assert "GPT-4" not in (tmp_path / "page/sorting.svg").read_text()
    report("outputs/game24", "--out", "again")
    assert (tmp_path / "again/game24.svg").read_text() == svg


@pytest.mark.usefixtures("drawing")
def test_formats_are_written_into_the_directory(treeshare, report, tmp_path):
    treeshare(*IO)
    treeshare(*IO, "search.num_samples=1")
    code, out, err = report("outputs", "--format", "md,csv,tex,html", "--x", "nodes")
    assert (code, err) == (0, "")
    assert out.split() == [f"report/report.{kind}" for kind in ("md", "csv", "tex", "html")]
    assert names(tmp_path / "report") == [
        *("game24.pdf", "game24.png", "game24.svg", "report.csv", "report.html", "report.md"),
        *("report.pairs.csv", "report.tex"),
    ]
    svg = (tmp_path / "report/game24.svg").read_text()
    assert "nodes a puzzle" in svg and "tokens a puzzle" not in svg
    assert "data:image/svg+xml;base64," in (tmp_path / "report/report.html").read_text()


def test_the_ending_of_a_file_is_its_format(treeshare, report, tmp_path, monkeypatch):
    treeshare(*IO)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # a CSV file has no figures
    assert report("outputs", "-o", "tables/all.csv") == (0, "tables/all.csv\n", "")
    assert names(tmp_path / "tables") == ["all.csv"]  # nothing to compare
    with (tmp_path / "tables/all.csv").open() as file:
        row = next(csv.DictReader(file))
    assert (row["task"], row["run"], row["puzzles"]) == ("game24", "best_of_n", "1")


def test_options_choose_columns_baseline_and_answers(treeshare, report, tmp_path):
    treeshare("-m", *IO, "search.num_samples=1,2,4")
    report(
        *("outputs", "-o", "all.csv", "--columns", "run,b,any_of_b", "--answers", "1"),
        *("--baseline", "best_of_n num_samples=2"),
    )
    ours = (tmp_path / "all.csv").read_text().splitlines()[:4]
    assert ours[0] == "task,run,any_of_b,any_of_b_low,any_of_b_high,b,note"
    assert all(line.endswith(",1,") for line in ours[1:])
    pairs = (tmp_path / "all.pairs.csv").read_text().splitlines()[1:]
    assert len(pairs) == 2 and all(
        ",best_of_n num_samples=2,MockEngine,McNemar," in line for line in pairs
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "none is not a directory"),
        (["empty"], "no results.jsonl with a finished puzzle in empty"),
        (["outputs", "--baseline", "beam"], "no run is named 'beam'; there are best_of_n"),
        (["outputs", "--columns", "top-1"], "there is no column 'top-1'; there are run, model, "),
        (["outputs", "--answers", "9"], "the first 5 answers are marked, not 9"),
        (["outputs", "--answers", "0"], "answers=0 must be at least 1"),
    ],
)
def test_errors_are_one_line(arguments, said, report, tmp_path, treeshare):
    (tmp_path / "empty").mkdir()
    treeshare(*IO)
    code, out, err = report(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("treeshare-report: ") and said in err
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--format", "pdf"], "'pdf' is none of md, csv, tex, html"),
        (["--x", "time"], "'time' is none of tokens, seconds, nodes"),
    ],
)
def test_unknown_words_are_named(option, said, report, capfd):
    with pytest.raises(SystemExit) as info:
        report("outputs", *option)
    assert info.value.code == 2 and said in capfd.readouterr().err


def test_damaged_rows_are_one_line(report, run_with, run_directory):
    run_with(**BARE)
    (run_directory() / "results.jsonl").write_text("garbage\n")
    code, _, err = report("outputs")
    assert code == 2 and err.count("\n") == 1 and "results.jsonl:1 is not a Row" in err


NASTY = "<img src=x onerror=alert(1)>|[a](b)`*$x^{$\\_"


@pytest.mark.usefixtures("drawing")
@pytest.mark.parametrize("task", [NASTY, "../../outside", "/etc/outside", "t" * 300, "..", ""])
def test_names_cannot_break_out_of_the_page_or_the_folder(
    task, run_with, run_directory, report, tmp_path
):
    run_with(**BARE, name=NASTY)
    path = run_directory() / "meta.json"
    path.write_text(
        path.read_text().replace('"task": "bare"', f'"task": "{task!s}"'.replace("\\", "\\\\"))
    )
    before = set(tmp_path.rglob("*"))
    assert report("outputs", "--out", "page", "--x", "nodes", "--format", "md,tex,html")[0] == 0
    made = set(tmp_path.rglob("*")) - before
    assert len(made) == 7  # the folder, three pages, three figures
    assert {path.parent for path in made} == {tmp_path, tmp_path / "page"}
    page = (tmp_path / "page/report.md").read_text()
    for character in "<>`*$\\":
        assert character not in page.replace("**", "")
    assert "&#60;img src=x" in page


def test_without_matplotlib_the_extra_is_named(treeshare, report, monkeypatch):
    treeshare(*IO)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = report("outputs")
    assert (code, err) == (2, 'treeshare-report: plots need `pip install "treeshare[report]"`\n')


@pytest.mark.usefixtures("drawing")
def test_commands_of_the_page_run(treeshare, report, tmp_path):
    page = (ROOT / "docs/reports.md").read_text()
    commands = re.findall(r"^treeshare-report (.+)", page, re.MULTILINE)
    assert len(commands) >= 6
    treeshare("-m", "engine=mock", "search=cot,io", "task.limit=1")
    for command in commands:
        code, out, err = report(*shlex.split(command, comments=True))
        assert (code, err) == (0, ""), command
        assert all((tmp_path / path).stat().st_size for path in out.split())
    assert (tmp_path / "results.pairs.csv").exists()
