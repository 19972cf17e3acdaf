"""The command that checks a model: what it prints, and its exit codes."""

import json
import sys

import pytest
from tiny_models import REFUSED, byte_tokenizer, make_network, network_of

from treeshare.experiments.check_model import main as command
from treeshare.llm_backend.model.network import Network


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command; return its exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["treeshare-check-model", *map(str, arguments)])
        capsys.readouterr()  # what saving a model has printed
        code = command.main()
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def directory(tmp_path):
    make_network("gemma2").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_a_model_that_runs_rightly(run, directory):
    code, output, _ = run(directory, "--device", "cpu", "--json")
    found = json.loads(output)
    assert code == 0 and found["equal"]
    assert (found["family"], found["class"]) == ("gemma2", "Gemma2ForCausalLM")
    assert (found["dtype"], found["attention"], found["fused"]) == ("float32", "torch", False)
    assert found["kv_bytes_per_token"] == 3 * 2 * (16 + 16) * 4
    assert found["evicted_kv_tokens"] > 0 and found["largest_difference"] < 1e-4
    code, output, _ = run(directory, "--device", "cpu")
    assert code == 0 and "equal to those of its own forwards" in output


def test_a_model_whose_replies_differ(run, directory, monkeypatch):
    real = Network.forward
    monkeypatch.setattr(Network, "forward", lambda *args: real(*args).roll(1, dims=-1))
    code, output, _ = run(directory, "--device", "cpu")
    assert code == 1 and "NOT EQUAL" in output


def test_a_model_whose_logits_are_nan(run, directory, monkeypatch):
    real = Network.forward
    monkeypatch.setattr(Network, "forward", lambda *args: real(*args) * float("nan"))
    code, _, errors = run(directory, "--device", "cpu")
    assert code == 1 and "NaN" in errors and errors.count("\n") == 1


def test_a_model_that_is_refused(run, tmp_path):
    network_of(REFUSED["falcon"][0]()).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    code, output, errors = run(tmp_path, "--device", "cpu")
    assert code == 2 and not output
    assert "FalconForCausalLM cannot run on tree attention" in errors and "engine=hf" in errors
    code, _, errors = run(tmp_path / "nothing")
    assert code == 2 and "is no directory" in errors
