"""Every option of every group can be composed and made, and where possible runs."""

import sys

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import get_object, instantiate
from places import PACKAGE, PARTS
from task_options import task_options

from treeshare.experiments.run import run
from treeshare.experiments.runs.config import SetupError, prepare

CONF = PACKAGE / "conf"
MOCK = ["engine=mock", "task.limit=1"]
OPEN = {"search=mcts_uct", "search=treequest"}
OPEN |= {"evaluator=oracle", "evaluator=combined", "evaluator=memo"}
MANDATORY = {"model=hf": ["model.name=x"], "engine=replay": ["engine.log=x"]}
MANDATORY |= {"reward_model=hf": ["reward_model.name=x"]}
MANDATORY |= {"engine/speculative=model": ["engine.speculative.model.name=x"]}


def options(*groups):
    return [
        f"{group}={path.stem}" for group in groups for path in sorted((CONF / group).glob("*.yaml"))
    ]


def composed(*overrides):
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        return compose("config", list(overrides))


def test_every_group_is_tested():
    groups = {path.name for path in CONF.iterdir() if path.is_dir() and path.name[0] not in "_."}
    assert groups == {
        *("task", "search", "expander", "evaluator", "model", "engine", "budget", "logger"),
        *("reward_model", "experiment", "hydra"),
    }


@pytest.mark.parametrize("option", options("model", "engine", "reward_model"))
def test_target_exists(option):
    cfg = composed(option, *MANDATORY.get(option, []))
    assert callable(get_object(cfg[option.partition("=")[0]]._target_))


@pytest.mark.parametrize("option", ["engine/speculative=ngram", "engine/speculative=model"])
def test_speculative_target_exists(option):
    node = composed(option, *MANDATORY.get(option, [])).engine.speculative
    assert callable(get_object(node._target_))


def test_speculative_yaml_repeats_the_defaults_of_the_code():
    node = composed("engine/speculative=ngram").engine.speculative
    drafter, default = instantiate(node), instantiate({"_target_": node._target_})
    for name in ("num_tokens", "longest", "shortest", "branches"):
        assert getattr(drafter, name) == getattr(default, name)


@pytest.mark.parametrize("option", options("budget", "logger"))
def test_option_can_be_made(option):
    for extra in ("tensorboard", "mlflow"):
        if option == f"logger={extra}":
            pytest.importorskip(extra, reason=f"needs the extra `{extra}`")
    prepare(composed(*MOCK, option))


@pytest.mark.parametrize("option", options("search", "expander", "evaluator"))
def test_option_runs_on_the_mock_engine(option, tmp_path):
    if option == "search=treequest":
        pytest.importorskip("treequest", reason="needs the extra `treequest`")
    more = ["expander=choose"] if option == "evaluator=logprob" else []
    if option == "search=got":
        more = task_options("sorting")
    summary = run(composed(*MOCK, option, *more, f"output_dir={tmp_path}"))
    assert len(summary.rows) == 1 and not summary.failures


@pytest.mark.parametrize(
    "option", sorted({*options("search", "expander", "evaluator"), "budget=unlimited"})
)
def test_yaml_repeats_the_defaults_of_the_code(option):
    """A custom `_target_` drops the YAML's keys; equal defaults keep that from changing values."""
    if option in OPEN:
        return  # these set parameters that have no default
    node = composed(option)[option.partition("=")[0]]
    assert instantiate(node) == instantiate({"_target_": node._target_})


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*")), ids=lambda p: p.stem)
def test_experiment_is_headed_by_its_command_and_can_be_made(path):
    package, command, *_ = path.read_text().splitlines()
    assert package == "# @package _global_"
    assert command == f"# treeshare experiment={path.stem}"
    prepare(composed(f"experiment={path.stem}", "engine=mock"))


def test_mock_engine_needs_no_model():
    prepare(composed(*MOCK, "model.name=no/such/model")).load_engine().close()


def test_the_task_does_not_hold_the_verifier():
    setup = prepare(composed(*MOCK))
    assert type(setup.verifier).__name__ == "Game24Verifier"
    assert not any(isinstance(held, type(setup.verifier)) for held in vars(setup.task).values())


def test_only_the_oracle_is_flagged():
    assert prepare(composed(*MOCK, "evaluator=oracle")).is_oracle
    assert not prepare(composed(*MOCK)).is_oracle


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluator=vote", "Vote needs a task that is HasVotes: task 'bare' has no"),
        ("search=lats", "LATS needs a task that is HasReflections: task 'bare' has no"),
        ("search=self_refine", "SelfRefine needs a task that is HasRefinement: task 'bare' has no"),
    ],
)
def test_part_that_the_task_cannot_serve_is_refused(override, message, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(PARTS)])
    cfg = composed("engine=mock", "evaluator=logprob", "expander=sample", override)
    cfg.task = {"_target_": "bare_task.Bare", "verifier": {"_target_": "bare_task.Likely"}}
    with pytest.raises(SetupError, match=message):
        prepare(cfg)


@pytest.mark.parametrize(
    ("override", "is_another_run"),
    [
        ("seed=1", True),
        ("search.breadth=2", True),
        ("max_live=2", False),
        ("logger=wandb", False),
        ("record=true", False),
        ("model.dtype=bfloat16", False),  # the mock engine has no model
    ],
)
def test_directory_depends_on_what_is_run(override, is_another_run):
    paths = {prepare(composed(*MOCK, *more)).directory for more in ([], [override])}
    assert len(paths) == 1 + is_another_run


def test_seeds_share_the_hash():
    names = [prepare(composed(*MOCK, f"seed={seed}")).directory.name for seed in (0, 1)]
    assert names[0].removesuffix("-seed0") == names[1].removesuffix("-seed1")
