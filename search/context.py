"""What a policy sees of the world: a graph to grow and the verbs to grow it with.

The verifier is not here. A policy can reach the task (prompts, parsers, legal moves), never the
answers, unless the run's evaluator is the oracle (DESIGN: the results then carry a flag).
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from treeshare.llm_backend.api import (
    Completion,
    Generate,
    GenerateReply,
    Request,
    Reward,
    Sampling,
    Score,
    ScoreReply,
)
from treeshare.tasks.task import ParseFailure, Problem, Step, Task

from . import checks
from .budget import Budget, Meter, Spent
from .coroutines import Trampoline, ask, end, gather
from .graph import Node, SearchGraph
from .parts import Evaluator as Evaluator
from .parts import Expander as Expander
from .parts import Policy as Policy
from .parts import check_needs as check_needs
from .parts import with_parts as with_parts


def value_or_least(node: Node) -> float:
    """The node's value; -∞ while it has none."""
    return -math.inf if node.value is None else node.value


class Context:
    """One search's world.

    What expanders, evaluators, policies and tasks give back is checked here (search/checks.py):
    anything else than nodes of this graph, finite numbers and hashable states raises one line that
    names who gave it.

    Raises:
        TypeError: the task lacks what the expander or the evaluator, or a part of it, needs, or the
            root's state cannot be hashed.
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
        checks.hashable(root, f"the root's state of {type(task).__name__}")
        self._task = task
        self._problem = problem
        is_terminal = bool(task.is_terminal(root))
        self._graph = SearchGraph(root, is_terminal=is_terminal, max_nodes=budget.nodes)
        self._meter = Meter(budget)
        self._best: list[Node] | None = None
        self._parse_failures: list[ParseFailure] = []
        self._sampling = {role: Sampling(**given) for role, given in task.sampling.items()}
        self._expander = expander
        self._evaluator = evaluator
        self._seed = seed
        self._asked: Counter[tuple[int, str]] = Counter()
        self._replies: dict[Score | Reward, Any] = {}

    @property
    def graph(self) -> SearchGraph:
        return self._graph

    @property
    def root(self) -> Node:
        return self._graph.root

    @property
    def task(self) -> Task:
        return self._task

    @property
    def problem(self) -> Problem:
        return self._problem

    @property
    def parse_failures(self) -> list[ParseFailure]:
        """The replies that could not be read; evaluators append theirs."""
        return self._parse_failures

    @property
    def spent(self) -> Spent:
        """A copy: the driver of the search counts."""
        return self._meter.spent

    @property
    def best(self) -> list[Node] | None:
        """The ranking to return if the budget ends the search now. A policy may set it; None means
        `ranked()`.

        Raises:
            TypeError: it is set to something that is no list of nodes.
            ValueError: it is set to nodes of another search.
        """
        return self._best

    @best.setter
    def best(self, nodes: list[Node] | None) -> None:
        if nodes is not None:
            checks.nodes_of(self._graph, nodes, "ctx.best")
        self._best = nodes

    def best_so_far(self) -> list[Node]:
        """The result of a search that is ended now.

        Raises:
            TypeError: the list set as `best` was changed, and holds something that is no node; or
                the policy gave nodes values that cannot be compared.
            ValueError: it holds a node of another search.
        """
        if self._best is None:
            return self.ranked()
        return checks.nodes_of(self._graph, self._best, "ctx.best")

    def start(self, policy: Policy) -> Trampoline:
        """Begin a search: the trampoline that drives `policy`, with the time running."""
        self._meter.began = time.monotonic()
        return Trampoline(self._search(policy), self._meter)

    async def _search(self, policy: Policy) -> list[Node]:
        """The policy's search, from start to end.

        Raises:
            TypeError: the policy needs a task of another kind, or returned no list of nodes.
            ValueError: it returned a node of another search.
        """
        check_needs(policy, self.task)
        name = f"{type(policy).__name__}.search"
        ranked = await checks.awaited(policy.search(self), name)
        return checks.nodes_of(self._graph, ranked, f"what {name} returned")

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
        depth = self._meter.budget.depth
        return not node.is_terminal and (depth is None or node.depth < depth)

    async def expand(self, node: Node, n: int = 1) -> list[Node]:
        """Ask the model for next steps of `node`, with `n` samples, and add them as children.

        Ends the search if the node limit is reached.

        Returns:
            The new children; none if the node cannot be expanded or no reply could be read.

        Raises:
            TypeError: `node` or `n` is of the wrong kind, or what the expander returned is.
            ValueError: `node` is of another search, `n` below 1, or the expander returned something
                else than children of `node`.
        """
        checks.node_of(self._graph, node, "what ctx.expand was given")
        n = checks.whole(n, "n of ctx.expand")
        if not self.can_expand(node):
            return []
        await self._end_if_full()
        name = f"{type(self._expander).__name__}.expand"
        children = await checks.awaited(self._expander.expand(self, node, n), name)
        return checks.children_of(self._graph, node, children, name)

    async def evaluate(self, nodes: Sequence[Node]) -> list[float]:
        """Values of `nodes`, in order; asks the evaluator for those that have none yet.

        Raises:
            TypeError: `nodes` is no list of nodes, or the evaluator returned no list of numbers.
            ValueError: a node is of another search; the evaluator returned more or fewer values
                than it had nodes, or one that is NaN or infinite.
        """
        nodes = checks.nodes_of(self._graph, nodes, "what ctx.evaluate was given")
        new = list(dict.fromkeys(node for node in nodes if node.value is None))
        if new:
            for node, value in zip(new, await self.values(self._evaluator, new), strict=True):
                node.value = value
        return [node.value for node in nodes if node.value is not None]

    async def values(self, evaluator: Evaluator, nodes: Sequence[Node]) -> list[float]:
        """What an evaluator says of `nodes`, checked; for evaluators that are made of others.

        Raises:
            TypeError, ValueError: as `evaluate`.
        """
        name = f"{type(evaluator).__name__}.evaluate"
        found = await checks.awaited(evaluator.evaluate(self, nodes), name)
        return checks.numbers(found, nodes, name)

    async def sample(self, node: Node, role: str, n: int = 1) -> list[Node]:
        """Draw `n` replies to `role`; each that parses becomes a child (its last step's state).

        Nodes that cannot be expanded and the node limit count as in `expand`.

        Raises:
            TypeError, ValueError: `node`, `role` or `n` is none.
        """
        checks.node_of(self._graph, node, "what ctx.sample was given")
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
        """Completions of the task's prompt for `role` at `node` (or at another `state`).

        Raises:
            TypeError: `node` is no node.
            ValueError: the task has no such role, or no sampling for it; `n` is out of bounds.
        """
        checks.node_of(self._graph, node, "what ctx.generate was given")
        prompt = self.task.prompt(role, node.state if state is None else state)
        if role not in self._sampling:
            known = ", ".join(self._sampling) or "none"
            raise ValueError(
                f"task {self.task.name!r} has no sampling for {role!r}; it has {known}"
            )
        request = Generate(prompt, n, self._sampling[role], self.request_seed(node, role))
        (reply,) = await self.ask([request])
        assert isinstance(reply, GenerateReply)
        return list(reply.completions)

    async def score(self, node: Node, role: str, continuations: Sequence[str]) -> list[float]:
        """Log-probability of each continuation of the task's prompt for `role`, nats."""
        checks.node_of(self._graph, node, "what ctx.score was given")
        prompt = self.task.prompt(role, node.state)
        (reply,) = await self.ask([Score(prompt, tuple(continuations))])
        assert isinstance(reply, ScoreReply)
        return list(reply.logprobs)

    async def ask(self, requests: Sequence[Request]) -> list[Any]:
        """Send requests; the replies in order."""
        return await ask(requests)

    async def ask_once(self, requests: Sequence[Score | Reward]) -> list[Any]:
        """As `ask`, but what the search has an answer to, or asks here twice, is not sent."""
        new = [request for request in dict.fromkeys(requests) if request not in self._replies]
        self._replies |= zip(new, await self.ask(new), strict=True)
        return [self._replies[request] for request in requests]

    def parse(self, role: str, node: Node, text: str) -> list[Step]:
        """The task's reading of a reply; a failure is counted and gives no steps.

        Raises:
            TypeError: the task gave neither steps with hashable states nor a `ParseFailure`.
        """
        parsed = self.task.parse(role, node.state, text)
        if isinstance(parsed, ParseFailure):
            self.parse_failures.append(parsed)
            return []
        return checks.steps(parsed, f"{type(self.task).__name__}.parse")

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

        Raises:
            TypeError: a parent is no node, a step none, its state cannot be hashed, or its
                log-probability is no number.
            ValueError: there is no parent, one is of another search, or a log-probability is NaN.
        """
        above = checks.nodes_of(
            self._graph, [parents] if isinstance(parents, Node) else parents, "parents of ctx.add"
        )
        if not above:
            raise ValueError("ctx.add was given no parents")
        states = {child.state for child in above[0].children} if dedupe else set()
        added = []
        for step, logprob in steps:
            checks.steps([step], "ctx.add")
            logprob = checks.logprob(logprob, f"ctx.add: the log-probability of {step.text!r}")
            if dedupe and step.state in states:
                continue
            if self._graph.is_full:
                self._meter.hit = "nodes"
                break
            states.add(step.state)
            is_terminal = bool(self.task.is_terminal(step.state))
            node = self._graph.add(above, step.text, step.state, is_terminal=is_terminal)
            node.logprob = logprob
            added.append(node)
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
        if self._graph.is_full:
            await end("nodes")


def top_k(nodes: Sequence[Node], values: Sequence[float], k: int) -> list[Node]:
    """The `k` nodes of highest value, best first; ties go to the earlier node."""
    order = sorted(range(len(nodes)), key=lambda i: -values[i])
    return [nodes[i] for i in order[:k]]


def flatten(lists: Sequence[Sequence[Node]]) -> list[Node]:
    return [node for nodes in lists for node in nodes]


def _digest(*key: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
