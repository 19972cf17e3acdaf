"""Find the directories of runs, and name the runs by the keys in which they differ.

Directories may come from another machine, so their contents are not trusted: what is read is
bounded, and texts are made printable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from treeshare.experiments.results.config_file import read_config
from treeshare.experiments.results.digests import digest_of
from treeshare.experiments.results.meta import RunMeta, read_meta
from treeshare.experiments.results.shards import is_counted

_MOST_CHARACTERS = 200  # of a name that is shown


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What a run is, as its directory says."""

    task: str
    name: str  # the policy's
    model: str
    seed: int
    answers: int  # that counted in its first session
    identity: str  # equal for runs that differ only in their seed
    values: dict[str, Any]  # flat, such as `search.breadth` to 5; see `read_configs`


def run_directories(paths: Iterable[Path]) -> list[Path]:
    """Find the directories of runs at and below some directories, in the order of their paths.

    Runs that were set aside are found only by their own path. Shards of a run are left out once
    the run has rows itself.

    Raises:
        ValueError: a path is not a directory.
    """
    found = set()
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"{path} is not a directory")
        top = path.resolve()
        directories = {file.parent.resolve() for file in top.rglob("results.jsonl")}
        found |= {one for one in directories if one.is_relative_to(top) and is_counted(one, top)}
    return sorted(path for path in found if (path / "config.yaml").exists())


def read_configs(directories: Iterable[Path]) -> list[RunConfig]:
    """Read what several runs are.

    Returns:
        A configuration for each directory. The keys of `values` are those by which one of the runs
        is identified, so that a default is there if another run has another value. If only some
        are of version 0.1.0, their names say so, because its identities have other keys.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file has other contents than a run writes; the message names it.
    """
    read = [_read(directory) for directory in directories]
    identifying = {key for config, _ in read for key in config.values}
    layouts = {meta.layout for _, meta in read}
    configs = []
    for config, meta in read:
        config.values.update({k: v for k, v in meta.defaults.items() if k in identifying})
        is_marked = meta.layout == 1 and len(layouts) > 1
        configs.append(replace(config, name=f"{config.name} (0.1.0)") if is_marked else config)
    return configs


def differences(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The keys in which configurations differ, shortened, with the values of each configuration.

    For example, `search.breadth` of 5 becomes `breadth` of `5`, and a class goes by its own name.
    """
    keys = dict.fromkeys(key for config in configs for key in config)
    differing = [key for key in keys if len({str(config.get(key)) for config in configs}) > 1]
    named: list[dict[str, str]] = []
    for config in configs:
        found: dict[str, str] = {}
        for key in differing:
            if key not in config:
                continue
            parent, _, leaf = key.rpartition(".")
            is_class = leaf == "_target_"
            name = parent if is_class else leaf
            value = str(config[key])
            found[key if name in found else name] = printable(
                value.rpartition(".")[2] if is_class else value
            )
        named.append(found)
    return named


def printable(text: str) -> str:
    """The text in bounded length; control characters and lone surrogates are replaced."""
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}..."
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _read(directory: Path) -> tuple[RunConfig, RunMeta]:
    """Read one run's configuration, and its meta.json."""
    config, meta = read_config(directory / "config.yaml"), read_meta(directory)
    seed, answers = config.get("seed"), config.get("answers")
    if type(seed) is not int or type(answers) is not int or answers < 1:
        raise ValueError(
            f"{directory}/config.yaml: seed={seed!r} and answers={answers!r} must be whole numbers"
        )
    values = dict(_flat({key: value for key, value in meta.identity.items() if key != "seed"}))
    if meta.sources:
        values["code"] = digest_of(meta.sources)[:8]
    run = RunConfig(
        task=printable(meta.task),
        name=printable(meta.name),
        model=printable(meta.model),
        seed=seed,
        answers=answers,
        identity=digest_of(sorted((key, str(value)) for key, value in values.items())),
        values=values,
    )
    return run, meta


def _flat(node: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        name = printable(f"{prefix}{key}")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
