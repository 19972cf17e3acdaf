"""The README's examples run unchanged, through the command that the README names."""

import importlib
import re

import pytest
import torch
from hydra import compose, initialize_config_module
from page_examples import example, run_example
from places import PACKAGE, ROOT

from treeshare.experiments.results.comparison import comparison
from treeshare.experiments.run import run

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def run_readme(tmp_path, name, *arguments):
    return run_example(README, name, tmp_path, *arguments)


def test_policy_example(tmp_path):
    done = run_readme(tmp_path, "my_policies.py", "task.limit=3")
    assert done.returncode == 0, done.stderr
    assert "game24 ShrinkingBeam" in done.stdout
    assert re.search(r"puzzles +3 of 3", done.stdout)
    assert len(list((tmp_path / "outputs").glob("**/trees/*.json"))) == 3


def test_policy_example_is_short():
    code, _ = example(README, "my_policies.py")
    assert len(code.strip().splitlines()) <= 30


def test_task_example(tmp_path):
    done = run_readme(tmp_path, "my_tasks.py")
    assert done.returncode == 0, done.stderr
    assert re.search(r"top-1 +100\.0%", done.stdout)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_quick_start_commands_exist(target):
    assert f"make {target} " in README
    assert f"\n{target}:" in MAKEFILE


@pytest.fixture
def demo_figures(monkeypatch):
    """The module behind `make demo-figures`."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("demo_figures")


def test_the_readme_shows_the_demos_figures(demo_figures):
    assert f"treeshare {' '.join(demo_figures.COMMAND)}\n" in MAKEFILE
    assert demo_figures.readme_block(README) == demo_figures.FIGURES.read_text()


def test_the_demo_gives_the_figures_that_are_shown(demo_figures, tmp_path):
    """The puzzles are held out from training. The search solves what one chain does not."""
    jobs = []
    for name in ("cot", "tot_bfs"):
        given = ["experiment=demo", f"search={name}", f"name={name}", "progress=false"]
        with initialize_config_module("treeshare.conf", version_base="1.3"):
            summary = run(compose("config", [*given, f"output_dir={tmp_path}"]))
        jobs.append(([f"search={name}"], summary.totals))
    (_, chain), (_, tree) = jobs
    assert tree.top1 > 0.75 > chain.top1 and tree.parse_failures <= tree.requests / 100
    printed = f"{summary.table()}\n\n{comparison(jobs)}\n"
    assert _reproducible(printed) == _reproducible(demo_figures.FIGURES.read_text())


def _reproducible(figures):
    """The lines that depend neither on the directory nor on the speed."""
    varying = ("wall seconds", "results", "a tree")
    return [line for line in figures.splitlines() if not line.startswith(varying)]


def test_options_in_the_table_exist():
    table = README[README.index("| group | options |") : README.index("`treeshare --describe`")]
    for line in table.splitlines()[2:]:
        if not line.strip():
            continue
        _, group, options, _ = (cell.strip() for cell in line.split("|"))
        listed = set(re.findall(r"`(\w+)`", options.split(";")[0]))
        folder = PACKAGE / "conf" / group.strip("`")
        assert listed == {path.stem for path in folder.glob("*.yaml")}, group


def test_tree_attention_example():
    """The result equals PyTorch's attention over each path; a GPU is used if there is one."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    (code,) = (block for block in blocks if "TreePlan(" in block)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = {}
    exec(code.replace("cuda", device), names)
    for row, own in enumerate([slice(4000, 4030), slice(4030, 4070)]):
        k, v = (
            torch.cat([pool[:4000], pool[own]]).transpose(0, 1).repeat_interleave(4, 0).float()
            for pool in (names["k_pool"], names["v_pool"])
        )
        q = names["q"][row, :, None].float()
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)[:, 0]
        torch.testing.assert_close(names["out"][row].float(), expected, atol=2e-3, rtol=2e-3)
