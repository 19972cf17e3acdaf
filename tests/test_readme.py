"""The README's examples are run as they stand, through the command they name."""

import re

import pytest
import torch
from hydra import compose, initialize_config_module
from page_examples import example, run_example
from places import ROOT

from treeshare.experiments.runs.config import prepare

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def run(tmp_path, name, *arguments):
    return run_example(README, name, tmp_path, *arguments)


def test_policy_example(tmp_path):
    done = run(tmp_path, "my_policies.py", "task.limit=3")
    assert done.returncode == 0, done.stderr
    assert "game24 ShrinkingBeam" in done.stdout
    assert re.search(r"puzzles +3 of 3", done.stdout)
    assert len(list((tmp_path / "outputs").glob("**/trees/*.json"))) == 3


def test_policy_example_is_short():
    code, _ = example(README, "my_policies.py")
    assert len(code.strip().splitlines()) <= 30


def test_task_example(tmp_path):
    done = run(tmp_path, "my_tasks.py")
    assert done.returncode == 0, done.stderr
    assert re.search(r"top-1 +100\.0%", done.stdout)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_quick_start_commands_exist(target):
    assert f"make {target} " in README
    assert f"\n{target}:" in MAKEFILE


def test_what_the_demo_prints_is_of_the_configuration_it_has_now():
    """A run's directory is named by its configuration."""
    assert "treeshare -m experiment=demo search=cot,tot_bfs\n" in MAKEFILE
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        cfg = compose("config", ["experiment=demo", "search=tot_bfs", "name=tot_bfs"])
    assert f"{prepare(cfg).directory}/results.jsonl" in README


def test_options_in_the_table_exist():
    table = README[
        README.index("| group | options |") : README.index("`treeshare.search.policies.catalog()`")
    ]
    for line in table.splitlines()[2:]:
        if not line.strip():
            continue
        _, group, options, _ = (cell.strip() for cell in line.split("|"))
        listed = set(re.findall(r"`(\w+)`", options.split(";")[0]))
        folder = ROOT / "conf" / group.strip("`")
        assert listed == {path.stem for path in folder.glob("*.yaml")}, group


def test_tree_attention_example():
    """On this machine's device, against PyTorch's attention over each path."""
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
