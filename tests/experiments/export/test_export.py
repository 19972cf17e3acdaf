"""The command: its files, its summary, its errors, and the page about it."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from treeshare.experiments.export import export as command
from treeshare.experiments.export.export import FORMATS
from treeshare.experiments.run import main as treeshare
from treeshare.experiments.training.main import main as training

PAGE = (ROOT / "docs/export.md").read_text()


@pytest.mark.parametrize("format", FORMATS)
def test_standard_output_and_files_have_the_same_lines(format, solved, export, tmp_path):
    code, lines, summary = export(solved, "--format", format)
    assert code == 0 and lines
    output = tmp_path / "lines.jsonl"
    assert export(solved, "--format", format, "--output", output) == (0, [], summary)
    assert [json.loads(line) for line in output.read_text().splitlines()] == lines
    rows = dict(line.split(None, 1) for line in summary.splitlines())
    assert rows.pop("runs") == "1"
    assert int(rows.pop("puzzles")) == len({line["problem"] for line in lines}) == 2
    assert int(rows.pop(FORMATS[format]).replace(",", "")) == len(lines)
    if format == "steps":
        assert int(rows.pop("steps")) == sum(len(line["labels"]) for line in lines)
    assert not rows


def test_options_reach_the_lines(solved, export):
    _, every, _ = export(solved, "--format", "sft", "--style", "text")
    assert set(every[0]) >= {"prompt", "completion"}
    _, best, _ = export(solved, "--format", "sft", "--style", "text", "--most", "1")
    assert len(best) == 2 < len(every)
    pairs = [*("--format", "preferences"), "--margin", "0.3", "--value", "solved"]
    _, lines, _ = export(solved, *pairs)
    assert all(line["margin"] >= 0.3 for line in lines)
    nodes = [(line["problem"], line["node"]) for line in lines]
    assert max(map(nodes.count, nodes)) <= 4


def test_runs_below_a_directory_are_exported_together(searched, export):
    first = searched("task=countdown", "task.numbers=3", "task.limit=2", "evaluator=oracle")
    second = searched("task=countdown", "task.numbers=4", "task.limit=2", "evaluator=oracle")
    code, lines, summary = export(first.parents[3], second, "--format", "sft")
    assert code == 0
    assert {line["run"] for line in lines} == {first.name, second.name}
    assert summary.startswith("runs       2\n")


def test_solutions_that_several_runs_found_are_exported_once(searched, solved, export):
    other = searched("task.split=all", "task.limit=2", "evaluator=oracle", "seed=1")
    _, lines, _ = export(solved, "--format", "sft")
    _, others, _ = export(other, "--format", "sft")
    code, both, _ = export(solved, other, "--format", "sft")
    texts = [json.dumps(line["messages"]) for line in both]
    assert code == 0 and len(set(texts)) == len(texts)
    assert set(texts) == {json.dumps(line["messages"]) for line in lines + others}
    assert len(both) < len(lines) + len(others)
    _, pairs, _ = export(solved, other, "--format", "preferences")
    assert {pair["run"] for pair in pairs} == {solved.name, other.name}


REFUSED = {
    "no directory": (["none"], "none is not a directory"),
    "no run": (["empty"], "no run in empty"),
    "most": (["RUN", "--most", "0"], "most=0 must be at least 1"),
    "margin": (["RUN", "--margin", "-1"], "margin=-1.0 must be at least 0"),
    "folder": (["RUN", "--output", "none/lines.jsonl"], "No such file or directory"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_one_line(arguments, message, solved, export):
    Path("empty").mkdir()
    given = [solved if argument == "RUN" else argument for argument in arguments]
    code, lines, error = export(*given, "--format", "sft")
    assert (code, lines) == (2, [])
    assert message in error and error.count("\n") == 1


def test_an_earlier_file_stays_if_nothing_can_be_written(solved, export, tmp_path):
    output = tmp_path / "lines.jsonl"
    output.write_text("earlier")
    code, _, error = export(
        *(solved, "--format", "preferences", "--margin", "9", "--output", output)
    )
    assert code == 2
    assert error.splitlines()[0] == "treeshare-export: there are no pairs to export"
    assert "skipped    2: no two steps of one node differ enough in their values" in error
    next((solved / "trees").iterdir()).write_text("damaged")
    code, _, error = export(solved, "--format", "sft", "--output", output)
    assert code == 2 and "is not a tree" in error
    assert output.read_text() == "earlier"
    assert not list(tmp_path.glob("*.tmp"))


def test_a_test_split_needs_to_be_allowed(searched, export):
    directory = searched("task.limit=2", "evaluator=oracle")
    code, lines, error = export(directory, "--format", "sft")
    assert (code, lines) == (2, [])
    assert "task.split=test is a test split" in error and error.count("\n") == 1
    code, lines, _ = export(directory, "--format", "sft", "--allow-test")
    assert code == 0 and len(lines) >= 2


def test_code_of_the_users_own_needs_trust(export, monkeypatch, capfd):
    parts = ["task._target_=bare_task.Bare", "task.verifier._target_=bare_task.Likely"]
    parts += ["expander=sample", "evaluator=logprob", "search=io", "engine.replies=[likely]"]
    given = ["engine=mock", "record=true", *parts]
    monkeypatch.setattr(sys, "argv", ["treeshare", *given])
    assert treeshare() == 0
    capfd.readouterr()
    code, _, error = export("outputs", "--format", "sft")
    assert code == 2
    assert "task=bare_task.Bare is not of this package: --trust runs it" in error
    code, lines, _ = export("outputs", "--format", "sft", "--trust")
    assert code == 0
    assert [line["messages"][1]["content"] for line in lines] == ["likely"]  # of two equal prompts


def test_a_reader_that_ends_is_one_line(solved):
    command_line = [sys.executable, "-m", "treeshare.experiments.export.export", str(solved)]
    process = subprocess.Popen(
        [*command_line, "--format", "sft"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    error = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 2
    assert error.startswith("treeshare-export: standard output: its reader has ended\n")
    assert "Traceback" not in error and "Exception ignored" not in error


def test_lone_surrogates_are_replaced(searched, export, tmp_path):
    problems = tmp_path / "mine.jsonl"
    problems.write_text(json.dumps({"question": "Is \ud800 a letter?", "answer": "5"}))
    directory = searched("task=math", f"task.path={problems}", "engine.replies=['Answer: 5']")
    output = tmp_path / "lines.jsonl"
    assert export(directory, "--format", "sft", "--output", output)[0] == 0
    (line,) = map(json.loads, output.read_text().splitlines())
    assert "Question: Is ? a letter?" in line["messages"][0]["content"]


@pytest.mark.parametrize("format", FORMATS)
def test_datasets_loads_the_lines(format, solved, export, tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs the extra `datasets`")
    _, lines, _ = export(solved, "--format", format)
    path = tmp_path / "lines.jsonl"
    assert export(solved, "--format", format, "--output", path)[0] == 0
    loaded = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert list(loaded) == lines


BLOCKS = re.findall(r"^```\n(treeshare .*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PROGRAMS = {"treeshare": treeshare, "treeshare-export": command.main, "python": training}
SMALL = {
    "treeshare": ["engine=mock", "evaluator=oracle", "task.limit=3"],
    "treeshare-export": [],
    "python": ["device=cpu", "epochs=0.01", "rows=1"],
}


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_commands_of_the_page_run(block, monkeypatch, tmp_path, capfd):
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        if program == "python":
            assert arguments[:2] == ["-m", "treeshare.experiments.training"]
            arguments = arguments[2:]
        if any("model.name=finetuned" in argument for argument in arguments):
            assert (tmp_path / "finetuned/model/model.safetensors").exists()
        monkeypatch.setattr(sys, "argv", [program, *arguments, *SMALL[program]])
        assert PROGRAMS[program]() == 0, capfd.readouterr().err
    written = re.findall(r"--output (\S+)", block)
    assert written and all((tmp_path / name).read_text() for name in written)


def test_the_page_names_every_field_and_option(solved, export):
    for format in FORMATS:
        (row,) = re.findall(rf"^\| `{format}` \|.*", PAGE, re.MULTILINE)
        for style in ("chat", "text"):
            _, lines, _ = export(solved, "--format", format, "--style", style)
            everywhere = {"run", "task", "policy", "model", "seed", "problem", "nodes", "node"}
            own = set(lines[0]) - everywhere - {"chosen_node", "rejected_node"}
            assert own <= set(re.findall(r"`(\w+)`", row))
    for option in re.findall(r'"(--[a-z-]+)"', (ROOT / "experiments/export/export.py").read_text()):
        assert option in PAGE, option
