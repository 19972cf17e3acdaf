"""What a search is made of besides its task: expander, evaluator and policy, as protocols, and the
checks that they fit a task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from treeshare.tasks.task import Task

from .graph import Node

if TYPE_CHECKING:
    from .context import Context


class Expander(Protocol):
    """Asks the model for a node's next steps (search/expanders.py).

    An attribute `needs`, here, on an evaluator and on a policy, names the protocol the task must
    satisfy; a true `expands_once` says that the first call gives all the children a node can have.
    """

    async def expand(self, ctx: Context, node: Node, n: int) -> list[Node]: ...


class Evaluator(Protocol):
    """Puts a value on nodes; higher is better (search/evaluators/prompted.py).

    One that is made of others names them in an attribute `parts`; a method `check_budget(budget)`
    may refuse a budget; a true `needs_reward_model` says that it sends `Reward` requests.
    """

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]: ...


class Policy(Protocol):
    """A search algorithm. Its attributes are its parameters; all state lives in the context."""

    async def search(self, ctx: Context) -> Sequence[Node]:
        """Grow `ctx.graph` and return the final nodes, best first."""
        ...


def check_needs(part: object, task: Task) -> None:
    """Refuse a task that lacks what an expander, an evaluator or a policy needs.

    Raises:
        TypeError: it does; names what is missing.
    """
    needs: type | None = getattr(part, "needs", None)
    if needs is None or isinstance(task, needs):
        return
    members = {*vars(needs), *needs.__annotations__}
    missing = sorted(m for m in members if not m.startswith("_") and not hasattr(task, m))
    raise TypeError(
        f"{type(part).__name__} needs a task that is {needs.__name__}: "
        f"task {task.name!r} has no {', '.join(missing)}"
    )


def with_parts(evaluator: object) -> Iterator[object]:
    """An evaluator and all that it is made of."""
    yield evaluator
    for part in getattr(evaluator, "parts", ()):
        yield from with_parts(part)
