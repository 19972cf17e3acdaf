"""A run is resumed, extended, shown, begun again or refused, by what has changed since it began."""

import importlib
import os
import subprocess
import sys

import pytest
import torch
from places import PARTS
from tiny_models import byte_tokenizer, make_network

from treeshare.experiments.reports.finished_runs import find_runs
from treeshare.experiments.results.directory import read_rows as rows_of
from treeshare.experiments.results.rows import Row
from treeshare.experiments.runs.config import SetupError
from treeshare.llm_backend.engines.tree import TreeEngine

KEEPS_BOTH = "overwrite=true starts it again, name=... keeps both"
LIKELY = {"_target_": "bare_task.Likely"}
BARE = {"task": {"_target_": "bare_task.Bare", "size": 3, "verifier": LIKELY}}
POLICY = """
import helpers

class Mine:
    async def search(self, ctx):
        return await ctx.sample(ctx.root, "io", helpers.COUNT)
"""
TASK = "from bare_task import Bare, Likely\n\nclass Task(Bare):\n    pass\n"


@pytest.fixture
def write_modules(tmp_path, monkeypatch):
    """Writes modules of the user, which are then imported anew, as by a new process."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = set()

    def to(**texts):
        names.update(texts)
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
        for name in names:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()

    yield to
    to()


@pytest.fixture
def directories(tmp_path):
    """The names of the directories of all runs below `tmp_path`."""
    return lambda: {path.name for path in tmp_path.glob("outputs/*/*/*/[!.]*")}


CUSTOM = ["engine=mock", "search._target_=my_policies.Mine", "task.limit=2"]


def test_an_edited_policy_is_refused_in_one_line(treeshare, write_modules, tmp_path):
    write_modules(my_policies=POLICY, helpers="COUNT = 1\n")
    assert treeshare(*CUSTOM).code == 0
    for more in ([], ["task.limit=1"], ["task.limit=9"]):  # finished or not
        write_modules(my_policies=POLICY.replace("COUNT", "COUNT + 1"))
        done = treeshare(*CUSTOM, *more)
        line = f"my_policies.py has changed since this run began: {KEEPS_BOTH}"
        assert (done.code, done.out, done.err) == (2, "", f"treeshare: {line}\n")
    assert treeshare(*CUSTOM, "name=second").code == 0
    assert len(list(tmp_path.glob("outputs/game24/*/*/*"))) == 2
    write_modules(my_policies=f"{POLICY}# as it was\n")
    assert "already finished" in treeshare(*CUSTOM).out


@pytest.mark.parametrize("name", ["my_policies", "helpers", "my_tasks"])
def test_each_of_the_users_files_counts(name, run_with, write_modules):
    texts = {"my_policies": POLICY, "helpers": "COUNT = 1\n", "my_tasks": TASK}
    write_modules(**texts)
    task = {"_target_": "my_tasks.Task", "verifier": {"_target_": "my_tasks.Likely"}}
    parts = {"search": {"_target_": "my_policies.Mine"}, "task": task}
    run_with(**parts)
    write_modules(**{name: f"{texts[name]}\nADDED = 1\n"})
    with pytest.raises(SetupError, match=rf"^{name}\.py has changed since this run began: "):
        run_with(**parts)
    write_modules(**texts)
    assert run_with(**parts).note == "already finished: nothing was run"


@pytest.fixture
def write_model(tmp_path):
    """Writes the directory of a tiny random model."""

    def to(scale):
        network = make_network("llama")
        with torch.no_grad():
            network.lm_head.weight *= scale
        network.save_pretrained(tmp_path / "model")
        byte_tokenizer().save_pretrained(tmp_path / "model")

    return to


def tree_engine(**options):
    """The tree engine on that model; those of the model are given as `model__dtype`."""
    loader = {"_target_": "treeshare.llm_backend.model.model.load_model", "name": "model"}
    loader |= {key[7:]: value for key, value in options.items() if key.startswith("model__")}
    others = {key: value for key, value in options.items() if not key.startswith("model__")}
    target = "treeshare.llm_backend.engines.tree.TreeEngine"
    task = {"_target_": "bare_task.Bare", "size": 2, "verifier": LIKELY}
    return {"engine": {"_target_": target, "model": loader, **others}, "task": task}


def test_a_retrained_model_is_another_run(run_with, write_model, directories):
    write_model(1)
    run_with(**tree_engine())
    write_model(2)
    assert run_with(**tree_engine()).note == ""
    assert len(directories()) == 2
    write_model(1)
    assert run_with(**tree_engine()).note == "already finished: nothing was run"


def test_less_memory_resumes_a_run_that_failed(run_with, write_model, directories, monkeypatch):
    write_model(1)
    execute = TreeEngine.execute

    def failing(engine, requests):
        failing.count += 1
        if failing.count == 2:
            raise MemoryError("CUDA out of memory")
        return execute(engine, requests)

    failing.count = 0
    monkeypatch.setattr(TreeEngine, "execute", failing)
    with pytest.raises(SetupError, match="CUDA out of memory"):
        run_with(**tree_engine(kv_tokens=9000), max_live=1)
    monkeypatch.setattr(TreeEngine, "execute", execute)
    (directory,) = directories()
    summary = run_with(**tree_engine(kv_tokens=2000), max_live=1)
    assert directories() == {directory}
    assert (summary.totals.puzzles, summary.totals.sessions) == (2, 2)
    assert [row.session for row in summary.rows] == [1, 2]


def test_rows_of_other_data_types_are_marked(run_with, write_model, read_rows):
    write_model(1)
    for size, dtype in ((1, "float32"), (2, "bfloat16")):
        options = tree_engine(model__device="cpu", model__dtype=dtype, model__attention="torch")
        options["task"] |= {"_target_": "limited_task.Limited", "limit": size}
        options["task"].pop("size")
        summary = run_with(**options)
    kinds = "cpu float32 torch (1), cpu bfloat16 torch (1)"
    assert f"resources       2 kinds, with their puzzles: {kinds}\n" in summary.table()
    found = read_rows("sessions.jsonl")[-1]["resources"]
    assert (found["dtype"], found["max_num_seqs"], found["max_live"]) == ("bfloat16", 256, 1)


def test_what_auto_has_become_is_kept(run_with, write_model, read_rows):
    write_model(1)
    model = {f"model__{key}": "auto" for key in ("device", "dtype", "attention", "fused")}
    limits = dict.fromkeys(("kv_tokens", "max_num_seqs", "max_num_batched_tokens"), "auto")
    run_with(**tree_engine(**model, **limits, memory=0.5))
    assert read_rows("sessions.jsonl")[-1]["resources"] == {
        **{"device": "cpu", "dtype": "float32", "attention": "torch", "fused": False},
        **{"kv_tokens": 16384, "max_num_seqs": 256, "max_num_batched_tokens": 1024},
        **{"memory": 0.5, "max_live": 1},
    }


MATH = ["engine=mock", "task=math", "task.path=f.jsonl", "search=io"]


def test_replaced_data_are_another_run(treeshare, write, directories):
    first, second = ({"question": "3 * 4?", "answer": answer} for answer in ("12", "13"))
    write("f.jsonl", first)
    assert treeshare(*MATH).code == 0
    write("f.jsonl", second)
    assert "already" not in treeshare(*MATH).out
    assert len(directories()) == 2
    write("f.jsonl", first)
    assert "already finished" in treeshare(*MATH).out


def game24(limit):
    verifier = {"_target_": "treeshare.tasks.Game24Verifier"}
    return {"task": {"_target_": "treeshare.tasks.Game24", "limit": limit, "verifier": verifier}}


def test_more_puzzles_extend_a_run_and_fewer_are_shown(run_with, run_directory, read_rows):
    assert run_with(**game24(20)).totals.requests == 20
    run_with(**game24(100))
    assert read_rows("sessions.jsonl")[-1]["requests"] == 80
    rows = read_rows()
    assert len(rows) == 100 and {row["problem"] for row in rows[:20]}
    summary = run_with(**game24(20))
    assert (summary.totals.puzzles, summary.num_others) == (20, 80)
    assert summary.note == "already finished: nothing was run"
    assert "puzzles         20 of 20\n" in summary.table()
    line = "other puzzles   80 on disk are not counted, except in rounds and seconds\n"
    assert line in summary.table()
    assert len(read_rows()) == 100


def sampled(answers, **more):
    search = {"_target_": "treeshare.search.BestOfN", "num_samples": 40, "role": "io"}
    return {**BARE, "search": search, "answers": answers, **more}


@pytest.mark.parametrize("answers", [1, 3, 20])
def test_the_number_of_answers_is_taken_from_the_rows(answers, run_with):
    run_with(**sampled(5))
    again = run_with(**sampled(answers))
    assert again.note == "already finished: nothing was run"
    fresh = run_with(**sampled(answers, output_dir="fresh"))

    def without_times(row):
        return {name: getattr(row, name) for name in row.__slots__ if name != "seconds"}

    assert list(map(without_times, again.rows)) == list(map(without_times, fresh.rows))
    assert f"any-of-{answers}" in again.table()


def test_more_answers_than_the_rows_keep_are_refused(run_with):
    many = sampled(5)
    many["search"] = many["search"] | {"num_samples": 120}
    run_with(**many)
    assert len(run_with(**many | {"answers": 100}).rows[0].answers) == 100
    line = "answers=101: the row of 'bare/0' keeps 100 of 120 ranked answers"
    with pytest.raises(SetupError, match=line):
        run_with(**many | {"answers": 101})


def test_overwriting_keeps_the_earlier_runs_beside_the_new_one(run_with, run_directory, tmp_path):
    run_with(**BARE)
    directory = run_directory()
    (directory / "note.txt").write_text("first")
    for number in (1, 2):
        summary = run_with(**BARE, overwrite=True)
        assert (summary.note, summary.totals.sessions) == ("", 1)
        earlier = directory.with_name(f"{directory.name}.earlier-{number}")
        assert len(rows_of(earlier / "results.jsonl", Row)) == 3
        assert (earlier / "note.txt").exists() == (number == 1)
    assert len(find_runs([tmp_path])) == 1
    assert len(find_runs([earlier])) == 1  # it can be shown by its path


def test_overwriting_without_an_earlier_run_begins_one(run_with, run_directory):
    assert run_with(**BARE, overwrite=True).totals.puzzles == 3
    assert run_directory()


def test_an_engine_that_cannot_be_loaded_overwrites_nothing(run_with, run_directory):
    run_with(**BARE)
    before = {path: path.stat().st_mtime_ns for path in run_directory().parent.rglob("*")}
    missing = {"_target_": "treeshare.llm_backend.engines.mock.MockEngine", "replies": []}
    parts = BARE | {"engine": missing, "name": run_directory().parents[1].name}
    with pytest.raises(SetupError, match="replies must not be empty"):
        run_with(**parts, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in run_directory().parent.rglob("*")} == before


def test_a_finished_run_is_logged_from_its_rows(run_with):
    run_with(**BARE)
    logger = {"_target_": "troubled_loggers.Full"}
    from troubled_loggers import Full

    Full.calls.clear()
    summary = run_with(**BARE, logger=logger)
    assert summary.note == "already finished: nothing was run"
    assert Full.calls == ["start", 1, 2, 3, "finish 3"]


def test_the_last_puzzles_of_a_run_cost_what_the_first_do(run_with, monkeypatch):
    """Counted in Python's function calls, between the writing of two rows."""
    counts, calls = [], 0
    append = Row.__init__

    def profile(frame, event, _):
        nonlocal calls
        calls += event == "call"

    def made(row, *args, **fields):
        nonlocal calls
        append(row, *args, **fields)
        counts.append(calls)
        calls = 0

    monkeypatch.setattr(Row, "__init__", made)
    sys.setprofile(profile)
    try:
        run_with(task={"_target_": "bare_task.Bare", "size": 120, "verifier": LIKELY})
    finally:
        sys.setprofile(None)
    assert len(counts) == 120
    first, last = sorted(counts[10:40]), sorted(counts[-30:])
    assert first[15] == last[15] > 100


