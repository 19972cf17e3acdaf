"""Makes the objects of a run from its configuration, and one line from what is wrong with it.

The engine is not among them: it is slow to load and a finished run needs none. Nothing is written
to disk and no search is run.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from treeshare.llm_backend.api import Engine
from treeshare.llm_backend.reward.engine import RewardEngine
from treeshare.search.budget import Budget
from treeshare.search.context import Context, Evaluator, Expander, Policy, check_needs, with_parts
from treeshare.tasks.task import Problem, Task, Verifier

from .loggers import Logger

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OptionsType = TypeVar("OptionsType", bound="DataclassInstance")


class SetupError(Exception):
    """The configuration cannot be run. The message is one line for the user."""


@dataclass(slots=True)
class Options:
    """The keys of config.yaml that belong to no group.

    Raises:
        ValueError: `max_live` or `answers` is below 1.
    """

    name: str | None
    seed: int
    answers: int
    output_dir: str
    max_live: int | None
    record: bool
    fail_fast: bool
    save_trees: bool
    progress: bool

    def __post_init__(self) -> None:
        if self.max_live is not None and self.max_live < 1:
            raise ValueError(f"max_live={self.max_live} must be at least 1, or null for no limit")
        if self.answers < 1:
            raise ValueError(f"answers={self.answers} must be at least 1")


UNHASHED = frozenset(
    # what the configuration may change in without being another run; `model` is part of `engine`
    {f.name for f in fields(Options)} - {"max_live", "answers"} | {"logger", "model"}
)


_TREE = "treeshare.llm_backend.engines.tree.TreeEngine"  # the engine that has no reward model


@dataclass(frozen=True, slots=True)
class Setup:
    """All of a run but its engine."""

    config: dict[str, Any]  # resolved
    options: Options
    title: str
    directory: Path  # may not exist yet
    task: Task
    problems: list[Problem]
    verifier: Verifier
    policy: Policy
    expander: Expander
    evaluator: Evaluator
    budget: Budget
    logger: Logger

    @property
    def is_oracle(self) -> bool:
        """The evaluator knows the answers, and says so."""
        return bool(getattr(self.evaluator, "is_oracle", False))

    @property
    def memo_hits(self) -> int:
        """States whose value a memo knew, so far."""
        return int(getattr(self.evaluator, "memo_hits", 0))

    @property
    def scoring_failures(self) -> dict[str, int]:
        """Answers that a scorer in a process of its own could not mark, by kind, so far."""
        counts: Mapping[str, int] = getattr(self.verifier, "scoring_failures", {})
        return {str(kind): int(count) for kind, count in counts.items()}

    def context(self, problem: Problem) -> Context:
        return Context(
            self.task,
            problem,
            self.expander,
            self.evaluator,
            budget=self.budget,
            seed=self.options.seed,
        )

    def load_engine(self) -> Engine:
        engine: Engine = _make(self.config["engine"], "engine")
        if self.config.get("reward_model") is None:
            return engine
        return RewardEngine(engine, _make(self.config["reward_model"], "reward_model"))


def prepare(cfg: DictConfig) -> Setup:
    """Make a run's objects.

    Raises:
        SetupError: the configuration cannot be run.
    """
    with explained():
        options = options_of(Options, cfg)
        config = _resolve(cfg)
    task_node = dict(_checked(config.get("task"), "task"))
    verifier = _make(task_node.pop("verifier", None), "task.verifier")
    task: Task = _make(task_node, "task")
    with explained("task"):
        problems = _problems(task)
    policy = _make(config.get("search"), "search")
    if not inspect.iscoroutinefunction(getattr(policy, "search", None)):
        raise SetupError(f"search: {type(policy).__name__} has no method `async def search(ctx)`")
    name = options.name or type(policy).__name__
    model = _model_name(_checked(config.get("engine"), "engine"))
    setup = Setup(
        config=config,
        options=options,
        title=f"{task.name} {name} {model} seed {options.seed}",
        directory=Path(options.output_dir, task.name, name, model, _run_id(config)),
        task=task,
        problems=problems,
        verifier=verifier,
        policy=policy,
        expander=_make(config.get("expander"), "expander"),
        evaluator=_make(config.get("evaluator"), "evaluator"),
        budget=_make(config.get("budget"), "budget"),
        logger=_make(config.get("logger"), "logger"),
    )
    with explained():
        _check_parts(setup)
        check_needs(policy, task)
    _check_reward_model(setup)
    return setup


def _check_parts(setup: Setup) -> None:
    """Refuse parts that need more than the task has. A problem whose own root cannot be made is no
    reason to refuse the others: it fails when its search begins.

    Raises:
        TypeError: a part needs more.
        ValueError: the task's sampling is out of its bounds, or the evaluator refuses the budget.
    """
    for problem in setup.problems:
        try:
            setup.task.is_terminal(setup.task.root(problem))
        except (Exception, SystemExit):
            continue
        setup.context(problem)
        return


def _check_reward_model(setup: Setup) -> None:
    """Refuse an evaluator that would ask for a reward model when the first texts are drawn, where
    it is known that there is none.

    Raises:
        SetupError: it would.
    """
    if setup.config.get("reward_model") is not None or setup.config["engine"]["_target_"] != _TREE:
        return
    for part in with_parts(setup.evaluator):
        if getattr(part, "needs_reward_model", False):
            raise SetupError(
                f"evaluator: {type(part).__name__} needs a reward model: add reward_model=hf "
                "reward_model.name=..."
            )


def keep_given_keys(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Where `_target_` was overridden, drop the keys that were not: they are another class's.

    `search._target_=mine.Policy +search.width=3` leaves just these two under `search`.
    """
    given = [text.lstrip("+").partition("=")[0] for text in overrides]
    for key in given:
        parent, _, leaf = key.rpartition(".")
        if parent and leaf == "_target_":
            kept = OmegaConf.create()
            for other in given:
                if other.startswith(f"{parent}."):
                    value = OmegaConf.select(cfg, other)
                    OmegaConf.update(kept, other.removeprefix(f"{parent}."), value)
            OmegaConf.update(cfg, parent, kept, merge=False)


