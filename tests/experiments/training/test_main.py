"""Training on a few tiny batches writes its files and lowers the losses."""

import json
import sys

import pytest
import tiny_models
import torch
from hydra import compose, initialize_config_module
from places import PACKAGE
from safetensors.torch import load_file

from treeshare.experiments.results.digests import file_digest
from treeshare.experiments.run import main as treeshare
from treeshare.experiments.runs.config import SetupError
from treeshare.experiments.training.batches import Batch, Batches
from treeshare.experiments.training.examples import PREAMBLES, VOCABULARY, HeldOut, Lessons
from treeshare.experiments.training.main import main, run, token_losses
from treeshare.experiments.training.small_llama import Size, make_network, make_tokenizer
from treeshare.tasks import Game24, Problem
from treeshare.tasks.arithmetic.game24_puzzles import solvable_puzzles

TINY = ["device=cpu", "compile=false", "workers=0", "rows=4", "length=96", "validation=1"]
TINY += [f"model.{key}" for key in ("layers=1", "hidden=32", "heads=2", "feed_forward=48")]
TOKENIZER = make_tokenizer(PREAMBLES, VOCABULARY)


@pytest.fixture
def puzzles(tmp_path):
    path = tmp_path / "24.csv"
    path.write_text("Puzzles\n" + "".join(f"{' '.join(map(str, p))}\n" for p in solvable_puzzles()))
    return str(path)


def composed(*overrides, config="train"):
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        return compose(config, [*TINY, *overrides])


def batches(seed=0, **options):
    given = {"count": 3, "rows": 4, "length": 96, "verdict_weight": 8}
    lessons = Lessons([(1, 2, 3, 4), (4, 5, 6, 10)], HeldOut([]))
    return Batches(lessons, TOKENIZER, seed, **given | options)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_training_learns_and_leaves_a_model_that_searches(puzzles, tmp_path, monkeypatch, capfd):
    out = tmp_path / "out"
    more = ["steps=30", "log_every=10", "save_every=20", "warmup=2", "learning_rate=1e-2"]
    checks = run(composed(f"puzzles={puzzles}", f"output_dir={out}", *more))
    assert {path.name for path in out.iterdir()} == {
        *("model", "losses.jsonl", "checks.jsonl", "training.json")
    }
    losses = lines(out / "losses.jsonl")
    assert [line["step"] for line in losses] == [10, 20, 30]
    assert losses[-1]["texts"] < losses[0]["texts"] - 0.5
    assert losses[-1]["verdicts"] < losses[0]["verdicts"] - 0.5
    assert losses[-1]["tokens"] == 30 * 4 * 96
    assert [check.step for check in checks] == [20, 30]
    assert [line["step"] for line in lines(out / "checks.jsonl")] == [20, 30]
    about = json.loads((out / "training.json").read_text())
    assert about["options"]["steps"] == 30 and about["device"] == "CPU"

    monkeypatch.chdir(tmp_path)
    command = ["treeshare", "model=hf", f"model.name={out / 'model'}", "task.limit=1"]
    monkeypatch.setattr(sys, "argv", [*command, "search.breadth=2", "expander.width=4"])
    assert treeshare() == 0
    assert "puzzles         1 of 1" in capfd.readouterr().out


@pytest.fixture
def solved(tmp_path):
    """A file of one solved puzzle."""
    task = Game24()
    root = task.root(Problem("p", (4, 5, 6, 10)))
    reply = " 4 * 6 = 24 (left: 5 10 24)"
    path = tmp_path / "solved.jsonl"
    line = {"prompt": "".join(task.prompt("step", root)), "completion": reply, "nodes": [1]}
    path.write_text(json.dumps(line) + "\n")
    return path


def finetuned(solved, out, *overrides):
    given = [f"data={solved}", f"output_dir={out}", "rows=2", "warmup=1", *overrides]
    return run(composed(*given, config="finetune"))


def test_a_saved_model_learns_on_from_an_exported_file(puzzles, solved, tmp_path):
    first = tmp_path / "first"
    run(composed(f"puzzles={puzzles}", f"output_dir={first}", "steps=1", "warmup=1"))
    start = f"init={first / 'model'}"
    given = [start, "epochs=200", "learning_rate=1e-2", "log_every=10"]
    assert finetuned(solved, tmp_path / "second", *given) == []
    losses = lines(tmp_path / "second/losses.jsonl")
    (line,) = [json.loads(solved.read_text())]
    tokens = len(TOKENIZER.encode(line["prompt"])) + len(TOKENIZER.encode(line["completion"])) + 1
    steps = -(-200 * tokens // (2 * 96))
    assert losses[-1]["step"] == steps > 1
    assert losses[-1]["texts"] < losses[0]["texts"] - 0.5
    about = json.loads((tmp_path / "second/training.json").read_text())
    assert about["data"] == {
        "digest": file_digest(solved),
        **{"lines": 1, "too_long": 0, "tokens": tokens},
    }
    files = [tmp_path / name / "model/model.safetensors" for name in ("first", "second")]
    before, after = map(load_file, files)
    assert any(not torch.equal(before[key], after[key]) for key in before)

    third = tmp_path / "third"
    checks = finetuned(solved, third, start, f"puzzles={puzzles}", "epochs=null", "steps=2")
    assert [check.step for check in checks] == [2]


def test_the_embedded_model_is_where_fine_tuning_starts(solved, tmp_path):
    finetuned(solved, tmp_path / "tuned", "epochs=0.1", "learning_rate=1e-30")
    tuned = load_file(tmp_path / "tuned/model/model.safetensors")
    embedded = load_file(PACKAGE / "llm_backend/embedded/model.safetensors")
    assert tuned.keys() == embedded.keys()
    assert all(torch.equal(tuned[key], embedded[key]) for key in embedded)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("init=nowhere", "init='nowhere' is neither 'embedded' nor a directory"),
        ("data=nowhere.jsonl", "nowhere.jsonl"),
        ("data=null", "puzzles or data must be given"),
        ("steps=3", "steps=3 and epochs=3.0: one of them must be null"),
        ("epochs=null", "steps=None and epochs=None: one of them must be null"),
        ("epochs=0", "epochs=0.0 must be above 0"),
        ("length=4096", "length=4096 must be from 64 to 2048"),
    ],
)
def test_bad_options_of_fine_tuning_are_refused(override, message, solved, tmp_path):
    with pytest.raises(SetupError) as info:
        finetuned(solved, tmp_path / "out", override)
    assert message in str(info.value)
    assert not (tmp_path / "out").exists()


