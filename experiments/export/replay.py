"""Read a saved tree again: the states of its nodes, what the model writes at each, what is right.

A tree holds states as text. Their objects are made again from the task: from the root's, by the
text of each step. A node counts as read if its state has the text that the tree holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from treeshare.experiments.results.rows import Row
from treeshare.tasks import HasSolution, ParseFailure, Problem
from treeshare.tasks.task import Dialogue, State

from .recorded import RecordedReplies
from .run_task import RunTask
from .step_finder import FoundStep, StepFinder


class NotReplayed(Exception):
    """A tree that cannot be read again. The message is the reason, in a few words."""


@dataclass(slots=True, eq=False)
class ReplayedNode:
    """A node of a search whose state was made again."""

    id: int
    state: State
    is_terminal: bool
    parent: ReplayedNode | None = None
    prompt: str = ""  # the parent's, at which the model writes `text`
    cue: str = ""  # the end of the prompt: how the reply begins
    text: str = ""  # a step, or a whole solution
    added: str | None = None  # what is new in the node's own prompt; None if it does not go on
    is_whole: bool = False  # the text is a recorded reply that holds a whole solution
    value: float | None = None  # the mean of the values backed up, or else the evaluator's
    is_right: bool = False  # it is terminal, and its answer is right
    num_terminal: int = 0  # terminal nodes at and below it
    num_right: int = 0  # of these, those that are right
    children: list[ReplayedNode] = field(default_factory=list)

    @property
    def path(self) -> list[ReplayedNode]:
        """The nodes below the root on the way to this one."""
        nodes, node = [], self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    @property
    def share(self) -> float | None:
        """The share of right nodes among the terminal ones at and below it; None without any."""
        return self.num_right / self.num_terminal if self.num_terminal else None


@dataclass(frozen=True, slots=True)
class ReplayedTree:
    """The search of one puzzle."""

    problem: Problem
    nodes: list[ReplayedNode]  # in the order in which they were made, the root first
    ranking: list[int]  # ids of the nodes that the search returned, best first
    num_unread: int  # nodes that are missing

    def terminal(self) -> list[ReplayedNode]:
        """The terminal nodes, those of the ranking first, then by value."""
        rank = {number: place for place, number in enumerate(self.ranking)}

        def key(node: ReplayedNode) -> tuple[float, float]:
            return rank.get(node.id, math.inf), -(-math.inf if node.value is None else node.value)

        return sorted((node for node in self.nodes if node.is_terminal), key=key)


class Replay:
    """Reads the trees of one run.

    Args:
        run: the run's task and verifier.
        replies: what the run recorded.
    """

    def __init__(self, run: RunTask, replies: RecordedReplies) -> None:
        self._task = run.task
        self._verifier = run.verifier
        self._replies = replies
        stop = run.task.sampling.get("step", {}).get("stop", ())
        self._stops = (stop,) if isinstance(stop, str) else tuple(stop)

    def tree(self, problem: Problem, row: Row, data: Mapping[str, Any]) -> ReplayedTree:
        """Read the tree of a puzzle.

        Args:
            problem: the puzzle.
            row: its row, whose marks must be those of the verifier.
            data: the tree, as `SearchGraph.to_json` wrote it.

        Raises:
            NotReplayed: it cannot be read as the tree of this task.
            OSError: the recorded replies cannot be read.
            ValueError: the recorded replies are damaged.
        """
        first, *others = data["nodes"]
        parents = {edge["target"]: edge["source"] for edge in data["edges"]}
        if len(parents) < len(data["edges"]):
            raise NotReplayed("a step merges several nodes")
        state = self._task.root(problem)
        if str(state) != first.get("state"):
            raise NotReplayed("the puzzle is another now")
        root = ReplayedNode(0, state, bool(self._task.is_terminal(state)))
        read, finder = {0: root}, StepFinder(self._task, state, self._replies)
        for saved in others:  # parents come before their children
            parent = read.get(parents[saved["id"]])
            if parent is not None:
                found = finder.find(parent.id, parent.state, saved)
                if found is not None:
                    read[saved["id"]] = self._add(parent, saved, found)
        tree = ReplayedTree(
            problem=problem,
            nodes=list(read.values()),
            ranking=data["graph"].get("ranked") or [],
            num_unread=len(data["nodes"]) - len(read),
        )
        self._mark(tree, row)
        return tree

    def whole_text(self, tree: ReplayedTree, leaf: ReplayedNode) -> str | None:
        """A whole solution as one reply to the first prompt of its path.

        It is the steps as the prompts show them, and the answer in the form of the prompts'
        examples. The task must read the right answer from it again.

        Args:
            tree: the search.
            leaf: a terminal node with a right answer.

        Returns:
            The text; None if a step has a prompt that does not go on from the one before it, or the
            answer cannot be read from the text.
        """
        path = leaf.path
        if not path or path[-1].is_whole:
            return leaf.text or None
        before = [node.added for node in path[:-1]]
        if None in before:
            return None
        text = "".join(map(str, before)) + leaf.text
        if "cot" not in self._task.sampling:
            return text
        root = tree.nodes[0].state
        wholes = [text]
        if "io" in self._task.sampling:
            wholes.append(f"{text}\n{self._answer_line(root, leaf.state)}")
        for whole in wholes:
            steps = self._task.parse("cot", root, whole)
            if isinstance(steps, ParseFailure):
                continue
            if self._is_right(tree.problem, steps[-1].state):
                return whole
        return None

    def solution(self, tree: ReplayedTree, leaf: ReplayedNode) -> tuple[str, list[list[str]]]:
        """The question, and for each node of the path the texts that it adds to the solution.

        A task that has a form for reward models (`HasSolution`) gives them, because
        `evaluator=process_reward` asks in that form. Otherwise the question is the first prompt.

        Args:
            tree: the search.
            leaf: a node below the root.
        """
        path = leaf.path
        states = [tree.nodes[0].state, *(node.state for node in path)]
        if isinstance(self._task, HasSolution):
            texts = [self._task.solution(state) for state in states]
            added = [list(text[len(before) :]) for before, text in pairwise(texts)]
            if all(added):
                return texts[0][0], added
        return path[0].prompt, [[node.text.strip()] for node in path]

    def _add(
        self, parent: ReplayedNode, saved: Mapping[str, Any], found: FoundStep
    ) -> ReplayedNode:
        role, step, reply = found
        segments = self._task.prompt(role, parent.state)
        prompt = "".join(segments)
        node = ReplayedNode(
            id=saved["id"],
            state=step.state,
            is_terminal=bool(self._task.is_terminal(step.state)),
            parent=parent,
            prompt=prompt,
            cue="".join(segments.reply) if isinstance(segments, Dialogue) else "",
            is_whole=reply is not None,
            value=_value(saved),
        )
        if reply is not None:
            node.text = reply
        else:
            after = self._prompt(role, step.state)
            if after.startswith(prompt):
                node.added = after[len(prompt) :]
                node.text = self._first_step(node.added)
            if not node.text and node.is_terminal and "io" in self._task.sampling:
                node.text = self._answer_line(parent.state, step.state)
            node.text = node.text or f" {step.text.strip()}"
        parent.children.append(node)
        return node

    def _prompt(self, role: str, state: State) -> str:
        return "".join(self._task.prompt(role, state))

    def _first_step(self, text: str) -> str:
        """A text up to the first string at which the model stops; the cue of the next step goes."""
        ends = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text

    def _answer_line(self, root: State, state: State) -> str:
        """The line that gives the answer, as the examples of the prompts end."""
        cue = self._prompt("io", root).rpartition("\n")[2]
        if isinstance(self._task, HasSolution):
            last = self._task.solution(state)[-1]
            if last.startswith(cue):
                return last
        return f"{cue} {self._task.answer(state)}"

    def _mark(self, tree: ReplayedTree, row: Row) -> None:
        """Mark the terminal nodes, and count them from the leaves up.

        Raises:
            NotReplayed: the run has marked one of them otherwise.
        """
        for node in reversed(tree.nodes):
            if node.is_terminal:
                node.is_right = self._is_right(tree.problem, node.state)
                node.num_terminal += 1
                node.num_right += node.is_right
            if node.parent is not None:
                node.parent.num_terminal += node.num_terminal
                node.parent.num_right += node.num_right
        marks = dict(zip(tree.ranking, row.correct, strict=False))
        if any(node.is_right != marks.get(node.id, node.is_right) for node in tree.nodes):
            raise NotReplayed("the verifier marks an answer otherwise than the run did")

    def _is_right(self, problem: Problem, state: State) -> bool:
        answer = self._task.answer(state)
        return answer is not None and bool(self._verifier.check(problem, answer))


def _value(saved: Mapping[str, Any]) -> float | None:
    """The mean of the values backed up through a node; the evaluator's if none was."""
    value, visits, total = (_number(saved.get(name)) for name in ("value", "visits", "value_sum"))
    return total / visits if visits and total is not None else value


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None
