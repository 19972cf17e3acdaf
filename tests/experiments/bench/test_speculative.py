"""The benchmark of speculative decoding, but for its times: rows, resuming, refusals, the table."""

import json
import sys
from dataclasses import replace

import pytest
from tiny_models import byte_tokenizer, make_network

from treeshare.experiments.bench.speculative import Measured, main, table
from treeshare.experiments.bench.text_workloads import WORKLOADS, requests

ROW = Measured("cot", 8, 0.7, "plain", 100, 2.0, 1.0, 40, 0, 0, 0, 8, 8)
TINY = ["drafters.early_exit.model.num_layers=1", "max_tokens=6", "repeats=2", "output_dir=rows"]
FAST = ["workloads=[few_shot]", "batches=[2]", "temperatures=[0.7]", *TINY]


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "tiny"
    network = make_network("llama")
    network.config.max_position_embeddings = 4096
    network.save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture
def bench(tmp_path, model_directory, monkeypatch, capfd):
    """The command in this process on a tiny random model, started in `tmp_path`: code, stderr."""
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()

    def call(*args):
        given = [f"model.name={model_directory}", *args]
        monkeypatch.setattr(sys, "argv", ["bench_speculative", *given])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        return main(), capfd.readouterr().err

    return call


def rows_of(directory):
    lines = (directory / "rows/results.jsonl").read_text().splitlines()
    return [Measured(**json.loads(line)) for line in lines]


def test_every_arm_has_a_row_and_equal_texts(bench, tmp_path):
    assert bench(*FAST) == (0, "")
    rows = rows_of(tmp_path)
    assert [row.drafter for row in rows] == ["plain", "ngram", "ngram_tree", "early_exit"]
    for row in rows:
        assert row.num_equal == row.num_completions == 2
        assert row.seconds > 0 and row.speedup > 0
        assert row.accepted <= row.drafted
        assert (row.drafted == 0) == (row.verifications == 0)
        assert row.tokens == rows[0].tokens
    assert rows[0].drafted == 0 < rows[3].drafted


def test_the_same_command_again_measures_nothing_and_another_setting_is_refused(bench, tmp_path):
    bench(*FAST)
    before = rows_of(tmp_path)
    assert bench(*FAST)[0] == 0
    code, err = bench(*FAST, "max_tokens=7")
    assert code == 2 and "take another output_dir" in err
    assert rows_of(tmp_path) == before


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("workloads=[poems]", "workload='poems' must be one of propose, cot,"),
        ("batches=[6]", "batch=6 must be a multiple of 4 at a temperature"),
        ("batches=[100000]", "batch=100000: few_shot has only"),
        ("batches=[0]", "batches=[0], repeats=2: at least 1 each"),
        ("temperatures=[]", "temperatures=[] must name at least one"),
        ("max_tokens=2", "max_tokens=2 must be at least 3"),
        ("drafters.early_exit.model.num_layers=9", "model.num_layers=9 must be at most 3"),
    ],
)
def test_bad_input_gives_one_line(bench, argument, message):
    code, err = bench(*FAST, argument)
    assert code == 2
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize(("temperature", "num_prompts"), [(0.0, 64), (0.7, 16)])
def test_workload_has_as_many_sequences_as_asked(workload, temperature, num_prompts):
    asked = requests(workload, 64, temperature, 16, seed=0)
    assert sum(request.n for request in asked) == 64
    assert len({request.prefix_segments for request in asked}) == num_prompts
    assert len({request.seed for request in asked}) == num_prompts


def test_table_has_a_line_a_case_and_a_cell_a_drafter():
    drafted = {"verifications": 50, "drafted": 90, "accepted": 75, "forwards": 10}
    drafted |= {"seconds": 1.0, "speedup": 2.0, "num_equal": 7}
    rows = [ROW, replace(ROW, drafter="ngram", **drafted), replace(ROW, batch=64)]
    text = table({"model": "m", "max_tokens": 9}, rows)
    assert text.startswith("model m, max_tokens 9\n")
    assert "| cot | 8 | 0.7 | 50 | 2.50; 75%; 2.00x |" in text
    assert "| cot | 64 | 0.7 | 50 |  |" in text
    assert "Equal to plain decoding: 23 of 24 completions." in text
