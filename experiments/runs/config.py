"""Build a run's objects from a hydra configuration; report configuration errors in one line.

The engine is loaded separately (`Setup.load_engine`), because it is slow to load and a finished run
needs none. Nothing is written to disk and no search is run.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from treeshare.experiments.loggers.logger import Logger, SafeLogger
from treeshare.experiments.results.identity import RESOURCES, identity_of, is_own_engine
from treeshare.experiments.results.meta import GROUPS, RunMeta
from treeshare.experiments.results.shards import Shard
from treeshare.experiments.results.sources import source_digests
from treeshare.llm_backend.api import Engine
from treeshare.llm_backend.reward.engine import RewardEngine
from treeshare.search.budget import Budget
from treeshare.search.context import Context
from treeshare.search.parts import (
    Evaluator,
    Expander,
    Policy,
    check_engine,
    check_needs,
    traits_of,
)
from treeshare.tasks.task import Problem, Task, Verifier

from .failures import failing_line, own_errors

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

OptionsType = TypeVar("OptionsType", bound="DataclassInstance")


class SetupError(Exception):
    """A configuration that cannot be run. The message is one line for the user."""


@dataclass(slots=True)
class RunOptions:
    """The keys of config.yaml that belong to no group; conf/config.yaml explains each.

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
    overwrite: bool = False
    verbose: bool = False
    optimize: str = "top1"

    def __post_init__(self) -> None:
        if self.max_live is not None and self.max_live < 1:
            raise ValueError(f"max_live={self.max_live} must be at least 1, or null for no limit")
        if self.answers < 1:
            raise ValueError(f"answers={self.answers} must be at least 1")


@dataclass(frozen=True, slots=True)
class Setup:
    """The objects of a run, without its engine."""

    config: dict[str, Any]  # the whole configuration as plain data, interpolations resolved
    options: RunOptions
    meta: RunMeta
    task: Task
    problems: list[Problem]
    verifier: Verifier
    policy: Policy
    expander: Expander
    evaluator: Evaluator
    budget: Budget
    logger: Logger
    shard: Shard | None = None

    @property
    def title(self) -> str:
        """Task, policy, model and seed in one line."""
        shard = f" shard {self.shard}" if self.shard else ""
        return (
            f"{self.meta.task} {self.meta.name} {self.meta.model} seed {self.options.seed}{shard}"
        )

    @property
    def directory(self) -> Path:
        """Where the run is kept. It may not exist yet."""
        meta = self.meta
        folder = Path(self.options.output_dir, meta.task, meta.name, meta.model, meta.run_id)
        return folder if self.shard is None else self.shard.directory(folder)

    @property
    def is_oracle(self) -> bool:
        """Whether the evaluator is given the right answers."""
        return traits_of(self.evaluator).is_oracle

    @property
    def memo_hits(self) -> int:
        """The number of states whose value a memo has returned so far."""
        return traits_of(self.evaluator).memo_hits

    @property
    def scoring_failures(self) -> dict[str, int]:
        """Answers that a scorer in its own process could not mark so far, by kind of failure."""
        counts: Mapping[str, int] = getattr(self.verifier, "scoring_failures", {})
        return {str(kind): int(count) for kind, count in counts.items()}

    def context(self, problem: Problem) -> Context:
        """The search context of one problem."""
        return Context(
            self.task,
            problem,
            self.expander,
            self.evaluator,
            budget=self.budget,
            seed=self.options.seed,
        )

    def load_engine(self) -> Engine:
        """Load the engine, and the reward model if the configuration has one.

        Raises:
            SetupError: it cannot be loaded, or it cannot serve what the policy, the expander or
                the evaluator asks for.
        """
        judge = None
        if self.config.get("reward_model") is not None:
            # Before the engine, whose KV pool may take what is left of the memory.
            judge = _make(self.config["reward_model"], "reward_model")
        engine: Engine = _make(self.config["engine"], "engine")
        try:
            if judge is not None:
                engine = RewardEngine(engine, judge)
            with explained("engine", (AttributeError, ValueError)):
                check_engine((self.policy, self.expander, self.evaluator), engine.capabilities)
        except BaseException:
            engine.close()
            raise
        return engine


