"""The benchmark of decoding, but for its times: every workload runs, rows, resuming, tables."""

import json
import sys
from dataclasses import fields, replace

import pytest
import torch
from hydra import compose, initialize_config_module
from places import DATA

from treeshare.experiments.bench.decode import main as bench_decode
from treeshare.experiments.bench.decode.main import main
from treeshare.experiments.bench.decode.options import Options
from treeshare.experiments.bench.decode.tables import (
    Arm,
    Measurement,
    Setting,
    arms_table,
    budget_table,
    pressure_table,
    report,
    seconds_table,
)
from treeshare.experiments.bench.decode.workloads import FewShot, Filler
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.random_models import SHAPES, load_network

TEMPLATES, LOG = DATA / "deft_templates", DATA / "tot/game24_gpt4_bfs_log.json"
needs_data = pytest.mark.skipif(
    not (TEMPLATES.exists() and LOG.exists()), reason=f"needs DeFT's and ToT's data in {DATA}"
)
CPU = ["model={name: tiny, device: cpu, dtype: float32, fused: false}", "output_dir=rows"]
SMALL = [
    "few_shot={prompts: [40], branches: [2, 3], tokens: 4}",
    "pressure={prompts: 10, prompt: 30, branches: 2, tokens: 8}",
    "reasoning={sorting128ToT: [], set128ToT: [51]}",
    "gpt4_puzzles=1",
    "speculative={sizes: [4], prompt: 9, tokens: 5}",
]
SETTING = Setting("a card", "2.11", "5.17", "3.6", 256, 4096, 0, 3.0e12)
ROW = Measurement("llama3-8b", "random", "bfloat16", True, "few_shot", "few-shot b=20", "deft")
TIMED = replace(
    ROW, seconds=2.0, attention_seconds=0.25, tokens=2540, prompt_tokens=4000, steps=127,
    step_ms=10.0, weights_ms=5.0, kv_ms=1.0, attention_ms=2.0, matmul_ms=6.0, sampling_ms=0.5,
    other_ms=1.0, first_token_seconds=0.125,
)  # fmt: skip
ARM = Arm("smollm2", "real", "float32", False, "24", "hf_one", 100, 3, 60, 70, 900, 1000, 80, 30.0)


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    """The command in this process, started in `tmp_path`: its code, and what it said."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["bench_decode", *args])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        return main(), *capfd.readouterr()

    return call


def rows_of(directory, name="results.jsonl", kind=Measurement):
    lines = (directory / "rows" / name).read_text().splitlines()
    return [kind(**json.loads(line)) for line in lines]


def test_config_has_the_options():
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        cfg = compose("bench_decode")
    assert set(cfg) == {field.name for field in fields(Options)}
    assert cfg.model.name in SHAPES


@needs_data
def test_every_workload_runs_on_the_cpu_and_once(bench, tmp_path, monkeypatch):
    workloads = "workload=[few_shot,reasoning,gpt4_log,pressure]"
    data = [f"templates={TEMPLATES}", f"log={LOG}"]
    code, _, error = bench(*CPU, *SMALL, *data, workloads, "attention=[torch]")
    assert code == 0, error
    rows = rows_of(tmp_path)
    assert [(row.group, row.workload) for row in rows] == [
        ("few_shot", "few-shot P=40 b=2 N=4"),
        ("few_shot", "few-shot P=40 b=3 N=4"),
        ("reasoning", "set128ToT[51]"),
        ("gpt4_log", "GPT-4 log, 1 puzzles"),
        *[("pressure", "pressure 10 x 30 b=2 N=8")] * 2,
    ]
    for row in rows:
        assert row.note == "" and row.seconds > 0 and row.step_ms > 0
        assert (row.weights_ms, row.kv_ms, row.attention_ms, row.gap_ms, row.ratio) == (None,) * 5
    shot, tree = rows[1], rows[2]
    assert (shot.steps, shot.tokens, shot.prompt_tokens) == (3, 12, 40)
    # The prompt's last token is computed for each sample.
    assert shot.kv_entries == sum(39 + 3 * (1 + drawn) for drawn in (1, 2, 3)) / 3
    assert shot.first_token_seconds > 0
    assert tree.tokens == 1761 and tree.steps >= 220  # of 222 iterations, the others with prefill
    whole, tenth = rows[4:]
    assert tenth.kv_tokens == whole.kv_tokens // 10
    assert tenth.evicted > 0 and tenth.paused > 0 and (whole.evicted, whole.paused) == (0, 0)
    assert tenth.equal == tenth.completions == 40

    monkeypatch.setattr(bench_decode, "load_network", None)  # nothing is missing
    assert bench(*CPU, *SMALL, *data, workloads, "attention=[torch]")[0] == 0
    assert len(rows_of(tmp_path)) == 6


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here")
def test_token_trees_are_verified(bench, tmp_path):
    record = {"Accept_length": [1, 3, 2]}
    template = {"Tree_Structure": [[0], [1], [0, 0]], "Records": [record]}
    (tmp_path / "APPS_tree_size4.json").write_text(json.dumps(template))
    given = ["workload=speculative", f"templates={tmp_path}", "attention=[deft,torch]"]
    code, _, error = bench(*CPU, *SMALL, *given)
    assert code == 0, error
    verified, refused = rows_of(tmp_path)
    assert verified.workload == "speculative t=4 P=9 N=5"
    assert (verified.tokens, verified.steps, verified.prompt_tokens) == (6, 3, 9)
    assert verified.kv_entries == (13 + 14 + 17) / 3
    assert "plans in fixed memory" in refused.note


def test_arms_do_the_same_search(bench, tmp_path):
    names = "arms.names=[hf_one,hf_batched,torch]"
    search = [
        "arms.puzzles=1",
        "arms.breadth=1",
        "arms.temperature=0",
        "arms.kv_tokens=4096",
        "arms.seconds=100",
    ]
    code, _, error = bench(*CPU, "workload=arms", names, *search)
    assert code == 0, error
    one, batched, ours = arms = rows_of(tmp_path, "arms.jsonl", Arm)
    assert [arm.arm for arm in arms] == ["hf_one", "hf_batched", "torch"]
    for arm in arms:
        assert (arm.finished, arm.puzzles, arm.is_cut) == (1, 1, False)
        assert (arm.nodes, arm.requests) == (ours.nodes, ours.requests)
        assert (arm.prompt_tokens, arm.completion_tokens) == (
            ours.prompt_tokens, ours.completion_tokens,
        )  # fmt: skip
    assert one.forwards >= batched.forwards >= ours.forwards
    assert (
        "| 1 of own list, b=1, temperature 0 | hf_one | 1 of 1 |"
        in (tmp_path / "rows/results.md").read_text()
    )


def test_an_arm_that_is_cut_says_so(bench, tmp_path):
    cut = ["arms.names=[hf_one]", "arms.puzzles=2", "arms.seconds=0.0001"]
    assert bench(*CPU, "workload=arms", *cut)[0] == 0
    (arm,) = rows_of(tmp_path, "arms.jsonl", Arm)
    assert arm.is_cut and (arm.finished, arm.nodes, arm.puzzles) == (0, 0, 2)


def test_a_timed_run_finds_nothing_cached():
    model = load_network("tiny", "float32", "cpu")
    engine = TreeEngine(model, 200)
    FewShot(40, 2, 4).run(engine, Filler(model))
    assert engine.cache.num_free < 200
    engine.reset_cache()
    assert engine.cache.num_free == 200


def test_a_pool_that_is_too_small_is_a_note(bench, tmp_path):
    pressure = "pressure={prompts: 2, prompt: 40, branches: 1, tokens: 40}"
    assert bench(*CPU, pressure, "workload=pressure", "attention=[torch]")[0] == 0
    (row,) = rows_of(tmp_path)
    assert row.note.startswith("skipped: a prompt of 40 tokens") and row.seconds is None
    assert f"- {row.workload}, torch: skipped: " in (tmp_path / "rows/results.md").read_text()


BAD = {
    "workload": (["workload=fewshot"], "workload='fewshot' must be one of few_shot, reasoning"),
    "no workload": (["workload=[]"], "workload=[] must name at least one"),
    "attention": (["attention=[fast]"], "attention='fast' must be one of torch, deft"),
    "arm": (["arms.names=[vllm]"], "arms.names='vllm' must be one of hf_one, hf_batched"),
    "templates": (["workload=reasoning"], "workload='reasoning' needs templates="),
    "no templates": (
        ["workload=reasoning", "templates=no"],
        "templates: no/sorting128ToT.json: No such file",
    ),
    "log": (["workload=gpt4_log"], "workload='gpt4_log' needs log="),
    "no log": (["workload=gpt4_log", "log=no"], "log: no: No such file"),
    "tokens": (["few_shot.tokens=0"], "few_shot.tokens=0 must be at least 1"),
    "branches": (["few_shot.branches=[0]"], "few_shot.branches=0 must be at least 1"),
    "batch": (["max_num_seqs=0"], "max_num_seqs=0 must be at least 1"),
    "seconds": (["arms.seconds=0"], "arms.seconds=0.0 must be above 0"),
    "key": (["few_shot.token=1"], "unknown key 'few_shot.token'"),
    "dtype": (["model.dtype=int8"], "model.dtype='int8' is not one of float32, bfloat16"),
    "model": (["model.name=no such"], "model.name='no such' is no directory"),
    "device": (["model.device=cuda"], "model.device='cuda': PyTorch sees no CUDA device"),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(arguments, said, bench, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, error = bench(*CPU, *arguments)
    assert code == 2
    assert error.startswith("bench_decode: ") and error.count("\n") == 1
    assert said in error


def test_rows_of_other_limits_are_not_mixed(bench):
    arguments = [*CPU, *SMALL, "attention=[torch]", "few_shot.branches=[2]"]
    assert bench(*arguments)[0] == 0
    code, _, error = bench(*arguments, "max_num_seqs=7")
    assert code == 2
    assert "the rows there have max_num_seqs=256, not 7; take another output_dir" in error


def test_seconds_table_is_the_papers():
    rows = [TIMED, replace(TIMED, attention="sequence", seconds=3.0, attention_seconds=None)]
    rows += [replace(TIMED, attention="deft_node", seconds=None, note="skipped: no")]
    rows += [replace(TIMED, workload="sorting", attention="sequence", seconds=9.0)]
    head, _, *body = seconds_table(rows).splitlines()
    variants = "sequence | deft_node | deft_node_chunk | deft_flatten | deft"
    assert head == f"| workload | {variants} | deft over sequence |"
    assert body == [
        "| few-shot b=20 | 3.00 |  |  |  | 2.00 (0.25) | 1.50 |",
        "| sorting | 9.00 (0.25) |  |  |  |  |  |",
    ]


def test_budget_table():
    *_, timed, bare = budget_table([TIMED, replace(ROW, seconds=4.0, step_ms=8.0)]).splitlines()
    assert timed == (
        "| few-shot b=20 | deft | 127 | 10.00 | 5.00 | 1.00 | 1.67 | 2.00 | 6.00 | 0.50 | 1.00 | "
        "0.50 | 5.0 | 1,270 | 0.125 |"
    )
    assert bare == "| few-shot b=20 | deft |  | 8.00 |" + "  |" * 11


def test_pressure_table():
    row = replace(TIMED, kv_tokens=1234, equal=3, completions=4, evicted=5678, paused=9)
    expected = "| few-shot b=20 | deft | 1,234 | 2.00 | 3 of 4 | 5,678 | 9 |"
    assert pressure_table([row]).splitlines()[2] == expected


def test_arms_table():
    ours = replace(ARM, arm="deft", finished=100, nodes=6000, seconds=60.0)
    cut = replace(ARM, is_cut=True)
    other = replace(ARM, model="qwen3-4b")
    body = arms_table([cut, ours, other]).splitlines()[2:]
    common = "| 70 | 900 | 1,000 | 80 | 30.0 | 2.0 |"
    assert (
        body[0]
        == f"| smollm2 (real weights, float32) | 24 | hf_one | 3 of 100, cut | 60 {common} 50.0 |"
    )
    assert body[1].endswith("| 60.0 | 100.0 | 1.0 |")
    assert body[2].endswith("| 30.0 | 2.0 |  |")


def test_report_names_machine_and_weights():
    text = report(SETTING, [TIMED, replace(TIMED, model="smollm2", weights="real")], [ARM])
    assert text.startswith("# Decoding end to end: a card\n\ntorch 2.11, transformers 5.17")
    assert "measured 3.000 TB/s" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## llama3-8b (random weights, bfloat16, fused)",
        "## smollm2 (real weights, bfloat16, fused)",
        "## Four arms: ToT-BFS on Game of 24",
    ]
    assert "measured" not in report(replace(SETTING, bandwidth=None), [], [])
