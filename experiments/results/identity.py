"""Computes what identifies a run: the values of its configuration that decide its results.

Values equal to the default of a class's parameter do not count, so that a new parameter with a
default makes no other run of an earlier one. Files count by their contents, so that they can be
moved. docs/runs.md lists what counts and what does not.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .digests import data_digests, digest_of, model_digests
from .meta import GROUPS
from .sources import main_name

_PACKAGE = Path(__file__).resolve().parents[2]
RESOURCES = frozenset(
    {
        *("attention", "device", "dtype", "fused", "kv_tokens", "max_num_batched_tokens"),
        *("max_num_seqs", "memory", "observer"),
    }
)
"""Parameters of our engines and models that say how, and not what, they compute."""
_HOW_MANY = frozenset({"limit", "shard"})  # keys of the task that say which puzzles are searched


@dataclass(frozen=True, slots=True)
class Identity:
    """What identifies a run.

    Attributes:
        identity: by group, the values that count, as plain data; and the seed.
        defaults: the values of the defaults that do not count, by key, such as `search.breadth`.
        digests: of each key that names a model or data, the digests of the files, by name.
    """

    identity: dict[str, Any]
    defaults: dict[str, Any]
    digests: dict[str, dict[str, str]]


def identity_of(config: Mapping[str, Any]) -> Identity:
    """Compute the identity of a run.

    Args:
        config: the configuration, interpolations resolved. The files named in its task, and the
            model directories named in its engine and reward model, are read. A model on the Hugging
            Face hub counts by its id.

    Raises:
        OSError: a file cannot be read.
    """
    reader = _Reader(config)
    counted = {group: reader.read(config[group], group) for group in GROUPS if config.get(group)}
    return Identity(counted | {"seed": config["seed"]}, reader.defaults, reader.digests)


def is_own_engine(node: Mapping[str, Any]) -> bool:
    """Whether a node of a configuration makes one of our engines or models."""
    return str(node.get("_target_")).startswith("treeshare.llm_backend.")


class _Reader:
    """Turns the nodes of one configuration into the values that count."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.defaults: dict[str, Any] = {}
        self.digests: dict[str, dict[str, str]] = {}
        task, engine = (config.get(group) or {} for group in ("task", "engine"))
        self._verifier = task.get("verifier")
        self._is_log_read = engine.get("engine") is None  # else the replay engine extends it
        self._data: dict[str, str] = {}  # by the text that names it, its digest

    def read(self, node: Any, key: str) -> Any:
        """Turn a node into plain data; `key` is its own, such as `engine.model`."""
        if isinstance(node, Mapping):
            if node == self._verifier:  # that of the oracle is the task's
                key = "task.verifier"
            if "_target_" in node:
                return self._object(node, key)
            return {str(name): self.read(value, f"{key}.{name}") for name, value in node.items()}
        if isinstance(node, list | tuple):
            return [self.read(value, key) for value in node]
        if isinstance(node, str):
            return self._text(node, key)
        return _plain(node)

    def _object(self, node: Mapping[str, Any], key: str) -> dict[str, Any]:
        target = str(node["_target_"])
        is_engine = is_own_engine(node)
        name, defaults = _written(target) if is_engine else _made(target)
        ignored = RESOURCES if is_engine else _HOW_MANY if key.startswith("task") else frozenset()
        counted = {"_target_": name}
        for parameter in sorted({*node, *defaults} - {"_target_", *ignored}):
            where, default = f"{key}.{parameter}", defaults.get(parameter, ...)
            value = self.read(node[parameter], where) if parameter in node else default
            if is_engine and parameter == "chat":
                value, default = self._chat(str(value), node.get("name"), where), "flat"
            if _is_default(value, default):
                self.defaults[where] = default
            elif is_engine and parameter == "name":
                counted |= self._model(str(value), where)
            else:
                counted[parameter] = value
        return counted

    def _model(self, name: str, key: str) -> dict[str, str]:
        path = _PACKAGE / "llm_backend" / "embedded" if name == "embedded" else Path(name)
        if not path.exists():
            return {"name": name}  # an id on the hub
        self.digests[key] = model_digests(path)
        return {"name": Path(name).name, "files": digest_of(self.digests[key])}

    def _chat(self, chat: str, name: Any, key: str) -> str:
        """The form in which a model is asked: `flat`, `template`, or that of a file.

        Of a model on the hub it is not known, and counts as `template`.
        """
        if chat == "auto":
            is_flat = name in (None, "embedded", "smollm2") or _has_no_template(Path(str(name)))
            return "flat" if is_flat else "template"
        if chat in ("flat", "template"):
            return chat
        self.digests[key] = data_digests(Path(chat))
        return f"contents {digest_of([*self.digests[key].values()])}"

    def _text(self, text: str, key: str) -> str:
        """The text, or a digest if it names data."""
        may_name_data = key.startswith("task.") or (key == "engine.log" and self._is_log_read)
        if may_name_data and text not in self._data and _is_data(text, key):
            self.digests[key] = found = data_digests(Path(text))
            # the name of a single file does not count, those in a directory do
            contents = digest_of(found if Path(text).is_dir() else [*found.values()])
            self._data[text] = f"contents {contents}"
        return self._data.get(text, text)


