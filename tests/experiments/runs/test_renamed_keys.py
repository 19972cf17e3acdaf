"""An old configuration key is refused with its new name, wherever it is given."""

import sys

import pytest
import yaml
from places import PACKAGE

from treeshare.experiments.bench.decode import main as bench_decode
from treeshare.experiments.runs.renamed_keys import RENAMED, refusal, refuse_renamed

ASKED = {
    "key": (["search.simulations=9"], "search.simulations", "search.num_simulations"),
    "key of an option": (
        ["search=mcts", "search.simulations=9"],
        "search.simulations",
        "search.num_simulations",
    ),
    "added key": (["++engine.max_batch=9"], "engine.max_batch", "engine.max_num_seqs"),
    "group": (["classifier=hf"], "classifier", "reward_model"),
    "key of a group": (["+classifier.name=x"], "classifier", "reward_model"),
    "file": (["--config-dir", ".", "search=mine"], "search.samples", "search.num_samples"),
    "file of a group": (["--config-dir", ".", "experiment=old"], "classifier", "reward_model"),
}


def nested(key, value):
    *parents, leaf = key.split(".")
    node = {leaf: value}
    for name in reversed(parents):
        node = {name: node}
    return node


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_every_old_key_is_refused_by_its_new_name(old, new):
    said = f"{old} was renamed: write {new}"
    assert refusal(old) == said
    assert refusal(f"{old}.name") == f"{old}.name was renamed: write {new}.name"
    assert refusal(f"{old}s") is refusal(new) is None
    with pytest.raises(ValueError, match=said):
        refuse_renamed(nested(old, None))
    refuse_renamed(nested(new, None))


@pytest.mark.parametrize("new", RENAMED.values())
def test_every_new_key_is_in_the_configuration(new):
    group, *_, leaf = new.split(".") if "." in new else ("", new)
    folder = PACKAGE / "conf" / group
    files = sorted(folder.glob("*.yaml")) + sorted(folder.glob("*/*.yaml"))
    keys = {key for file in files for key in yaml.safe_load(file.read_text()) or {}}
    assert leaf in keys or (folder / leaf).is_dir()


@pytest.mark.parametrize(("arguments", "old", "new"), ASKED.values(), ids=ASKED)
def test_the_command_ends_with_one_line(arguments, old, new, treeshare, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search/mine.yaml").write_text("_target_: treeshare.search.ToTBFS\nsamples: 3\n")
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nclassifier:\n  _target_: x\n"
    (tmp_path / "experiment/old.yaml").write_text(text)
    done = treeshare(*arguments, "task.limit=1")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"treeshare: {old} was renamed: write {new}\n"
    assert not (tmp_path / "outputs").exists()


def test_a_benchmark_refuses_them_too(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["bench_decode", "max_batch=9"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    assert bench_decode.main() == 2
    assert capfd.readouterr().err == "bench_decode: max_batch was renamed: write max_num_seqs\n"


POLICY = """
class Policy:
    def __init__(self, samples):
        self.samples = samples

    async def search(self, ctx):
        return await ctx.sample(ctx.root, "io", self.samples)
"""


def test_a_parameter_of_a_users_class_may_have_an_old_name(treeshare, tmp_path, read_rows):
    (tmp_path / "policy_with_samples.py").write_text(POLICY)
    custom = ["search._target_=policy_with_samples.Policy", "engine=mock", "task.limit=1"]
    assert treeshare(*custom, "+search.samples=3", "engine.replies=[1 + 2]").code == 0
    assert len(read_rows()) == 1
    missing_plus = treeshare(*custom, "search.samples=3")
    assert "unknown key 'search.samples'" in missing_plus.err