def test_models_of_other_kinds_are_refused(solved, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    start = f"init={other}"
    with pytest.raises(SetupError, match=f"^init='{other}' "):
        finetuned(solved, tmp_path / "out", start)
    tiny_models.make_network("llama").save_pretrained(other)
    tiny_models.byte_tokenizer(bos_token="<sep>").save_pretrained(other)
    with pytest.raises(SetupError, match=f"^init='{other}' must be a model that this command has"):
        finetuned(solved, tmp_path / "out", start)
    tiny_models.byte_tokenizer().save_pretrained(other)
    with pytest.raises(SetupError, match=r"^length=\d+ must be at most \d+, the context of init"):
        finetuned(solved, tmp_path / "out", start, "length=2048")


def test_batches_do_not_depend_on_who_makes_them():
    alone = list(batches().loader(0, pin_memory=False))
    shared = list(batches().loader(2, pin_memory=False))
    assert len(alone) == len(shared) == 3
    for a, b in zip(alone, shared, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(alone[0].tokens, alone[1].tokens)
    assert not torch.equal(alone[0].tokens, batches(seed=1)[0].tokens)


def test_batch_is_packed_and_only_replies_are_learnt():
    tokens, positions, weights = batches()[0]
    assert tokens.shape == positions.shape == weights.shape == (4, 96)
    assert (positions > 0).float().mean() > 0.6
    starts = (positions == 0) & (tokens != 0)
    preambles = TOKENIZER.convert_tokens_to_ids(list(PREAMBLES))
    assert starts.sum() > 8
    assert set(tokens[starts].tolist()) <= set(preambles)
    assert not weights[starts].any()
    judged = tokens[weights == 8]
    words = ("sure", "likely", "impossible", "yes", "no")
    assert len(judged) and {TOKENIZER.decode([t]).strip() for t in judged} <= set(words)
    ends = tokens[(weights == 1) & (tokens == TOKENIZER.eos_token_id)]
    assert len(ends) == starts.sum()


def test_examples_of_a_row_do_not_see_each_other():
    """A packed batch has the same losses as its examples one by one."""
    torch.manual_seed(0)
    network = make_network(TOKENIZER, Size(2, 32, 2, 48, 128))
    batch = batches()[0]
    with torch.no_grad():
        together, weight = token_losses(network, batch)
        alone = []
        for row in range(len(batch.tokens)):
            starts = (batch.positions[row] == 0).nonzero()[:, 0].tolist()
            for start, stop in zip(starts, [*starts[1:], batch.tokens.shape[1]], strict=True):
                one = Batch(*(part[row : row + 1, start:stop] for part in batch))
                if one.weights.any():
                    alone.append(token_losses(network, one)[0])
    assert len(together) == len(weight) == (batch.weights > 0).sum()
    torch.testing.assert_close(together, torch.cat(alone), atol=0.05, rtol=0.02)  # bf16


def test_the_same_directory_is_not_written_twice(puzzles, tmp_path):
    with pytest.raises(SetupError, match="exists; take another"):
        run(composed(f"puzzles={puzzles}", f"output_dir={tmp_path}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=0", "steps=0 must be at least 1"),
        ("length=32", "length=32 must be from 64 to 2048"),
        ("verdict_weight=1", "verdict_weight=1 must be from 2 to 255"),
        ("workers=-1", "workers=-1 must be at least 0"),
        ("passes=0", "passes=0 must be at least 1"),
        ("hold_out=none", "hold_out='none' is neither 'puzzles' nor 'positions'"),
        ("model.heads=3", "hidden=32 is not a multiple of heads=3"),
        ("validation=0", "validation=0 must be from 1 to"),
        ("puzzles=nowhere.csv", "nowhere.csv"),
    ],
)
def test_bad_options_give_one_line(override, message, puzzles, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys,
        "argv",
        ["train", *TINY, f"puzzles={puzzles}", f"output_dir={tmp_path / 'o'}", override],
    )
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    assert main() == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_list_of_puzzles_must_be_given(tmp_path):
    with pytest.raises(SetupError, match="puzzles"):
        run(composed(f"output_dir={tmp_path / 'o'}"))
