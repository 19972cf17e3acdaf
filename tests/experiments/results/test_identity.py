"""What decides the results names the directory of a run, and nothing else does."""

import importlib
import inspect
import json
import shutil
import sys

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import get_object
from omegaconf import OmegaConf
from task_options import task_options

import treeshare as ts
from treeshare.experiments.results.identity import RESOURCES, identity_of
from treeshare.experiments.runs.config import meta_of, prepare

RECORDED = {
    "c60258fe9c-seed0": ["engine=mock"],
    "b541e01d83-seed7": [
        "engine=mock",
        "task=countdown",
        "task.numbers=4",
        "search=mcts",
        "search.c=2",
        "seed=7",
    ],
    "9579a77cd6-seed0": [
        "engine=mock",
        "task=blocksworld",
        "expander=propose",
        "evaluator=vote",
        "budget=small",
    ],
    "ff863ac878-seed0": [
        "model=hf",
        "model.name=org/model",
        "engine/speculative=ngram",
        "search=cot_sc",
    ],
    "e7c19a6c20-seed0": [
        "engine=hf",
        "model=hf",
        "model.name=org/model",
        "task=sorting",
        "evaluator=oracle",
    ],
}
ENGINES = [
    "treeshare.llm_backend.engines.tree.TreeEngine",
    "treeshare.llm_backend.engines.hf.HuggingFaceEngine",
    "treeshare.llm_backend.engines.mock.MockEngine",
    "treeshare.llm_backend.engines.replay.ReplayEngine",
    "treeshare.llm_backend.engines.draft_model.ModelDrafter",
    "treeshare.llm_backend.speculative.ngram.NgramDrafter",
    "treeshare.llm_backend.model.model.load_model",
    "treeshare.llm_backend.reward.hf.load_reward_model",
]


@pytest.fixture(scope="module")
def composed():
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        yield lambda *overrides: compose("config", list(overrides))


@pytest.fixture
def run_id(composed):
    """The name of the directory of the run that a command line makes."""

    def of(*overrides):
        config = OmegaConf.to_container(composed(*overrides), resolve=True)
        return meta_of(config, "task", "name").run_id

    return of


def identity(**groups):
    return identity_of({"seed": 0, "engine": {"_target_": "any.Engine"}, **groups}).identity


@pytest.mark.parametrize("name", RECORDED)
def test_directories_of_recorded_configurations_keep_their_names(name, run_id):
    """If one changes, its runs are not found any more: is the change worth that?"""
    assert run_id(*RECORDED[name]) == name


@pytest.mark.parametrize(
    "override",
    [
        *("answers=1", "max_live=3", "record=true", "fail_fast=true", "save_trees=false"),
        *("progress=false", "overwrite=true", "output_dir=elsewhere", "logger=wandb"),
        *("task.limit=3", "task.shard=1/2", "search.breadth=5", "+engine.speculative=null"),
        *("model.device=cuda", "model.dtype=bfloat16", "model.attention=deft", "model.fused=true"),
        *("engine.kv_tokens=999", "engine.max_num_seqs=2", "engine.max_num_batched_tokens=64"),
        *("engine.memory=0.5", "model.device=auto"),
    ],
)
def test_what_does_not_decide_the_results_does_not_count(override, run_id):
    assert run_id(override) == run_id()


@pytest.mark.parametrize(
    "override",
    [
        *("task.start=1", "+task.sampling.value.temperature=0", "search.breadth=4", "search=beam"),
        *("expander.width=2", "evaluator=vote", "evaluator.mode=score", "budget.tokens=9"),
        *("model=smollm2", "+model.num_layers=2", "+model.context=99", "engine=hf"),
        *("engine/speculative=ngram", "+task.verifier.strict=true", "seed=1"),
    ],
)
def test_what_decides_the_results_counts(override, run_id):
    assert run_id(override) != run_id()


def test_the_seeds_of_a_configuration_share_its_digest(run_id):
    first, second = run_id(), run_id("seed=5")
    assert first.partition("-")[0] == second.partition("-")[0]
    assert second.endswith("-seed5")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes `my_policies.py` with the given constructor, and loads it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(parameters):
        text = f"class Policy:\n    def __init__(self{parameters}):\n        pass\n"
        (tmp_path / "my_policies.py").write_text(text)
        sys.modules.pop("my_policies", None)
        importlib.invalidate_caches()

    yield write
    sys.modules.pop("my_policies", None)


def test_a_new_parameter_with_a_default_changes_no_identity(module):
    module(", width")
    before = identity(search={"_target_": "my_policies.Policy", "width": 3})
    module(", width, depth=4, rule=('a', 1.0), **more")
    given = {"_target_": "my_policies.Policy", "width": 3}
    assert identity(search=given) == before
    assert identity(search=given | {"depth": 4.0, "rule": ["a", 1]}) == before
    assert identity(search=given | {"depth": 5}) != before
    assert identity(search=given | {"more": None}) != before


def test_a_default_of_another_type_is_another_value(module):
    module(", flag=True, text='1'")
    plain = identity(search={"_target_": "my_policies.Policy"})
    for other in ({"flag": 1}, {"flag": None}, {"text": 1}):
        assert identity(search={"_target_": "my_policies.Policy", **other}) != plain


def test_defaults_of_data_classes_and_of_parts_of_parts_do_not_count():
    weights = {"value": 0.5, "heuristic": 0.5}
    parts = {
        "value": {"_target_": "treeshare.search.ValuePrompt", "num_samples": 3, "mode": "sample"},
        "heuristic": {"_target_": "treeshare.search.Heuristic"},
    }
    whole = {"_target_": "treeshare.search.Combined", "evaluators": parts, "weights": weights}
    short = whole | {"evaluators": parts | {"value": {"_target_": "treeshare.search.ValuePrompt"}}}
    assert identity(evaluator=whole) == identity(evaluator=short)


