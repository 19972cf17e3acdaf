"""Constant parts of prompts, kept as text files in `prompts/` next to their task's modules."""

from __future__ import annotations

from importlib.resources import files


def read_prompts(package: str, *folders: str) -> dict[str, str]:
    """Read every prompt text of a task.

    Args:
        package: the package that holds the folder `prompts`, usually `__package__`.
        folders: the folder below `prompts`, if several tasks share the package.

    Returns:
        The texts by file name without `.txt`. Each ends with one empty line, whatever number of
        line ends its file has at its end; the problem follows it in the prompt.

    Raises:
        OSError: there is no such folder.
    """
    folder = files(package).joinpath("prompts", *folders)
    return {
        file.name.removesuffix(".txt"): file.read_text(encoding="utf-8").rstrip("\n") + "\n\n"
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".txt")
    }
