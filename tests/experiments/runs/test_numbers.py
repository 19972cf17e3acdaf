"""Every numeric key of the configuration refuses what is no such number, in one line."""

import inspect
import math
import re
from typing import get_type_hints

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from places import PACKAGE
from task_options import TASK_OPTIONS

from treeshare.experiments.runs.config import RunOptions, SetupError, explained, options_of

GROUPS = ("search", "expander", "evaluator", "budget", "engine", "engine/speculative", "task")
NOT_HERE = {
    *("engine=mock", "engine=replay", "engine/speculative=none"),  # no numbers
    *("task=gsm8k", "task=math500", "task=aime"),  # they have the keys of `math`
}
REFUSED = {
    int: [2.5, "abc", True, -1, math.inf, None],
    int | None: [2.5, "abc", True, -1, math.inf],
    float: ["abc", True, -1, math.inf, math.nan, None],
    float | None: ["abc", True, -1, math.inf, math.nan],
}
MAY_BE_NEGATIVE = {"seed", "threshold", "first_play_urgency"}
WITHOUT_NUMBERS = {
    *("search=io", "search=cot", "expander=propose", "expander=sample"),
    *(f"evaluator={name}" for name in ("heuristic", "logprob", "oracle", "self_evaluation")),
    *("evaluator=memo", "evaluator=outcome_reward", "evaluator=process_reward"),
}
OPTIONS = sorted(
    {
        f"{group}={path.stem}"
        for group in GROUPS
        for path in (PACKAGE / "conf" / group).glob("*.yaml")
    }
    - NOT_HERE
)


def composed(option):
    """The group's node, with a model that is never loaded."""
    group, _, name = option.partition("=")
    more = TASK_OPTIONS.get(name, []) if group == "task" else []
    if option == "engine/speculative=model":
        more = ["engine.speculative.model.name=x"]
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        cfg = compose("config", [option, *more])
    if group.startswith("engine"):
        OmegaConf.update(cfg, f"{group.replace('/', '.')}.model", None, merge=False, force_add=True)
    return OmegaConf.to_container(cfg, resolve=True)


def refused(key, kind):
    return [v for v in REFUSED.get(kind, []) if v != -1 or key not in MAY_BE_NEGATIVE]


def node_of(config, path):
    for key in path:
        config = config[key]
    return config


def numeric_keys(node, path):
    """Each numeric key below a node, by its path, with the annotation of its parameter."""
    if "_target_" in node:
        kind = get_object(node["_target_"])
        hints = get_type_hints(kind.__init__) | get_type_hints(kind)
        yield from ((path, key, hints[key]) for key in node if hints.get(key) in REFUSED)
    for key, inner in node.items():
        if isinstance(inner, dict):
            yield from numeric_keys(inner, (*path, key))


@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_no_such_number_is_refused_in_one_line(option):
    for name in ("reasoning_gym", "treequest"):
        if option.endswith(f"={name}"):
            pytest.importorskip(name, reason="needs the extra of that name")
    config = composed(option)
    group = option.partition("=")[0].split("/")
    keys = list(numeric_keys(node_of(config, group), tuple(group)))
    assert bool(keys) == (option not in WITHOUT_NUMBERS)
    for path, key, kind in keys:
        node = node_of(config, path)
        known = inspect.signature(get_object(node["_target_"])).parameters
        made = {name: given for name, given in node.items() if name in {*known, "_target_"}}
        for value in refused(key, kind):
            with pytest.raises(SetupError) as error, explained(".".join(path)):
                instantiate(made | {key: value}, _convert_="all")
            assert re.fullmatch(rf".*\b{key}={re.escape(repr(value))} must .+", str(error.value))


def test_the_same_holds_for_the_keys_of_the_run():
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        cfg = compose("config", ["engine=mock"])
    for key, kind in get_type_hints(RunOptions).items():
        for value in refused(key, kind):
            with pytest.raises(SetupError) as error, explained():
                options_of(RunOptions, cfg, **{key: value})
            said = str(error.value)
            assert "\n" not in said and key in said and str(value) in said
