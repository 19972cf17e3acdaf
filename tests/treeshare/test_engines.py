"""`load_engine`: the command's engine, by the same keys and with the same defaults."""

import inspect

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from treeshare import LoadedEngine, MockEngine, load_engine
from treeshare.llm_backend.api import Generate, GenerateReply, Sampling


@pytest.fixture(scope="module")
def engine():
    with load_engine("embedded") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def configured():
    """The engine's node of the command's configuration."""
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        return OmegaConf.to_container(compose("config"), resolve=True)["engine"]


def test_the_defaults_are_the_commands(engine, configured):
    configured.pop("speculative", None)
    assert engine.config == configured


def test_the_keys_are_the_commands(configured):
    keys = {*configured, *configured["model"], "reward_model"} - {"_target_", "name"}
    assert keys <= inspect.signature(load_engine).parameters.keys() - {"trust_remote_code"}


def test_it_serves_requests(engine):
    request = Generate(("Solve 1 2 3 4",), sampling=Sampling(max_tokens=3, temperature=0))
    assert engine.capabilities.scores
    before = engine.stats().steps
    (reply,) = engine.execute({10**9: request}).values()
    assert isinstance(reply, GenerateReply)
    assert engine.stats().steps > before


def test_a_bad_argument_names_its_key():
    with pytest.raises(ValueError, match=r"model\.dtype='int8' is not one of"):
        load_engine("embedded", dtype="int8")


def test_a_block_closes_the_engine():
    class Closed(MockEngine):
        is_closed = False

        def close(self):
            self.is_closed = True

    inner = Closed()
    with LoadedEngine(inner, {"_target_": "mine.Engine"}) as engine:
        assert engine.config == {"_target_": "mine.Engine"}
        assert not inner.is_closed
    assert inner.is_closed


def test_cancelled_requests_are_never_answered(engine):
    long = Generate(("Solve 1 2 3 4",), sampling=Sampling(max_tokens=60, temperature=0))
    short = Generate(("Solve 1 2 3 4",), sampling=Sampling(max_tokens=1, temperature=0))
    assert set(engine.execute({10**9 + 1: long, 10**9 + 2: short})) == {10**9 + 2}
    engine.cancel([10**9 + 1])
    assert engine.execute({}) == {}
