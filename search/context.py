"""The context of one search: the graph it grows, and the operations that grow it.

A policy reaches the task (prompts, parsers, legal moves) through it, but neither the verifier nor
the right answers. The one exception is the evaluator `Oracle`, which marks the results.
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
    Chat,
    Completion,
    Generate,
    GenerateReply,
    Request,
    Reward,
    Sampling,
    Score,
    ScoreReply,
)
from treeshare.tasks.task import Dialogue, HasMaxSteps, ParseFailure, Problem, Step, Task

from . import checks
from .budget import Budget, Meter, Spent
from .coroutines import CoroutineRunner, ask, end, gather
from .graph import Node, SearchGraph
from .parts import Evaluator, Expander, Policy, check_needs, check_parts, traits_of

DEFAULT_DEPTH = 16
"""Steps of a search of a task that is not `HasMaxSteps`, if its policy sets no depth."""


def value_or_least(node: Node) -> float:
    """Return the node's value, or -∞ while it has none."""
    return -math.inf if node.value is None else node.value


def known_logprob(completion: Completion) -> float | None:
    """Return a completion's log-probability in nats; None if the engine gives none (NaN)."""
    return None if math.isnan(completion.logprob) else completion.logprob


class Context:
    """The context of one search.

    It checks what expanders, evaluators, policies and tasks return (search/checks.py): nodes of
    this graph, finite numbers and hashable states. Anything else raises an error whose one line
    names the method that returned it.

    Args:
        task: gives prompts, parsers and the root's state.
        problem: the puzzle to solve.
        expander: serves `expand`.
        evaluator: serves `evaluate`.
        budget: the search's limits; None is no limit.
        seed: the run's seed. Every draw of the search depends on it and on the problem's id.

    Raises:
        TypeError: the task lacks what the expander or the evaluator, or a part of it, needs, the
            root's state cannot be hashed, or `max_steps` of the task or `default_samples` of the
            expander is no whole number.
        ValueError: one of these two is below 1, the task's sampling is out of its bounds, or a
            limit of the budget cannot be used with the evaluator.
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
        check_parts((expander, evaluator), task, budget)
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
        traits = traits_of(expander)
        self._expands_once = traits.expands_once
        name = f"{type(expander).__name__}.default_samples"
        self._default_samples = checks.whole(traits.default_samples, name)
        self._depth = _max_steps(task, problem)
        self._evaluator = evaluator
        self._seed = seed
        self._asked: Counter[tuple[int, str]] = Counter()
        self._replies: dict[Score | Reward, Any] = {}

    @property
    def graph(self) -> SearchGraph:
        """The graph that the search grows."""
        return self._graph

    @property
    def root(self) -> Node:
        """The graph's first node, which holds the problem's state."""
        return self._graph.root

    @property
    def task(self) -> Task:
        """The task: prompts, parsers, and whatever its `Has...` protocols add."""
        return self._task

    @property
    def problem(self) -> Problem:
        """The puzzle of this search."""
        return self._problem

    @property
    def parse_failures(self) -> list[ParseFailure]:
        """The replies that could not be parsed. Evaluators append theirs to this list."""
        return self._parse_failures

    @property
    def spent(self) -> Spent:
        """What the search has spent so far. It is a copy, so changing it moves no limit."""
        return self._meter.spent

    @property
    def best(self) -> list[Node] | None:
        """The ranking to return if the budget ends the search now.

        A policy may set it; None means `ranked()`.

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
        """Return the ranking for a search that ends now: `best`, or `ranked()` without one.

        Raises:
            TypeError: the list set as `best` has been changed and holds something that is not a
                node, or the policy gave nodes values that cannot be compared.
            ValueError: `best` holds a node of another search.
        """
        if self._best is None:
            return self.ranked()
        return checks.nodes_of(self._graph, self._best, "ctx.best")

    def start(self, policy: Policy) -> CoroutineRunner:
        """Start the clock of the budget and return the runner that steps the policy's search."""
        self._meter.began = time.monotonic()
        return CoroutineRunner(self._search(policy), self._meter)

    async def _search(self, policy: Policy) -> list[Node]:
        """Run the policy's search from start to end.

        Raises:
            TypeError: the task lacks what the policy needs, or the policy did not return a list of
                nodes.
            ValueError: the policy returned a node of another search.
        """
        check_needs(policy, self.task)
        name = f"{type(policy).__name__}.search"
        ranked = await checks.awaited(policy.search(self), name)
        return checks.nodes_of(self._graph, ranked, f"what {name} returned")

    @property
    def depth(self) -> int:
        """The steps below the root that a policy searches unless its parameters say otherwise.

        It is what the task says of this problem (`HasMaxSteps`); 16 for a task that says nothing.
        """
        return self._depth

    @property
    def expands_once(self) -> bool:
        """Whether the expander gives all the children of a node at its first call."""
        return self._expands_once

    # Operations for policies.

    def gather(self, *awaitables: Awaitable[Any]) -> Awaitable[list[Any]]:
        """Run coroutines concurrently, so that all their requests join one batch.

        Returns:
            An awaitable of their results, in order.
        """
        return gather(*awaitables)

    def can_expand(self, node: Node) -> bool:
        """Return whether `node` may have children: not if terminal or at the depth limit."""
        depth = self._meter.budget.depth
        return not node.is_terminal and (depth is None or node.depth < depth)

    async def expand(self, node: Node, n: int | None = None) -> list[Node]:
        """Ask the model for next steps of `node`, with `n` samples, and add them as children.

        The search ends here if the node limit is reached.

        Args:
            node: the node to expand.
            n: samples to draw, at least 1. None takes the expander's `default_samples`: 4 of
                `Sample`, 1 of an expander that does not say.

        Returns:
            The new children; an empty list if the node cannot be expanded or no reply could be
            parsed.

        Raises:
            TypeError: `node` is not a node, `n` is not a whole number, or the expander did not
                return a list of nodes.
            ValueError: `node` belongs to another search, `n` is below 1, or the expander returned
                a node that is not a child of `node`.
        """
        checks.node_of(self._graph, node, "what ctx.expand was given")
        n = self._default_samples if n is None else checks.whole(n, "n of ctx.expand")
        if not self.can_expand(node):
            return []
        await self._end_if_full()
        name = f"{type(self._expander).__name__}.expand"
        children = await checks.awaited(self._expander.expand(self, node, n), name)
        return checks.children_of(self._graph, node, children, name)

    async def evaluate(self, nodes: Sequence[Node]) -> list[float]:
        """Return the values of `nodes`, in order, and ask the evaluator for the missing ones.

        Raises:
            TypeError: `nodes` is not a list of nodes, or the evaluator did not return a list of
                numbers.
            ValueError: a node belongs to another search, or the evaluator returned more or fewer
                values than it was given nodes, or a value that is NaN or infinite.
        """
        nodes = checks.nodes_of(self._graph, nodes, "what ctx.evaluate was given")
        new = list(dict.fromkeys(node for node in nodes if node.value is None))
        if new:
            for node, value in zip(new, await self.values(self._evaluator, new), strict=True):
                node.value = value
        return [node.value for node in nodes if node.value is not None]

    async def values(self, evaluator: Evaluator, nodes: Sequence[Node]) -> list[float]:
        """Ask another evaluator for values and check them, for evaluators made of others.

        Raises:
            TypeError: as in `evaluate`.
            ValueError: as in `evaluate`.
        """
        name = f"{type(evaluator).__name__}.evaluate"
        found = await checks.awaited(evaluator.evaluate(self, nodes), name)
        return checks.numbers(found, nodes, name)

    async def sample(self, node: Node, role: str, n: int = 1) -> list[Node]:
        """Draw `n` replies to `role`; each that can be parsed becomes a child of `node`.

        The child holds the state of the reply's last step. A node that cannot be expanded and the
        node limit have the same effect as in `expand`. Equal states are kept apart.

        Args:
            node: the parent.
            role: a role of the task's prompts, such as `cot`.
            n: replies to draw, at least 1.

        Returns:
            The new children.

        Raises:
            TypeError: `node` is not a node.
            ValueError: `node` belongs to another search, the task has no such role, or `n` is out
                of bounds.
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
                drawn.append((steps[-1], known_logprob(completion)))
        return self.add(node, drawn, dedupe=False)

    # Operations for expanders and evaluators.

    async def generate(
        self, node: Node, role: str, n: int = 1, state: Any = None
    ) -> list[Completion]:
        """Return completions of the task's prompt for `role` at `node`.

        Args:
            node: the node whose state the prompt shows, and whose path is part of the seed.
            role: a role of the task's prompts.
            n: completions to draw, at least 1.
            state: what the prompt shows in place of the node's state; None shows that.

        Raises:
            TypeError: `node` is not a node.
            ValueError: the task has no such role, or no sampling for it, or `n` is out of bounds.
        """
        checks.node_of(self._graph, node, "what ctx.generate was given")
        prompt = self.task.prompt(role, node.state if state is None else state)
        if role not in self._sampling:
            known = ", ".join(self._sampling) or "none"
            raise ValueError(
                f"task {self.task.name!r} has no sampling for {role!r}; it has {known}"
            )
        seed = self.request_seed(node, role)
        request = Generate(prompt, n, self._sampling[role], seed, _chat_of(prompt))
        (reply,) = await self.ask([request])
        assert isinstance(reply, GenerateReply)
        return list(reply.completions)

    async def score(self, node: Node, role: str, continuations: Sequence[str]) -> list[float]:
        """Return the log-probability, in nats, of each continuation of the prompt for `role`."""
        checks.node_of(self._graph, node, "what ctx.score was given")
        prompt = self.task.prompt(role, node.state)
        (reply,) = await self.ask([Score(prompt, tuple(continuations), _chat_of(prompt))])
        assert isinstance(reply, ScoreReply)
        return list(reply.logprobs)

    async def ask(self, requests: Sequence[Request]) -> list[Any]:
        """Send requests and return the replies, in order."""
        return await ask(requests)

    async def ask_once(self, requests: Sequence[Score | Reward]) -> list[Any]:
        """Do as `ask`, but send no request twice: the search keeps the replies."""
        new = [request for request in dict.fromkeys(requests) if request not in self._replies]
        self._replies |= zip(new, await self.ask(new), strict=True)
        return [self._replies[request] for request in requests]

    def parse(self, role: str, node: Node, text: str) -> list[Step]:
        """Return the steps that the task reads from a reply.

        A `ParseFailure` is added to `parse_failures` and gives no steps.

        Raises:
            TypeError: the task returned neither steps with hashable states nor a `ParseFailure`.
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
        """Add a node for each step; stop at the node limit.

        Args:
            parents: the node above, or several nodes whose states the step merges.
            steps: each step with its log-probability in nats, or None.
            dedupe: whether to drop a step to a state that a child of the first parent holds.

        Returns:
            The new nodes.

        Raises:
            TypeError: a parent is not a node, a step is not a `Step`, its state cannot be hashed,
                or its log-probability is not a number.
            ValueError: there are no parents, one belongs to another search, or a log-probability is
                NaN.
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
        """Return the seed of the next request of this role at this node, 64 bits.

        It is a hash of the run's seed, the problem's id, the node's path, the role, and how many
        requests of this role the node has had. So other searches never change a draw.
        """
        k = self._asked[node.id, role]
        self._asked[node.id, role] += 1
        return _digest(self._seed, self.problem.id, node.positions, role, k)

    def random(self, *key: object) -> random.Random:
        """Return a generator for a policy's own draws.

        Args:
            key: anything with a stable `repr`, such as a name and an index. The same key gives the
                same draws for one seed and problem.
        """
        return random.Random(_digest(self._seed, self.problem.id, "policy", *key))

    def ranked(self, key: Callable[[Node], Any] = value_or_least) -> list[Node]:
        """Return the default ranking: the terminal nodes, best first.

        Without a terminal node, it holds the deepest nodes. Ties go to the earlier node.

        Args:
            key: what to rank by, higher first.
        """
        terminal = [node for node in self.graph if node.is_terminal]
        deepest = max(node.depth for node in self.graph)
        nodes = terminal or [node for node in self.graph if node.depth == deepest]
        return sorted(nodes, key=key, reverse=True)

    async def _end_if_full(self) -> None:
        if self._graph.is_full:
            await end("nodes")


def top_k(nodes: Sequence[Node], values: Sequence[float], k: int) -> list[Node]:
    """Return the `k` nodes of highest value, best first; ties go to the earlier node."""
    order = sorted(range(len(nodes)), key=lambda i: -values[i])
    return [nodes[i] for i in order[:k]]


def flatten(lists: Sequence[Sequence[Node]]) -> list[Node]:
    """Return the nodes of all the lists, in order, as one list."""
    return [node for nodes in lists for node in nodes]


def _max_steps(task: Task, problem: Problem) -> int:
    """Return what the task says of the problem, or the default.

    Raises:
        TypeError: `max_steps` is not a method, or does not return a whole number.
        ValueError: the number is below 1.
    """
    if not isinstance(task, HasMaxSteps):
        return DEFAULT_DEPTH
    name, given = f"{type(task).__name__}.max_steps", checks.short(task.max_steps)
    if not callable(task.max_steps):
        raise TypeError(f"{name} is {given}, not a method max_steps(problem)")
    return checks.whole(task.max_steps(problem), f"what {name} returned")


def _chat_of(prompt: tuple[str, ...]) -> Chat | None:
    """Return a prompt as a conversation; None if its task gives plain text alone."""
    return Chat(prompt.turns, prompt.reply) if isinstance(prompt, Dialogue) else None


def _digest(*key: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