USER_ERRORS = (
    HydraException,
    ImportError,
    OSError,
    OmegaConfBaseException,
    TypeError,
    ValueError,
)
"""What bad values are answered with. Anything else is a bug and keeps its traceback."""


@contextmanager
def explained(where: str = "", errors: tuple[type[Exception], ...] = USER_ERRORS) -> Iterator[None]:
    """Turn what a user can get wrong, the `errors`, into a `SetupError` that names `where`."""
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__ or error
        message = one_line(cause, where)
        if not isinstance(cause, USER_ERRORS):
            message += f" ({type(cause).__name__}; HYDRA_FULL_ERROR=1 shows where)"
        raise SetupError(message) from error
    except errors as error:
        raise SetupError(one_line(error, where)) from error


def one_line(error: BaseException, where: str = "") -> str:
    """The message of an error, hydra's and omegaconf's trimmed to what a user can act on."""
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        known = ", ".join(key for key in map(str, cause.parent_node) if key != "hydra")
        return f"unknown key {cause.full_key!r}; known there: {known or 'none'}"
    text = str(error).partition("\nConfig search path")[0]
    text = text.replace(":\n\t", ": ").replace("\n\t", ", ")
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("object_type=", "full_key: "))]
    keys = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    message = " ".join(kept)
    is_named = re.match(r"[\w.]+=", message) is not None and "." in message.partition("=")[0]
    where = next((key for key in keys if key not in message), where)
    return message if is_named or not where else f"{where}: {message}"


def options_of(kind: type[OptionsType], cfg: DictConfig, **replaced: Any) -> OptionsType:
    """The keys that a data class names, checked by its types and by itself.

    Args:
        replaced: keys whose values in the configuration are not to be taken.

    Raises:
        Exception: one of `USER_ERRORS`, for a value of a wrong type or out of its bound.
    """
    given = {f.name: cfg[f.name] for f in fields(kind)} | replaced
    options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), given))
    assert isinstance(options, kind)
    return options


def _resolve(cfg: DictConfig) -> dict[str, Any]:
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _checked(node: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise SetupError(f"{where} is {node!r}; it needs a _target_, the class to make")
    return node


def _make(node: Any, where: str) -> Any:
    with explained(where):
        return instantiate(_checked(node, where), _convert_="all")


def _problems(task: Task) -> list[Problem]:
    problems = list(task.problems())
    if not problems:
        raise ValueError("no problems; at least one is needed")
    for problem in problems:
        if not isinstance(problem.id, str):
            raise ValueError(f"a problem has the id {problem.id!r}; ids must be text")
    (name, count), *_ = Counter(problem.id for problem in problems).most_common(1)
    if count > 1:
        raise ValueError(f"{count} problems have the id {name!r}; ids must differ")
    return problems


def _run_id(config: Mapping[str, Any]) -> str:
    """The directory's own name: equal for equal configurations, whatever day it is."""
    hashed = {key: value for key, value in config.items() if key not in UNHASHED}
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
    return f"{digest[:10]}-seed{config['seed']}"


def _model_name(engine: Mapping[str, Any]) -> str:
    """The model's short name, or the engine's class if it has none."""
    model = engine.get("model")
    if isinstance(model, Mapping):
        return Path(str(model["name"])).name
    return str(engine["_target_"]).rpartition(".")[2]
