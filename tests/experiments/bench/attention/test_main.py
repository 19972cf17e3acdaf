"""The benchmark of attention, except its times: rows, their check, resuming, tables."""

import json
import math
import os
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module

from treeshare.experiments.bench.attention import case as attention_case
from treeshare.experiments.bench.attention import workloads
from treeshare.experiments.bench.attention.case import dense_attention
from treeshare.experiments.bench.attention.main import Options, main, refusal
from treeshare.experiments.bench.attention.tables import (
    Measurement,
    Setting,
    ablation_table,
    floor_table,
    report,
    results_table,
)
from treeshare.kernels.attention.naive import tree_attention_reference
from treeshare.kernels.planning.forest import Forest
from treeshare.kernels.planning.variants import VARIANTS

CPU = ["device=cpu", "head_dim=16", "output_dir=rows"]
TINY = ["workloads=[tiny]", "heads=[2/1,3/3]", *CPU]
WITH_TINY = """
import sys
import numpy as np
from treeshare.experiments.bench.attention import main, workloads
from treeshare.kernels.planning.forest import Forest
forest = Forest.packed(np.array([-1, 0, 0, 1]), np.array([70, 3, 5, 0]), np.array([0, 0, 2, 1]))
workloads.GROUPS["tiny"] = lambda: [workloads.Workload("a|tree", "tiny", forest)]
sys.exit(main.main())
"""
SETTING = Setting("a card", "2.11", "3.6", "float16", 128, 10, 0, 3.0e12, 7.0e14)
ROW = Measurement("1,2|3,4", "star", "32/8", "deft", 2, 11, 0.05, 20.0, us=30.0, ok=True)


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    """Run the command in this process and in `tmp_path`; gives its exit code and its stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["bench_attention", *args])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        code = main()
        return code, capfd.readouterr().err

    return call


def bench_process(directory, *args):
    """Run the command in a process, as users do, with the group `tiny` of one small tree."""
    return subprocess.run(
        [sys.executable, "-c", WITH_TINY, *args],
        cwd=directory,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def rows_of(directory):
    lines = (directory / "rows/results.jsonl").read_text().splitlines()
    return [Measurement(**json.loads(line)) for line in lines]


def test_config_has_the_options_and_names_all_variants():
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        cfg = compose("bench_attention")
    assert set(cfg) == {field.name for field in fields(Options)}
    assert sorted(cfg.variants) == sorted(VARIANTS)
    assert set(cfg.workloads) == set(workloads.GROUPS) - workloads.RECORDED


def test_all_variants_on_the_cpu_and_again(tmp_path):
    done = bench_process(tmp_path, *TINY, "variants=[deft,tree_mask]")
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path)) == 4
    with (tmp_path / "rows/results.jsonl").open("a") as file:
        file.write('{"workload": "a|')  # as a killed process leaves it
    done = bench_process(tmp_path, *TINY)
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path)
    assert [(row.heads, row.variant) for row in rows[:4]] == [
        (heads, variant) for heads in ("2/1", "3/3") for variant in ("deft", "tree_mask")
    ]
    assert {(row.heads, row.variant) for row in rows} == {
        (heads, variant) for heads in ("2/1", "3/3") for variant in VARIANTS
    }
    assert len(rows) == 2 * len(VARIANTS) and done.stdout.count("\n") == len(rows) - 4 + 1
    for row in rows:
        assert row.ok is True and row.note == ""
        assert 0 < row.error <= 2 * row.torch_error + 1e-5
        assert (row.us, row.plan_ms, row.floor_us, row.ratio) == (None, None, None, None)
        assert (row.num_queries, row.num_entries, row.layers) == (3, 78, 1)
        assert row.items >= 1 and row.num_reads >= 78 - 1
    assert (tmp_path / "rows/results.md").read_text().count("a\\|tree") == len(rows)
    done = bench_process(tmp_path, *TINY, "seed=1")
    assert done.returncode == 2
    assert "the rows there have seed=0, not 1; take another output_dir" in done.stderr


def test_counted_bytes_by_hand(tmp_path):
    done = bench_process(tmp_path, *TINY, "variants=[deft_node]", "heads=[4/2]")
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(tmp_path)
    moved = row.num_reads * 2 * 32 * 2 + 2 * row.partial_rows * 4 * (16 * 2 + 4) + 3 * 4 * 32 * 2
    assert row.counted_mb == moved / 1e6


@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # the interpreter's
@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here")
@pytest.mark.parametrize(("value", "is_finite"), [(1.0, True), (math.nan, False)])
def test_wrong_result_gets_no_time_and_an_exit_code(value, is_finite, bench, tmp_path, monkeypatch):
    wrong = lambda q, k, v, plan, *, scale, out: out.fill_(value)  # noqa: E731
    monkeypatch.setattr(attention_case, "tree_attention", wrong)
    tree = Forest.packed(np.array([-1, 0]), np.array([9, 1]), np.array([0, 1]))
    tiny = [workloads.Workload("tree", "tiny", tree)]
    monkeypatch.setitem(workloads.GROUPS, "tiny", lambda: tiny)
    code, said = bench(*TINY, "variants=[deft]", "heads=[2/1]")
    assert code == 1
    assert said.startswith("bench_attention: 1 of 1 rows are wrong; first deft on tree, 2/1: error")
    (row,) = rows_of(tmp_path)
    assert row.ok is False and row.us is None and (row.error is not None) == is_finite
    assert "WRONG: error" in (tmp_path / "rows/results.md").read_text()


BAD = {
    "variant": (["variants=[deft,fast]"], "variant='fast' must be one of deft, deft_node"),
    "workload": (["workloads=[fastree]"], "group='fastree' must be one of fasttree, few_shot"),
    "templates": (["workloads=[replay]"], "group='replay' needs templates="),
    "no templates": (["workloads=[replay]", "templates=no"], "templates: no/sorting128ToT.json"),
    "heads": (["heads=[32/8,32]"], "heads='32' must be query heads/KV heads, as 32/8"),
    "heads' division": (["heads=[32/5]"], "num_heads=32 must be a multiple of num_kv_heads=5"),
    "no KV heads": (["heads=[32/0]"], "heads='32/0' must have at least one KV head"),
    "head_dim": (["head_dim=512"], "a head dimension of 512 exceeds 256"),
    "dtype": (["dtype=float8"], "dtype='float8' must be one of float16, bfloat16, float32"),
    "device": (["device=tpu"], "device='tpu' must be cuda or cpu"),
    "repeats": (["repeats=0"], "repeats=0 must be at least 1"),
    "empty": (["variants=[]"], "variants=[] must name at least one"),
    "key": (["variant=deft"], "unknown key 'variant'; known there: workloads, heads, variants"),
    "output_dir": (["output_dir=file"], "File exists: 'file'"),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_nothing_on_disk(arguments, said, bench, tmp_path):
    (tmp_path / "file").write_text("")
    code, error = bench(*CPU, *arguments)
    assert code == 2
    assert error.startswith("bench_attention: ") and error.count("\n") == 1
    assert said in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_device_is_named(bench, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, error = bench("device=cuda")
    assert code == 2
    assert error.startswith("bench_attention: device='cuda': torch ") and error.count("\n") == 1


def test_the_interpreter_is_for_the_cpu_only(bench, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "device='cuda' cannot be timed with TRITON_INTERPRET=1" in bench("device=cuda")[1]
    monkeypatch.delenv("TRITON_INTERPRET")
    assert "device='cpu' needs TRITON_INTERPRET=1" in bench("device=cpu")[1]


def test_dense_attention_is_the_references():
    for workload in workloads.random_forests(seed=5, count=3):
        forest, torch_seed = workload.forest, torch.Generator().manual_seed(0)
        paths = []
        for node, count in enumerate(forest.num_queries):
            path, above = [], node
            while above >= 0:
                begin = int(forest.start[above])
                path = [*range(begin, begin + int(forest.length[above])), *path]
                above = int(forest.parent[above])
            hidden = range(count - 1, -1, -1) if forest.length[node] else [0] * count
            paths += [path[: len(path) - later] for later in hidden]
        q = torch.randn(len(paths), 4, 8, generator=torch_seed)
        k, v = torch.randn(2, int(forest.length.sum()), 2, 8, generator=torch_seed)
        exact, same = dense_attention(forest, q, k, v, scale=0.3)
        expected = tree_attention_reference(q, k, v, paths, scale=0.3)
        torch.testing.assert_close(exact, expected)
        torch.testing.assert_close(same, expected, atol=1e-5, rtol=1e-4)


def test_what_a_variant_cannot_do():
    star = Forest.packed(
        np.append(-1, np.zeros(5000, int)), np.append(600_000, np.ones(5000, int)),
        np.append(0, np.ones(5000, int)),
    )  # fmt: skip
    assert refusal("tree_mask", star) == "a mask of 3,025,000,000 bytes exceeds 2,147,483,648"
    assert refusal("sequence", star) == "paths of 3,000,005,000 entries exceed 134,217,728"
    assert refusal("deft", star) == ""


def rows_by_hand():
    """Two workloads above 10 µs, two below, one of them skipped by `sequence`."""
    return [
        *(replace(ROW, workload=name, floor_us=floor, us=us, variant=variant)
          for name, floor, times in [
              ("a", 10.0, (20.0, 80.0)), ("b", 40.0, (180.0, 360.0)), ("c", 5.0, (15.0, 15.1)),
          ]
          for variant, us in zip(("deft", "sequence"), times, strict=True)),
        replace(ROW, workload="d", floor_us=1.0, us=12.0),
        replace(ROW, workload="d", variant="sequence", us=None, ok=None, note="skipped: big"),
        replace(ROW, workload="a", heads="32/32", us=25.0),
    ]  # fmt: skip


def test_floor_table():
    assert floor_table(rows_by_hand()).splitlines()[2:] == [
        "| 32/8 | deft | 3.00 | 2 | 1 of 2 |",
        "| 32/8 | sequence | 8.49 | 2 | 0 of 1 |",
        "| 32/32 | deft | 1.25 | 1 |  |",
    ]


def test_ablation_table():
    head, _, *body = ablation_table(rows_by_hand()).splitlines()
    variants = "deft_node | deft_node_chunk | deft_flatten | sequence | tree_mask | deft"
    assert head == f"| workload | heads | {variants} |"
    assert body == [
        "| a | 32/8 |  |  |  | 80.0 (4.00) |  | 20.0 (1.00) |",
        "| b | 32/8 |  |  |  | 360.0 (2.00) |  | 180.0 (1.00) |",
        "| c | 32/8 |  |  |  | 15.1 (1.01) |  | 15.0 (1.00) |",
        "| d | 32/8 |  |  |  |  |  | 12.0 (1.00) |",
        "| geometric mean | 32/8 |  |  |  | (2.00) |  | (1.00) |",
        "| a | 32/32 |  |  |  |  |  | 25.0 (1.00) |",
        "| geometric mean | 32/32 |  |  |  |  |  | (1.00) |",
    ]


def test_results_table():
    row = replace(
        ROW, plan_ms=0.21, num_reads=22, partial_rows=3, items=4, counted_mb=0.5, error=3e-4,
        torch_error=2.5e-4, layers=32,
    )  # fmt: skip
    head, rule, full, skipped = results_table(
        [row, replace(ROW, us=None, ok=None, note="skipped: big")]
    ).splitlines()
    assert full == (
        r"| 1,2\|3,4 | 32/8 | 2 | 11 | 0.05 | 20.00 | deft | 30.0 | 1.50 | 0.210 | 2.00 | 3 | 4 | "
        "0.50 | 3.00e-04 | 2.50e-04 | 32 |  |"
    )
    assert skipped.endswith("| deft |" + "  |" * 10 + " skipped: big |")
    assert head.count("|") == rule.count("|") == skipped.count(" | ") + 2 == 19


def test_report_names_the_machine():
    text = report(SETTING, rows_by_hand())
    assert text.startswith("# Tree attention: a card\n\ntorch 2.11, triton 3.6, float16, head dim")
    assert "3.000 TB/s and 700 TFLOP/s" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Against the floor", "## Ablation", "## All",
    ]  # fmt: skip
    untimed = report(replace(SETTING, bandwidth=None, flop_rate=None), [replace(ROW, us=None)])
    assert "Ablation" not in untimed and "µs a layer" not in untimed
