"""Parts of a run as plain data: the command's configuration, or a refusal."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from treeshare.identity import describe
from treeshare.search import Beam, Budget, Choose, Combined, Heuristic, ToTBFS, ValuePrompt
from treeshare.tasks import Game24, verifier_of


def without_targets(node):
    """The parameters alone: a class may be named by a shorter path in the configuration."""
    if not isinstance(node, dict):
        return node
    return {key: without_targets(value) for key, value in node.items() if key != "_target_"}


@pytest.mark.parametrize(
    ("group", "option", "part"),
    [
        ("search", "tot_bfs", ToTBFS()),
        ("search", "beam", Beam()),
        ("expander", "choose", Choose()),
        ("evaluator", "value", ValuePrompt()),
        ("budget", "unlimited", Budget()),
    ],
)
def test_a_part_is_described_as_it_is_configured(group, option, part):
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        cfg = compose("config", [f"{group}={option}"])
    described = without_targets(describe(part, group))
    configured = without_targets(OmegaConf.to_container(cfg[group]))
    assert {**described, **configured} == described


def test_parts_of_parts_are_described():
    combined = Combined({"a": ValuePrompt(), "b": Heuristic()}, {"a": 1, "b": np.float64(0.5)})
    described = describe(combined, "evaluator")
    assert described["weights"] == {"a": 1, "b": 0.5}
    assert type(described["weights"]["b"]) is float
    assert described["evaluators"]["b"]["_target_"].endswith(".Heuristic")


def test_a_verifier_is_described():
    verifier = verifier_of(Game24(limit=1))
    assert describe(verifier, "verifier") == {
        "_target_": "treeshare.tasks.arithmetic.game24.Game24Verifier"
    }


class Underscored:
    def __init__(self, width, path):
        self._width = width
        self.path = path


class Renamed:
    def __init__(self, width):
        self.beam = width


class Open:
    def __init__(self, **options):
        self.options = options


@dataclass
class Holder:
    value: object


def test_an_attribute_may_have_an_underscore():
    described = describe(Underscored(3, Path("a/b")), "policy")
    assert described["width"] == 3
    assert described["path"] == "a/b"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Renamed(3), r"policy: Renamed does not keep its parameter 'width'.*set self\.width"),
        (Open(a=1), r"policy: Open\(\*options\) has no fixed parameters"),
        (Holder(lambda: 1), r"policy\.value=.*<lambda> must be a function of a module"),
        (Holder(Beam().search), r"policy\.value=.*Beam\.search must be a function of a module"),
        (Holder([Renamed(3)]), r"policy\.value\[0\]: Renamed does not keep"),
    ],
)
def test_what_cannot_be_described_is_refused(part, message):
    with pytest.raises(ValueError, match=message):
        describe(part, "policy")


def test_values_become_plain_data():
    value = {1: (True, None, {"b", "a"}), "f": np.sqrt, "k": ToTBFS, "n": np.arange(2)}
    with pytest.raises(ValueError, match=r"policy\.value\.f"):
        describe(Holder({"f": lambda: 1}), "policy")
    described = describe(Holder({**value, "f": describe}), "policy")
    assert described["value"] == {
        "1": [True, None, ["a", "b"]],
        "f": "treeshare.identity.describe",
        "k": "treeshare.search.policies.tot.ToTBFS",
        "n": [0, 1],
    }
