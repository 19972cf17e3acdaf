"""Prompts of real text to time generation with: the Game of 24, and this package's own source.

The replies repeat their prompts to very different degrees: completely (edits), in their form (the
Game of 24) or little (few-shot).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path

from treeshare.llm_backend.api import Generate, Prompt, Sampling
from treeshare.tasks.arithmetic.game24 import Game24

_FOLDERS = ("experiments", "kernels", "llm_backend", "search", "tasks")
_SIBLINGS = 4  # samples of a prompt, when sampled


def requests(
    workload: str, batch: int, temperature: float, max_tokens: int, seed: int
) -> list[Generate]:
    """Make requests of `batch` sequences in all.

    Greedy sequences have a prompt each, since greedy samples of one prompt are equal; up to four of
    the others share a prompt.

    Raises:
        ValueError: no such workload, or it has fewer prompts.
    """
    if workload not in WORKLOADS:
        raise ValueError(f"workload={workload!r} must be one of {', '.join(WORKLOADS)}")
    samples = min(batch, _SIBLINGS) if temperature > 0 else 1
    if batch % samples:
        raise ValueError(f"batch={batch} must be a multiple of {samples} at a temperature")
    prompts, stop = WORKLOADS[workload]
    found = list(islice(prompts(), batch // samples))
    if len(found) < batch // samples:
        raise ValueError(f"batch={batch}: {workload} has only {len(found)} prompts")
    sampling = Sampling(max_tokens, temperature, stop=stop)
    return [Generate(prompt, samples, sampling, seed + i) for i, prompt in enumerate(found)]


def _game24(role: str) -> Iterator[Prompt]:
    task = Game24(split="all")
    return (task.prompt(role, task.root(problem)) for problem in task.problems())


def _edit_code() -> Iterator[Prompt]:
    """Yield prompts to write a function again with its name changed."""
    for name, source, _ in _functions():
        if 400 < len(source) < 1200:
            ask = f"The same code, with `{name}` renamed to `{name}_of_tree`:"
            yield f"```python\n{source}\n```\n\n{ask}\n", f"```python\ndef {name}_of_tree("


def _edit_text() -> Iterator[Prompt]:
    """Yield prompts to correct one mistake in a module's docstring."""
    for text in _module_texts():
        words = text.split()
        words[3:5] = reversed(words[3:5])
        text = " ".join(words)
        yield f"Text: {text}\n\n", f"The same text with its one mistake corrected: {words[0]}"


def _few_shot() -> Iterator[Prompt]:
    """Yield prompts of four functions' names and purposes, then a name."""
    shown = [
        f"Function: {name}\nPurpose: {purpose}\n\n" for name, _, purpose in _documented_functions()
    ]
    for i, (name, _, _) in enumerate(_documented_functions()):
        shots = "".join(shown[i - 4 : i] if i >= 4 else shown[i + 1 : i + 5])
        yield shots, f"Function: {name}\nPurpose:"


@cache
def _trees() -> list[tuple[str, ast.Module]]:
    """Return source and syntax tree of every module of the package."""
    root = Path(__file__).resolve().parents[2]
    paths = (path for folder in _FOLDERS for path in sorted((root / folder).rglob("*.py")))
    return [(source, ast.parse(source)) for source in (path.read_text() for path in paths)]


def _module_texts() -> Iterator[str]:
    texts = (ast.get_docstring(tree) or "" for _, tree in _trees())
    return (text for text in texts if len(text) > 100)


@cache
def _functions() -> list[tuple[str, str, str]]:
    """Return name, source and docstring of every function."""
    return [
        (node.name, ast.get_source_segment(source, node) or "", ast.get_docstring(node) or "")
        for source, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]


def _documented_functions() -> list[tuple[str, str, str]]:
    return [
        (name, source, text.partition("\n")[0])
        for name, source, text in _functions()
        if text and not name.startswith("_")
    ]


WORKLOADS: dict[str, tuple[Callable[[], Iterator[Prompt]], tuple[str, ...]]] = {
    "propose": (lambda: _game24("propose"), ("\n\n",)),
    "cot": (lambda: _game24("cot"), ("\n\n",)),
    "edit_code": (_edit_code, ("```",)),
    "edit_text": (_edit_text, ("\n",)),
    "few_shot": (_few_shot, ("\n",)),
}
"""Prompts and stop strings by name."""
