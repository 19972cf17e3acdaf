"""What a policy sees of the world: a graph to grow and the verbs to grow it with.

The verifier is not here. A policy can reach the task (prompts, parsers, legal moves), never the
answers, unless the run's evaluator is the oracle (DESIGN: the results then carry a flag).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

from ..llm_backend.api import (
    Classify,
    Completion,
    Generate,
    GenerateReply,
    Request,
    Sampling,
    Score,
    ScoreReply,
)
from ..tasks.task import ParseFailure, Problem, Step, Task
from .budget import Budget, Meter
from .graph import Node, SearchGraph
from .trampoline import ask, end, gather


class Expander(Protocol):
    """Asks the model for a node's next steps (search/expanders.py).

    An attribute `needs`, here, on an evaluator and on a policy, names the protocol the task must
    satisfy; a true `expands_once` says that the first call gives all the children a node can have.
    """

    async def expand(self, ctx: Context, node: Node, n: int) -> list[Node]: ...


class Evaluator(Protocol):
    """Puts a value on nodes; higher is better (search/evaluators.py).

    One that is made of others names them in an attribute `parts`; a method `check_budget(budget)`
    may refuse a budget; a true `needs_classifier` says that it sends `Classify` requests.
    """

    async def evaluate(self, ctx: Context, nodes: Sequence[Node]) -> list[float]: ...


class Policy(Protocol):
    """A search algorithm. Its attributes are its parameters; all state lives in the context."""

    async def search(self, ctx: Context) -> Sequence[Node]:
        """Grow `ctx.graph` and return the final nodes, best first."""
        ...


def value_or_least(node: Node) -> float:
    """The node's value; -∞ while it has none."""
    return -math.inf if node.value is None else node.value


