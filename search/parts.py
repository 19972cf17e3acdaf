"""Policy, expander and evaluator: the parts of a search besides its task.

The three are protocols, so any class with the right method can be one. What a part needs beyond
that method it says in class attributes, all of them optional (`Traits`). The checks of this module
read them before a search begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from treeshare.tasks.task import Task

from .budget import Budget
from .graph import Node

if TYPE_CHECKING:
    from treeshare.llm_backend.api import EngineCapabilities

    from .context import Context


@runtime_checkable
class Expander(Protocol):
    """Asks the model for a node's next steps (search/expanders.py)."""

    async def expand(self, ctx: Context, node: Node, n: int) -> list[Node]:
        """Add children below `node` by `ctx.add`, from `n` samples, and return the new ones."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Gives each node a value; higher is better (search/evaluators/)."""

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]:
        """Return one finite number for each node, in order."""
        ...


@runtime_checkable
class Policy(Protocol):
    """A search algorithm. Its attributes are its parameters; all state lives in the context."""

    async def search(self, ctx: Context) -> Sequence[Node]:
        """Grow `ctx.graph` and return the final nodes, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Traits:
    """What a part says about itself, in attributes or properties of these names on its class.

    A class may leave out any of them: `traits_of` takes the default that stands here.

    Attributes:
        needs: the protocol of `treeshare.tasks.task` that the task must satisfy, such as
            `HasMoves`; None accepts every task.
        needs_scores: the part sends `Score` requests.
        needs_logprobs: the part reads the log-probabilities of the steps.
        needs_reward_model: the part sends `Reward` requests.
        expands_once: the first call of this expander gives all the children that a node can have.
        default_samples: the samples of an expansion for which the policy names no number.
        parts: the evaluators that this evaluator is made of.
        is_oracle: this evaluator, or one of its parts, uses the right answers. The results say so.
        fixed_by: what determines this evaluator's value of a node, whichever search asks: `state`,
            or the role whose prompt does. None if the value may differ between searches.
        shares_values: this evaluator keeps values for all searches of a run, so what one of them
            spends depends on the others.
        memo_hits: how many values this evaluator and its parts gave from memory so far.
    """

    needs: type | None = None
    needs_scores: bool = False
    needs_logprobs: bool = False
    needs_reward_model: bool = False
    expands_once: bool = False
    default_samples: int = 1
    parts: Sequence[object] = ()
    is_oracle: bool = False
    fixed_by: str | None = None
    shares_values: bool = False
    memo_hits: int = 0


def traits_of(part: object) -> Traits:
    """Read the traits of a policy, an expander or an evaluator.

    Args:
        part: an instance of any class; it need not inherit from anything.

    Returns:
        The class's attributes, with the defaults of `Traits` for those that it lacks. `is_oracle`
        and `memo_hits` include the evaluators that the part is made of.
    """
    given: dict[str, Any] = {
        field.name: getattr(part, field.name)
        for field in fields(Traits)
        if hasattr(part, field.name)
    }
    if not isinstance(part, Evaluator):
        given.pop("parts", None)  # a policy may have a parameter of this name
    inner = [traits_of(one) for one in given.get("parts", ())]
    given["is_oracle"] = bool(given.get("is_oracle")) or any(one.is_oracle for one in inner)
    given["memo_hits"] = given.get("memo_hits", 0) + sum(one.memo_hits for one in inner)
    return Traits(**given)


def with_parts(part: object) -> Iterator[object]:
    """Yield a part and, if it is an evaluator made of others, those too, at every depth."""
    yield part
    for inner in traits_of(part).parts:
        yield from with_parts(inner)


def check_parts(parts: Iterable[object], task: Task, budget: Budget) -> None:
    """Check that parts, and all that they are made of, fit a task and a budget.

    Args:
        parts: policies, expanders and evaluators.
        task: the task that they will search.
        budget: the limits of each search.

    Raises:
        TypeError: the task lacks a member that a part needs.
        ValueError: the budget has a limit that cannot be used with a part.
    """
    for part in parts:
        for inner in with_parts(part):
            check_needs(inner, task)
            _check_budget(inner, budget)


def check_needs(part: object, task: Task) -> None:
    """Check that a task satisfies the protocol that a part needs.

    Raises:
        TypeError: it does not, and the message names the missing members; or `needs` is not a
            class.
    """
    needs = traits_of(part).needs
    if needs is not None and not isinstance(needs, type):
        name = type(part).__name__
        raise TypeError(f"{name}.needs is {needs!r}; it must be a protocol of treeshare.tasks.task")
    if needs is None or isinstance(task, needs):
        return
    members = {*vars(needs), *needs.__annotations__}
    missing = sorted(m for m in members if not m.startswith("_") and not hasattr(task, m))
    raise TypeError(
        f"{type(part).__name__} needs a task that is {needs.__name__}: "
        f"task {task.name!r} has no {', '.join(missing)}"
    )


def _check_budget(part: object, budget: Budget) -> None:
    if not traits_of(part).shares_values:
        return
    limits = {"tokens": budget.tokens, "requests": budget.requests, "money": budget.money}
    for name, limit in limits.items():
        if limit is not None:
            raise ValueError(
                f"budget.{name} cannot be used with {type(part).__name__}: what a search spends "
                "then depends on the other searches"
            )


def check_engine(parts: Iterable[object], capabilities: EngineCapabilities) -> None:
    """Check that an engine can answer what parts, and all that they are made of, will ask.

    Args:
        parts: the policy, the expander and the evaluator of a run.
        capabilities: those of the engine that will serve it.

    Raises:
        ValueError: the engine cannot; the message names the part, the capability and a choice of
            parts or engine that works.
    """
    every = [inner for part in parts for inner in with_parts(part)]
    # An expander that scores its steps gives them log-probabilities, so no sample has to have one.
    has_scored_steps = any(isinstance(p, Expander) and traits_of(p).needs_scores for p in every)
    for part in every:
        traits, name = traits_of(part), type(part).__name__
        if traits.needs_scores and not capabilities.scores:
            other = (
                "expander=propose or expander=sample"
                if isinstance(part, Expander)
                else "an evaluator that samples its verdicts, such as evaluator=value"
            )
            raise ValueError(
                f"{name} asks for scores of given texts, and this engine has no capability "
                f"`scores`: choose {other}, or an engine that has it, such as engine=tree"
            )
        if traits.needs_reward_model and not capabilities.rewards:
            raise ValueError(
                f"{name} asks for scores of a reward model, and this engine has no capability "
                "`rewards`: add reward_model=hf reward_model.name=..."
            )
        if traits.needs_logprobs and not (capabilities.logprobs or has_scored_steps):
            raise ValueError(
                f"{name} reads the log-probabilities of sampled steps, and this engine has no "
                f"capability `logprobs`: choose another part in place of {name}, or an engine that "
                "has it, such as engine=tree"
            )