def _has_no_template(directory: Path) -> bool:
    """Whether the tokenizer of a model's directory has no chat template."""
    if not directory.is_dir() or any(directory.glob("chat_template*")):
        return False
    config = directory / "tokenizer_config.json"
    return not config.is_file() or b'"chat_template"' not in config.read_bytes()


def _is_default(value: Any, default: Any) -> bool:
    """Whether a value is the default's; an empty mapping is as good as none."""
    is_empty = default is None and value == {}
    return is_empty or (default is not ... and _json(value) == _json(default))


def _is_data(text: str, key: str) -> bool:
    """Whether a text names data. A single word is an option, such as `split=test`."""
    if key.endswith(".path"):
        return os.path.exists(text)
    return ("." in text or os.sep in text) and os.path.isfile(text)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _made(target: str) -> tuple[str, dict[str, Any]]:
    """The name and the defaults of a class or a function, which is imported."""
    made = _located(target)
    module, name = (getattr(made, f"__{what}__", None) for what in ("module", "qualname"))
    if module is None or name is None:
        return target, {}
    if module == "__main__":
        module = main_name()
    return _name(module, name), dict(_defaults(made))


def _name(module: str, name: str) -> str:
    """The name that identifies a class. Ours may move within their top folder."""
    parts = module.split(".")
    return ".".join([*(parts[:2] if parts[0] == "treeshare" else parts), name])


def _located(target: str) -> Any:
    """The object of a dotted name; None if it cannot be imported, which its making reports."""
    parts = target.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
            for name in parts[end:]:
                found = getattr(found, name)
            return found
        except (Exception, SystemExit):  # whatever the module raises, its import is repeated
            continue
    return None


def _defaults(made: Any) -> Iterator[tuple[str, Any]]:
    """The parameters of a class or a function that have plain data as their default."""
    made_by_call = {
        f.name: f.default_factory
        for f in (dataclasses.fields(made) if dataclasses.is_dataclass(made) else ())
        if f.default_factory is not dataclasses.MISSING
    }
    with suppress(TypeError, ValueError):  # it has no signature
        for name, parameter in inspect.signature(made).parameters.items():
            default = made_by_call[name]() if name in made_by_call else parameter.default
            if default is not parameter.empty:
                with suppress(TypeError):  # the default is an object
                    yield name, _plain(default)


def _written(target: str) -> tuple[str, dict[str, Any]]:
    """The name and the defaults of one of our engines or models.

    They are read from the text of the module, because its import would load PyTorch, which is slow
    and which a finished run does not need.
    """
    module, _, name = target.rpartition(".")
    path = _PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    body = ast.parse(path.read_bytes()).body if path.is_file() else []
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            body, name_of_maker = node.body, "__init__"
            break
    else:
        name_of_maker = name
    found: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == name_of_maker:
            taken = node.args
            last = taken.args[len(taken.args) - len(taken.defaults) :]
            pairs: list[tuple[ast.arg, ast.expr | None]] = [
                *zip(last, taken.defaults, strict=True),
                *zip(taken.kwonlyargs, taken.kw_defaults, strict=True),
            ]
            for argument, default in pairs:
                with suppress(ValueError, TypeError):  # a default that is computed
                    if default is not None:
                        found[argument.arg] = _plain(ast.literal_eval(default))
    return _name(module, name), found


def _plain(value: Any) -> Any:
    """A value as plain data, in which equal numbers look alike.

    Raises:
        TypeError: it holds an object.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} is not plain data")