class Context:
    """One search's world.

    Raises:
        TypeError: the task lacks what the expander or the evaluator, or a part of it, needs.
        ValueError: the task's sampling is out of its bounds, or the evaluator refuses the budget.
    """

    def __init__(
        self,
        task: Task,
        problem: Problem,
        expander: Expander,
        evaluator: Evaluator,
        *,
        budget: Budget | None = None,
        seed: int = 0,
    ) -> None:
        budget = budget or Budget()
        for part in (expander, *with_parts(evaluator)):
            check_needs(part, task)
            if check_budget := getattr(part, "check_budget", None):
                check_budget(budget)
        root = task.root(problem)
        self.task = task
        self.problem = problem
        self.graph = SearchGraph(root, is_terminal=task.is_terminal(root))
        self.meter = Meter(budget)
        self.best: list[Node] | None = None
        """The ranking to return if the budget ends the search now. A policy may set it; None
        means `ranked()`."""
        self.parse_failures: list[ParseFailure] = []
        self._sampling = {role: Sampling(**given) for role, given in task.sampling.items()}
        self._expander = expander
        self._evaluator = evaluator
        self._seed = seed
        self._asked: Counter[tuple[int, str]] = Counter()
        self._replies: dict[Score | Classify, Any] = {}

    @property
    def root(self) -> Node:
        return self.graph.root

    @property
    def expands_once(self) -> bool:
        """Whether expanding a node again is in vain."""
        return getattr(self._expander, "expands_once", False)

    # Verbs of a policy.

    def gather(self, *awaitables: Awaitable[Any]) -> Awaitable[list[Any]]:
        """Run coroutines side by side, so that all their requests join one batch."""
        return gather(*awaitables)

    def can_expand(self, node: Node) -> bool:
        """Whether `node` may have children: it is not terminal, nor at the depth limit."""
        depth = self.meter.budget.depth
        return not node.is_terminal and (depth is None or node.depth < depth)

    async def expand(self, node: Node, n: int = 1) -> list[Node]:
        """Ask the model for next steps of `node`, with `n` samples, and add them as children.

        Ends the search if the node limit is reached.

        Returns:
            The new children; none if the node cannot be expanded or no reply could be read.
        """
        if not self.can_expand(node):
            return []
        await self._end_if_full()
        return await self._expander.expand(self, node, n)

    async def evaluate(self, nodes: Sequence[Node]) -> list[float]:
        """Values of `nodes`, in order; asks the evaluator for those that have none yet."""
        new = list(dict.fromkeys(node for node in nodes if node.value is None))
        if new:
            for node, value in zip(new, await self._evaluator.evaluate(self, new), strict=True):
                node.value = value
        return [node.value for node in nodes if node.value is not None]

    async def sample(self, node: Node, role: str, n: int = 1) -> list[Node]:
        """Draw `n` replies to `role`; each that parses becomes a child (its last step's state).

        Nodes that cannot be expanded and the node limit count as in `expand`.
        """
        if not self.can_expand(node):
            return []
        await self._end_if_full()
        completions = await self.generate(node, role, n)
        drawn = []
        for completion in completions:
            steps = self.parse(role, node, completion.text)
            if steps:
                drawn.append((steps[-1], completion.logprob))
        return self.add(node, drawn, dedupe=False)

    # Verbs of expanders and evaluators.

    async def generate(
        self, node: Node, role: str, n: int = 1, state: Any = None
    ) -> list[Completion]:
        """Completions of the task's prompt for `role` at `node` (or at another `state`)."""
        prompt = self.task.prompt(role, node.state if state is None else state)
        request = Generate(prompt, n, self._sampling[role], self.request_seed(node, role))
        (reply,) = await self.ask([request])
        assert isinstance(reply, GenerateReply)
        return list(reply.completions)

    async def score(self, node: Node, role: str, continuations: Sequence[str]) -> list[float]:
        """Log-probability of each continuation of the task's prompt for `role`, nats."""
        prompt = self.task.prompt(role, node.state)
        (reply,) = await self.ask([Score(prompt, tuple(continuations))])
        assert isinstance(reply, ScoreReply)
        return list(reply.logprobs)

    async def ask(self, requests: Sequence[Request]) -> list[Any]:
        """Send requests; the replies in order."""
        return await ask(requests)

    async def ask_once(self, requests: Sequence[Score | Classify]) -> list[Any]:
        """As `ask`, but what the search has an answer to, or asks here twice, is not sent."""
        new = [request for request in dict.fromkeys(requests) if request not in self._replies]
        self._replies |= zip(new, await self.ask(new), strict=True)
        return [self._replies[request] for request in requests]

    def parse(self, role: str, node: Node, text: str) -> list[Step]:
        """The task's reading of a reply; a failure is counted and gives no steps."""
        parsed = self.task.parse(role, node.state, text)
        if isinstance(parsed, ParseFailure):
            self.parse_failures.append(parsed)
            return []
        return parsed

    def add(
        self,
        parents: Node | Sequence[Node],
        steps: Sequence[tuple[Step, float | None]],
        *,
        dedupe: bool = True,
    ) -> list[Node]:
        """Add steps, each with its log-probability, below a node (or several, a merge of their
        states); stops at the node limit.

        With `dedupe`, a step to a state that a child of the first parent holds is dropped.
        """
        first = parents if isinstance(parents, Node) else parents[0]
        states = {child.state for child in first.children} if dedupe else set()
        added = []
        for step, logprob in steps:
            if dedupe and step.state in states:
                continue
            if self.meter.is_full:
                self.meter.hit = "nodes"
                break
            states.add(step.state)
            terminal = self.task.is_terminal(step.state)
            node = self.graph.add(parents, step.text, step.state, is_terminal=terminal)
            node.logprob = logprob
            added.append(node)
            self.meter.nodes = len(self.graph)
        return added

    def request_seed(self, node: Node, role: str) -> int:
        """64 bits from (run seed, problem, node path, role, how often this was asked here)."""
        k = self._asked[node.id, role]
        self._asked[node.id, role] += 1
        return _digest(self._seed, self.problem.id, node.positions, role, k)

    def random(self, *key: object) -> random.Random:
        """A generator for the policy's own draws, fixed by (run seed, problem, key)."""
        return random.Random(_digest(self._seed, self.problem.id, "policy", *key))

    def ranked(self, key: Callable[[Node], Any] = value_or_least) -> list[Node]:
        """The default best so far: terminal nodes by value (or another `key`), best first;
        without any, the deepest nodes. Ties go to the earlier node."""
        terminal = [node for node in self.graph if node.is_terminal]
        deepest = max(node.depth for node in self.graph)
        nodes = terminal or [node for node in self.graph if node.depth == deepest]
        return sorted(nodes, key=key, reverse=True)

    async def _end_if_full(self) -> None:
        if self.meter.is_full:
            self.meter.hit = "nodes"
            await end()


def top_k(nodes: Sequence[Node], values: Sequence[float], k: int) -> list[Node]:
    """The `k` nodes of highest value, best first; ties go to the earlier node."""
    order = sorted(range(len(nodes)), key=lambda i: -values[i])
    return [nodes[i] for i in order[:k]]


def flatten(lists: Sequence[Sequence[Node]]) -> list[Node]:
    return [node for nodes in lists for node in nodes]


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


def _digest(*key: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
