"""Make the lines of training data of one search, in the forms that TRL's trainers read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

from .replay import Replay, ReplayedNode, ReplayedTree

Line = dict[str, Any]
"""One line of the output, without what names its run."""


@dataclass(frozen=True, slots=True)
class LineOptions:
    """What the lines are to hold.

    Raises:
        ValueError: a number is out of its bound.
    """

    format: str  # sft, preferences or steps
    style: str = "chat"  # sft: chat or text
    value: str = "search"  # preferences: search or solved
    margin: float = 0.0  # preferences: the least difference of two values
    most: int | None = None  # lines of a puzzle; preferences: of a node

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise ValueError(f"most={self.most} must be at least 1")
        if not self.margin >= 0:
            raise ValueError(f"margin={self.margin} must be at least 0")


def lines_of(replay: Replay, tree: ReplayedTree, options: LineOptions) -> Iterator[Line]:
    """Make the lines of one search.

    Args:
        replay: reads the trees of the run.
        tree: the search.
        options: what to make.
    """
    if options.format == "sft":
        return islice(_solved_paths(replay, tree, options.style), options.most)
    if options.format == "steps":
        return islice(_marked_steps(replay, tree), options.most)
    return _preferences(tree, options)


def _solved_paths(replay: Replay, tree: ReplayedTree, style: str) -> Iterator[Line]:
    """The distinct solutions with a right answer, the best of the ranking first."""
    seen = set()
    for leaf in tree.terminal():
        text = replay.whole_text(tree, leaf) if leaf.is_right else None
        if text is None or text.strip() in seen:
            continue
        seen.add(text.strip())
        first, ids = leaf.path[0], [node.id for node in leaf.path]
        if style == "text":
            yield {"nodes": ids, "prompt": first.prompt, "completion": text}
        else:
            asked = first.prompt.removesuffix(first.cue).rstrip()
            reply = f"{first.cue}{text}".strip()
            messages = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": reply},
            ]
            yield {"nodes": ids, "messages": messages}


def _preferences(tree: ReplayedTree, options: LineOptions) -> Iterator[Line]:
    """Pairs of the steps that follow one node, those of the largest margin first."""
    for node in tree.nodes:
        valued = [
            (value, child)
            for child in node.children
            if (value := _value(child, options.value)) is not None
        ]
        valued.sort(key=lambda one: -one[0])
        pairs = [
            (high - low, high, low, chosen, rejected)
            for (high, chosen), (low, rejected) in combinations(valued, 2)
            if high - low >= options.margin and high > low and chosen.prompt == rejected.prompt
        ]
        pairs.sort(key=lambda pair: -pair[0])
        for margin, high, low, chosen, rejected in pairs[: options.most]:
            yield {
                "node": node.id,
                "chosen_node": chosen.id,
                "rejected_node": rejected.id,
                "prompt": chosen.prompt,
                "chosen": chosen.text,
                "rejected": rejected.text,
                "chosen_value": high,
                "rejected_value": low,
                "margin": margin,
            }


def _value(node: ReplayedNode, kind: str) -> float | None:
    return node.share if kind == "solved" else node.value


def _marked_steps(replay: Replay, tree: ReplayedTree) -> Iterator[Line]:
    """Solutions, right and wrong, with the Monte-Carlo value of each step.

    The value of a step is the share of right answers among the terminal nodes at and below it: the
    soft label of Math-Shepherd (Wang et al., arXiv 2312.08935) and of OmegaPRM (Luo et al., arXiv
    2406.06592). The hard label says whether it is above 0.
    """
    for leaf in tree.nodes:
        if not leaf.is_terminal or not leaf.path or leaf.is_whole:
            continue
        prompt, added = replay.solution(tree, leaf)
        steps = [
            (text, node) for node, texts in zip(leaf.path, added, strict=True) for text in texts
        ]
        yield {
            "nodes": [node.id for _, node in steps],
            "prompt": prompt,
            "completions": [text for text, _ in steps],
            "labels": [node.num_right > 0 for _, node in steps],
            "values": [node.num_right / node.num_terminal for _, node in steps],
            "num_terminal": [node.num_terminal for _, node in steps],
        }