def prepare(cfg: DictConfig) -> Setup:
    """Make a run's objects, and check that they fit together.

    Raises:
        SetupError: the configuration cannot be run.
    """
    with explained():
        options = options_of(RunOptions, cfg)
        config = _resolve(cfg)
    shard, task_node = _without_shard(config.get("task"))
    verifier = _make(task_node.pop("verifier", None), "task.verifier")
    task: Task = _make(task_node, "task")
    with explained("task"):
        problems = problems_of(task)
        if shard is not None:
            problems = shard.take(problems)
    policy = _make(config.get("search"), "search")
    if not inspect.iscoroutinefunction(getattr(policy, "search", None)):
        raise SetupError(f"search: {type(policy).__name__} has no method `async def search(ctx)`")
    expander = _make(config.get("expander"), "expander")
    evaluator = _make(config.get("evaluator"), "evaluator")
    budget = _make(config.get("budget"), "budget")
    logger = SafeLogger(_make(config.get("logger"), "logger"), failing_line)
    _checked(config.get("engine"), "engine")
    with explained():
        meta = meta_of(config, task.name, options.name or type(policy).__name__)
    setup = Setup(
        config=config,
        options=options,
        meta=meta,
        task=task,
        problems=problems,
        verifier=verifier,
        policy=policy,
        expander=expander,
        evaluator=evaluator,
        budget=budget,
        logger=logger,
        shard=shard,
    )
    with explained():
        check_parts(setup)
    return setup


def check_parts(setup: Setup) -> None:
    """Refuse parts that need more than the task has.

    The check is made on the first problem whose root can be made. A problem without a root is no
    reason to refuse the others: it fails when its search begins.

    Raises:
        TypeError: a part needs more.
        ValueError: the task's sampling is out of its bounds, or the evaluator refuses the budget.
    """
    check_needs(setup.policy, setup.task)
    for problem in setup.problems:
        try:
            setup.task.is_terminal(setup.task.root(problem))
        except (Exception, SystemExit):
            continue
        setup.context(problem)
        return


