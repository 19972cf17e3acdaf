"""Read the replies that a run with `record=true` has kept."""

from __future__ import annotations

import json
from pathlib import Path


class RecordedReplies:
    """The texts of the replies to the prompts of a run, read from its requests.jsonl.

    Only the places of the replies are held in memory.

    Args:
        path: the file; without it there are no replies.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[int, list[int]] | None = None  # by the prompt's hash, in bytes

    def texts(self, prompt: str) -> list[str]:
        """The texts of all replies to a prompt, in the order in which they were recorded.

        Raises:
            OSError: the file cannot be read.
            ValueError: a line is not a recorded reply; names the file.
        """
        if not self._path.is_file():
            return []
        if self._places is None:
            self._places = self._read_places()
        texts: list[str] = []
        with self._path.open("rb") as file:
            for place in self._places.get(hash(prompt), []):
                file.seek(place)
                reply = _read_reply(file.readline())
                if reply is not None and reply[0] == prompt:
                    texts += reply[1]
        return texts

    def _read_places(self) -> dict[int, list[int]]:
        places: dict[int, list[int]] = {}
        place = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break  # it was cut off when the run was killed
                try:
                    reply = _read_reply(line)
                except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
                    where = f"{self._path}:{number}"
                    raise ValueError(f"{where}: not a recorded reply: {error}") from None
                if reply is not None:
                    places.setdefault(hash(reply[0]), []).append(place)
                place += len(line)
        return places


def _read_reply(line: bytes) -> tuple[str, list[str]] | None:
    """The prompt and the texts of a reply; None for a score or a reward."""
    row = json.loads(line)
    if row.get("completions") is None:
        return None
    return str(row["prompt"]), [str(completion["text"]) for completion in row["completions"]]
