"""A run whose task or model has changed since it began is refused in a line that says what."""

import json
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from treeshare.experiments.results.digests import difference, digests_of
from treeshare.experiments.runs.config import SetupError
from treeshare.tasks.task import Problem

QUESTIONS = [("3 * 4?", "12"), ("2 * 6?", "12")]


def write_questions(path, questions):
    lines = (json.dumps({"question": q, "answer": a}) + "\n" for q, a in questions)
    path.write_text("".join(lines))


BARE = {
    "task": {"_target_": "bare_task.Bare", "verifier": {"_target_": "bare_task.Likely"}},
}


def of(data, config=None):
    return digests_of(config or {}, [Problem("p", data)])


@dataclass
class Data:
    numbers: object


class Opaque:
    pass


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, "1"),
        ((1, 2), (2, 1)),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (Data((1,)), Data((2,))),
        (np.arange(3), np.arange(4)),
        (Fraction(1, 2), Fraction(1, 3)),
        ("\ud800", "\ud801"),
        (b"a", b"b"),
    ],
)
def test_other_data_have_another_digest(one, other):
    assert difference(of(one), of(other)) == "the task's problems have changed"
    assert difference(of(one), of(one)) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"b": 1, "a": {3, 2, 1}},
        lambda: Data([np.float32(0.5), None, True]),
        lambda: Opaque(),
        lambda: [lambda: 1, Opaque],
    ],
)
def test_equal_data_have_equal_digests(make):
    keep = make()
    assert of(keep) == of(make())


def test_order_of_a_mapping_does_not_count():
    assert of({"a": 1, "b": 2}) == of({"b": 2, "a": 1})


def test_every_file_of_a_model_counts(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "README.md").write_text("one")
    weights = np.random.default_rng(0).bytes(20 * 2**20)  # a file of this size is sampled
    (model / "model.safetensors").write_bytes(weights)
    config = {"engine": {"model": {"name": str(model)}}}
    before = of(0, config)
    (model / "README.md").write_text("two")
    assert of(0, config) == before
    (model / "model.safetensors").write_bytes(weights[::-1])
    changed = difference(before, of(0, config))
    assert changed == "engine.model.name: the file model.safetensors has changed"
    (model / "model.safetensors").write_bytes(weights)
    (model / "config.json").write_text('{"a": 1}')
    assert "the file config.json has changed" in difference(before, of(0, config))
    (model / "config.json").unlink()
    assert "the file config.json has changed" in difference(before, of(0, config))


def test_a_model_that_is_gone_is_not_compared(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    config = {"engine": {"model": {"name": str(tmp_path)}}}
    before = of(0, config)
    (tmp_path / "config.json").unlink()
    tmp_path.rmdir()
    assert difference(before, of(0, config)) is None


def test_embedded_model_has_a_digest():
    found = of(0, {"engine": {"model": {"name": "embedded"}}})
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= found[
        "engine.model.name"
    ].keys()


def test_an_option_that_is_also_a_files_name_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test").write_text("")
    assert of(0, {"task": {"split": "test"}}).keys() == {"problems"}


@pytest.mark.parametrize(
    ("questions", "said", "is_done"),
    [
        ([("3 + 4?", "7"), ("2 + 6?", "8")], "the task's problems have changed since out", False),
        ([("3 * 4?", "13"), ("2 * 6?", "13")], "task.path: the file f.jsonl has changed", True),
    ],
    ids=["questions", "answers"],
)
def test_replaced_questions_are_refused(
    questions, said, is_done, treeshare, treeshare_process, tmp_path, run_directory
):
    write_questions(tmp_path / "f.jsonl", QUESTIONS)
    arguments = ["engine=mock", "task=math", "task.path=f.jsonl", "search=io"]
    assert treeshare(*arguments).code == 0
    results = run_directory() / "results.jsonl"
    if not is_done:
        results.write_text(results.read_text().splitlines(keepends=True)[0])
    kept = results.read_bytes()
    write_questions(tmp_path / "f.jsonl", questions)
    # in a new process, because a process caches the files that it has read
    done = treeshare_process(*arguments, HYDRA_FULL_ERROR="0")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err and "move the directory away" in done.err
    assert results.read_bytes() == kept
    write_questions(tmp_path / "f.jsonl", QUESTIONS)
    assert treeshare(*arguments).code == 0


def test_runs_of_earlier_versions_are_resumed(run_with, run_directory):
    run_with(**BARE)
    path = run_directory() / "meta.json"
    about = json.loads(path.read_text())
    assert about.pop("digests")["problems"]["all"]
    path.write_text(json.dumps(about))
    lines = (run_directory() / "results.jsonl").read_text().splitlines(keepends=True)
    (run_directory() / "results.jsonl").write_text(lines[0])
    assert run_with(**BARE).totals.puzzles == 2


@pytest.mark.parametrize("digests", [None, [], "x", {"problems": "x"}, {"problems": {"all": 3}}])
def test_digests_of_another_kind(digests, run_with, run_directory):
    run_with(**BARE)
    path = run_directory() / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digests": digests}))
    if digests == {"problems": {"all": 3}}:
        with pytest.raises(SetupError, match="the task's problems have changed"):
            run_with(**BARE)
    else:
        assert run_with(**BARE).totals.puzzles == 2