def keep_given_keys(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Drop the keys of a default class whose `_target_` was overridden.

    With `search._target_=mine.Policy +search.width=3` only these two keys stay under `search`: the
    others are parameters of the class that was replaced.

    Args:
        cfg: the composed configuration; it is changed.
        overrides: the arguments of the command line.
    """
    given = [text.lstrip("+").partition("=")[0] for text in overrides]
    for key in given:
        parent, _, leaf = key.rpartition(".")
        if not parent or leaf != "_target_":
            continue
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
"""The exceptions that bad values raise. Any other exception is a bug and keeps its traceback."""


@contextmanager
def explained(where: str = "", errors: tuple[type[Exception], ...] = USER_ERRORS) -> Iterator[None]:
    """Turn exceptions that a user can cause into a `SetupError` of one line.

    Whatever comes from the user's own code has its file and line in front.

    Args:
        where: the key whose value is at fault, put in front of the message. All that the user's own
            code raises below a key is turned.
        errors: the exceptions to turn.

    Raises:
        SetupError: one of `errors` was raised inside.
    """
    try:
        yield
    except SetupError:
        raise
    except (Exception, SystemExit) as error:
        own = next(own_errors(error), None)
        if not isinstance(error, (InstantiationException, *errors)) and not (where and own):
            raise
        cause: BaseException = error
        if isinstance(error, InstantiationException):  # hydra wraps whatever a class raised
            cause = error.__cause__ or error
        if own is not None:
            line, cause = own
            text = cause.msg if isinstance(cause, SyntaxError) else one_line(cause)
            message = f"{line}: {type(cause).__name__}: {text}".removesuffix(": ")
            raise SetupError(f"{where}: {message}" if where else message) from error
        message = one_line(cause, where)
        if not isinstance(cause, USER_ERRORS):
            message += f" ({type(cause).__name__}; HYDRA_FULL_ERROR=1 shows where)"
        raise SetupError(message) from error


def one_line(error: BaseException, where: str = "") -> str:
    """The message of an error in one line, without what a user cannot act on.

    Args:
        error: any exception.
        where: the key at fault, put in front unless the message or the error names one itself.
    """
    cause = error.__cause__
    # Under a debugger or a tracer OmegaConf keeps the cause of its other errors as well.
    is_of_a_mapping = isinstance(getattr(cause, "parent_node", None), DictConfig)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and is_of_a_mapping:
        known = ", ".join(key for key in map(str, cause.parent_node) if key != "hydra")
        return f"unknown key {cause.full_key!r}; known there: {known or 'none'}"
    if isinstance(error, MissingConfigException) and error.options:
        return f"there is no {error.missing_cfg_file}; there are {', '.join(error.options)}"
    message = str(error)
    if isinstance(error, OmegaConfBaseException):
        where = error.full_key or where
        message = message.partition("\n    full_key:")[0]  # types of OmegaConf's follow
    message = " ".join(message.split())
    names_a_key = re.match(r"\w+(\.\w+)+=", message)  # such as `budget.tokens=-1 must be ...`
    return message if names_a_key or not where else f"{where}: {message}"


def options_of(kind: type[OptionsType], cfg: DictConfig, **replaced: Any) -> OptionsType:
    """Make a data class from the keys of a configuration that bear its fields' names.

    Args:
        kind: the data class; its types and its `__post_init__` check the values.
        cfg: the configuration.
        replaced: values to take in place of the configuration's, by key.

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


def _without_shard(node: Any) -> tuple[Shard | None, dict[str, Any]]:
    """Take the part of its puzzles out of the task's node, which must name a class."""
    with explained("task"):
        shard = Shard.of(node.get("shard") if isinstance(node, Mapping) else None)
    if isinstance(node, Mapping):  # the key is there even if there is no task
        node = {key: value for key, value in node.items() if key != "shard"} or None
    return shard, dict(_checked(node, "task"))


def _checked(node: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise SetupError(f"{where} is {node!r}; it needs a _target_, the class to make")
    return node


def _make(node: Any, where: str) -> Any:
    with explained(where):
        return instantiate(_checked(node, where), _convert_="all")


def problems_of(task: Task) -> list[Problem]:
    """The problems of a task.

    Raises:
        ValueError: there is none, an id is not text, or two problems have the same id.
    """
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


def meta_of(config: Mapping[str, Any], task: str, name: str) -> RunMeta:
    """Say what a run is.

    Args:
        config: the configuration as plain data, interpolations resolved.
        task: the task's name.
        name: the run's name.

    Raises:
        OSError: a file that the run depends on cannot be read.
    """
    groups = {group: config.get(group) for group in GROUPS}
    return RunMeta(
        task=task,
        name=name,
        model=model_name(config["engine"]),
        **asdict(identity_of(config)),
        sources=source_digests(groups),
    )


def resources_of(setup: Setup, engine: Engine) -> dict[str, Any]:
    """What a process computes with: device, data type, attention, limits, form of chat prompts.

    An engine's `resources` count, and else the configuration, which does not say what `auto` has
    become. For a user's own engine without this attribute only `max_live` is known.
    """
    configured = setup.config.get("engine", {})
    nodes = (configured.get("model"), configured)
    ours = [node for node in nodes if isinstance(node, Mapping) and is_own_engine(node)]
    found = {key: value for node in ours for key, value in node.items() if key in RESOURCES}
    found |= getattr(engine, "resources", {})
    if str(found.get("device")).startswith("cuda"):
        import torch  # the engine has loaded it

        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name(found["device"])
    if engine.capabilities.chat is not None:
        found["chat"] = engine.capabilities.chat
    return found | {"max_live": setup.options.max_live}


def model_name(engine: Mapping[str, Any]) -> str:
    """The model's short name, or the engine's class if it has none."""
    model = engine.get("model")
    if isinstance(model, Mapping):
        return Path(str(model["name"])).name
    return str(engine["_target_"]).rpartition(".")[2]