TOGETHER = """
import os, sys
from hydra import compose, initialize_config_module
from omegaconf import open_dict
from treeshare.experiments.results import directory as record
from treeshare.experiments.runs.config import SetupError
from treeshare.experiments.runs.resumable_run import run_or_resume

record.software = dict
with initialize_config_module("treeshare.conf", version_base="1.3"):
    cfg = compose("config", ["engine=mock", "search=io", "expander=sample", "evaluator=logprob"])
with open_dict(cfg):
    cfg.update(eval(sys.argv[1]))
for i in range(int(sys.argv[2])):
    cfg.output_dir = f"at-{i}"
    gate, children = os.pipe(), []
    for _ in range(2):
        if (child := os.fork()) == 0:
            os.close(gate[1])
            os.read(gate[0], 1)  # returns in both children when the parent opens the gate
            try:
                said = run_or_resume(cfg).note or "worked"
            except SetupError as error:
                said = error
            os.write(1, f"{said}\\n".encode())  # whole: the two write to one pipe
            os._exit(0)
        children.append(child)
    os.close(gate[0])
    os.close(gate[1])
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
"""


def test_of_two_processes_started_together_one_works(tmp_path):
    """The other says so, or that there is nothing left to do."""
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER, repr(BARE | {"progress": False}), "10"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PARTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    others = [line for line in lines if line != "worked"]
    assert len(others) == 10 and len(lines) == 20
    for line in others:
        is_late = line == "already finished: nothing was run"
        assert is_late or line.startswith("another process is at work in at-")
    assert not list(tmp_path.rglob(".*.lock"))
