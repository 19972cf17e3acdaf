"""Make the task and the verifier of a finished run again, from the configuration that it saved.

A run's directory may come from another machine, and a configuration can name any class. So only
the tasks and verifiers of this package are made, unless the user trusts the run.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hydra.utils import instantiate

from treeshare import tasks
from treeshare.experiments.runs.config import SetupError, explained, problems_of
from treeshare.tasks import Problem, Task, Verifier, verifier_of

_OURS = {
    name: kind
    for name, kind in vars(tasks).items()
    if inspect.isclass(kind)
    and kind not in (Task, Verifier)
    and (hasattr(kind, "problems") or hasattr(kind, "check"))
}
"""The classes of this package's tasks and verifiers, by name."""


@dataclass(frozen=True, slots=True)
class RunTask:
    """What a run searched."""

    task: Task
    verifier: Verifier
    problems: dict[str, Problem]  # by id
    parameters: dict[str, Any]  # of the task, those with their defaults included


def make_task(config: Mapping[str, Any], wanted: Collection[str], *, trust: bool) -> RunTask:
    """Make the task and the verifier of a run.

    Args:
        config: the run's configuration.
        wanted: the ids of the problems that are needed. If some are missing, `limit` is raised to
            their number, because a later session may have had a larger one than the first, whose
            configuration this is.
        trust: whether classes of other packages may be made, which runs their code.

    Raises:
        SetupError: a class is not of this package and not trusted, or its object cannot be made.
    """
    node = dict(_node(config.get("task"), "task"))
    node.pop("shard", None)
    verifier_node = node.pop("verifier", None)
    task, problems = _task(node, trust=trust)
    limit = inspect.signature(type(task)).parameters.get("limit")
    if limit is not None and not problems.keys() >= set(wanted):
        # None, where that is the default, takes all problems
        more = {"limit": limit.default and max(len(problems), len(wanted))}
        with suppress(SetupError):  # the problems that are missing are left out, and counted
            task, problems = _task(node | more, trust=trust)
            if isinstance(verifier_node, Mapping) and "limit" in verifier_node:
                verifier_node = {**verifier_node, **more}
    if verifier_node is None:
        with explained("task"):
            verifier: Verifier = verifier_of(task)
    else:
        verifier = _make(_node(verifier_node, "task.verifier"), "task.verifier", trust=trust)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(type(task)).parameters.items()
        if parameter.default is not parameter.empty
    }
    return RunTask(task, verifier, problems, defaults | node)


def _task(node: Mapping[str, Any], *, trust: bool) -> tuple[Task, dict[str, Problem]]:
    task: Task = _make(node, "task", trust=trust)
    with explained("task"):
        return task, {problem.id: problem for problem in problems_of(task)}


def _node(node: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise SetupError(f"{where} names no class")
    return node


def _make(node: Mapping[str, Any], where: str, *, trust: bool) -> Any:
    target = node["_target_"]
    kind = _OURS.get(target.rpartition(".")[2]) if target.startswith("treeshare.tasks.") else None
    with explained(where):
        if kind is not None:  # not by hydra, which would also make what a parameter names
            return kind(**{key: value for key, value in node.items() if key != "_target_"})
        if trust:
            return instantiate(node, _convert_="all")
    raise SetupError(
        f"{where}={target} is not of this package: --trust runs it, if you trust the directory"
    )
