"""Runs on a model with a chat format: what is recorded of it, and what another format changes."""

import json

import pytest
from chat_templates import TEMPLATES, with_template
from tiny_models import SIZES, byte_tokenizer, network_of
from transformers import LlamaConfig

from treeshare.experiments.results.identity import identity_of
from treeshare.experiments.runs.config import SetupError

TREE = "treeshare.llm_backend.engines.tree.TreeEngine"
LOADER = "treeshare.llm_backend.model.model.load_model"
REPLAY = "treeshare.llm_backend.engines.replay.ReplayEngine"
TASK = {"_target_": "treeshare.tasks.Game24", "limit": 2, "shots": 1}
TASK["verifier"] = {"_target_": "treeshare.tasks.arithmetic.game24.Game24Verifier"}
TASK["sampling"] = {"io": {"max_tokens": 4}}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A tiny model whose tokenizer has a chat template."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    hf = with_template(byte_tokenizer(), TEMPLATES["channel"])
    size = {"vocab_size": max(hf.get_vocab().values()) + 1, "max_position_embeddings": 1024}
    network_of(LlamaConfig(**SIZES | size)).save_pretrained(path)
    hf.save_pretrained(path)
    return path


@pytest.fixture
def chat_run(run_with, directory, tmp_path):
    """Runs two puzzles on the model; returns the summary and the run's directory."""

    def call(**model):
        model = {"_target_": LOADER, "name": str(directory), **model}
        engine = {"_target_": TREE, "model": model, "kv_tokens": 4000}
        return run_with(task=TASK, engine=engine, record=True, name="a")

    return call


def lines(summary, name):
    return [json.loads(line) for line in (summary.directory / name).read_text().splitlines()]


def answers(summary):
    return [(row.problem, row.answers, row.prompt_tokens) for row in summary.rows]


def test_the_form_of_the_prompts_is_recorded_and_shown(chat_run):
    summary, flat = chat_run(), chat_run(chat="flat")
    form = lines(summary, "sessions.jsonl")[-1]["resources"]["chat"]
    assert form.startswith("template ") and len(form) == 17
    assert f"\nprompts         chat, {form}\n" in summary.table()
    (kind,) = summary.resources
    assert kind.endswith(f" {form}")
    assert lines(summary, "requests.jsonl")[0]["chat"]["turns"][0][0] == "user"
    assert "chat" not in lines(flat, "sessions.jsonl")[-1]["resources"]
    assert "prompts " not in flat.table()
    assert "chat" not in lines(flat, "requests.jsonl")[0]


def test_another_format_is_another_run(chat_run, tmp_path):
    own = tmp_path / "mine.jinja"
    own.write_text("Hello. " + TEMPLATES["plain"])
    forms = [{}, {"chat": "flat"}, {"system": "Be brief."}, {"chat_date": "2026-02-01"}]
    forms += [{"chat": str(own)}, {"chat": str(own), "chat_template_args": {}}]
    runs = [chat_run(**form).directory for form in forms]
    assert runs[4] == runs[5] and len(set(runs)) == len(runs) - 1
    assert chat_run(chat="template").directory == runs[0]
    own.write_text("Hi. " + TEMPLATES["plain"])
    assert chat_run(chat=str(own)).directory != runs[4]


def test_a_model_that_is_asked_in_plain_text_counts_as_before(directory, tmp_path):
    """A hub's model may have a template, so its runs are not those of plain text."""

    def counted(name, **form):
        model = {"_target_": LOADER, "name": str(name), **form}
        return identity_of({"seed": 0, "engine": {"_target_": TREE, "model": model}}).identity

    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "tokenizer_config.json").write_text("{}")
    for name in ("embedded", "smollm2", plain):
        assert "chat" not in counted(name)["engine"]["model"]
        assert counted(name) == counted(name, chat="flat", chat_template_args={}, system=None)
    (plain / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    for name in ("org/model", directory, plain):
        assert counted(name)["engine"]["model"]["chat"] == "template"
        assert counted(name) != counted(name, chat="flat")


def test_a_run_is_replayed_without_the_model(chat_run, run_with):
    summary = chat_run()
    log = str(summary.directory / "requests.jsonl")
    again = run_with(task=TASK, engine={"_target_": REPLAY, "log": log, "engine": None}, name="b")
    assert not again.failures
    assert answers(again) == answers(summary)


def test_a_format_that_cannot_be_is_refused_in_one_line(chat_run):
    with pytest.raises(SetupError, match=r"^model\.chat_template_args\.a=1 changes nothing in the"):
        chat_run(chat_template_args={"a": 1})