@pytest.mark.parametrize("target", ENGINES)
def test_the_defaults_of_engines_are_those_of_their_constructors(target):
    """They are read from the text of the modules, which are not imported for that."""
    parameters = inspect.signature(get_object(target)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    written = identity_of({"seed": 0, "engine": {"_target_": target}}).defaults
    expected = {f"engine.{name}": value for name, value in defaults.items()}
    for name in (*RESOURCES, "name"):
        expected.pop(f"engine.{name}", None)
    if "engine.chat" in expected:  # what `auto` is for a model of ours
        expected["engine.chat"] = "flat"
    assert written == json.loads(json.dumps(expected))


@pytest.mark.parametrize("target", ["treeshare.tasks.Game24", "treeshare.search.Beam"])
def test_a_class_counts_by_its_name_wherever_it_is_imported_from(target):
    made = get_object(target)
    full = f"{made.__module__}.{made.__qualname__}"
    assert full != target
    assert identity(search={"_target_": full}) == identity(search={"_target_": target})


def test_every_key_of_a_users_own_engine_counts():
    assert identity(engine={"_target_": "any.Engine", "device": "cpu"}) != identity()


def model(directory, **more):
    loader = {"_target_": "treeshare.llm_backend.model.model.load_model", "name": str(directory)}
    return identity_of({"seed": 0, "engine": {"_target_": ENGINES[0], "model": loader | more}})


def test_a_model_counts_by_its_files(tmp_path):
    (tmp_path / "a/llama").mkdir(parents=True)
    (tmp_path / "a/llama/config.json").write_text("{}")
    (tmp_path / "a/llama/model.safetensors").write_bytes(b"one")
    before = model(tmp_path / "a/llama")
    assert before.digests["engine.model.name"].keys() == {"config.json", "model.safetensors"}
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert model(tmp_path / "b/llama").identity == before.identity
    (tmp_path / "b/llama/model.safetensors").write_bytes(b"two")
    assert model(tmp_path / "b/llama").identity != before.identity


def test_a_chat_template_counts_by_its_contents(tmp_path):
    (tmp_path / "a.jinja").write_text("one")
    before = model("org/model", chat=str(tmp_path / "a.jinja"))
    (tmp_path / "a.jinja").rename(tmp_path / "b.jinja")
    assert model("org/model", chat=str(tmp_path / "b.jinja")).identity == before.identity
    (tmp_path / "b.jinja").write_text("two")
    assert model("org/model", chat=str(tmp_path / "b.jinja")).identity != before.identity


def test_the_embedded_model_counts_by_its_files_and_a_hub_id_by_its_name():
    assert "model.safetensors" in model("embedded").digests["engine.model.name"]
    assert model("org/model").identity["engine"]["model"]["name"] == "org/model"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The identity of a run on a file or folder of data, wherever it is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def of(path, **more):
        verifier = {"_target_": "any.Verifier", "path": str(path)}
        task = {"_target_": "any.Task", "path": str(path), "verifier": verifier, **more}
        return identity(task=task, evaluator={"_target_": "any.Oracle", "verifier": verifier})

    return of


def test_data_count_by_their_contents(data, tmp_path):
    (tmp_path / "a.jsonl").write_text("1\n2\n")
    before = data("a.jsonl")
    (tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl")
    assert data("b.jsonl") == data(tmp_path / "b.jsonl") == before
    (tmp_path / "b.jsonl").write_text("1\n3\n")
    assert data("b.jsonl") != before


def test_a_folder_of_data_counts_by_its_files(data, tmp_path):
    (tmp_path / "set/test").mkdir(parents=True)
    (tmp_path / "set/test/data.arrow").write_text("1")
    before = data("set")
    (tmp_path / "set").rename(tmp_path / "moved")
    assert data("moved") == before
    (tmp_path / "moved/test/data.arrow").rename(tmp_path / "moved/data.arrow")
    assert data("moved") != before


def test_an_option_that_is_also_a_files_name_is_no_file(data, tmp_path):
    before = data("x", split="test")
    (tmp_path / "test").write_text("")
    assert data("x", split="test") == before


@pytest.mark.parametrize("engine", [None, {"_target_": "any.Engine"}], ids=["read", "extended"])
def test_a_log_counts_by_its_contents_unless_it_is_extended(engine, tmp_path):
    def of():
        node = {"_target_": ENGINES[3], "log": str(tmp_path / "log.jsonl"), "engine": engine}
        return identity_of({"seed": 0, "engine": node}).identity

    (tmp_path / "log.jsonl").write_text("1\n")
    before = of()
    (tmp_path / "log.jsonl").write_text("1\n2\n")
    assert (of() == before) == (engine is not None)


NAMES = ["blocksworld", "countdown", "crosswords", "game24", "math", "set_intersection", "sorting"]


@pytest.mark.parametrize("name", NAMES)
def test_python_and_the_command_make_the_same_run(name, composed, tmp_path):
    options = [*task_options(name), "task.limit=1"]
    setup = prepare(composed(*options, "engine=mock", "search.breadth=2"))
    keys = {option.removeprefix("task.").partition("=")[0] for option in options}
    needed = {key: value for key, value in setup.task.arguments.items() if key in keys}
    run = ts.solve(
        type(setup.task)(**needed),
        engine=ts.LoadedEngine(ts.MockEngine(), {"_target_": ENGINES[2]}),
        policy=ts.search.ToTBFS(breadth=2),
        name="ToTBFS",
        directory=tmp_path,
        progress=False,
    )
    command = setup.directory.relative_to("outputs")
    assert run.directory.relative_to(tmp_path) == command
