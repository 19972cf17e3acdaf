"""Mini crosswords, five by five letters (Tree of Thoughts, arXiv 2305.10601 section 4.3).

A step fills in one word that fits the letters so far, so what is filled stays. The games are a
user's file, whose clues the task reads and whose letters only `CrosswordsVerifier` keeps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from treeshare.tasks.replies import read_steps, read_verdict, tidy
from treeshare.tasks.sampling import RoleSampling, merged
from treeshare.tasks.task import ParseFailure, Problem, State, Step

from . import prompts as prompts

SIZE = 5
SLOTS = {
    **{f"h{i + 1}": tuple(range(SIZE * i, SIZE * (i + 1))) for i in range(SIZE)},
    **{f"v{i + 1}": tuple(range(i, SIZE * SIZE, SIZE)) for i in range(SIZE)},
}
"""Rows h1 to h5 and columns v1 to v5, in the order of a game's clues; the places of their letters
in the board, row by row."""

_OPEN = "_"
_SAMPLING: RoleSampling = {
    "propose": {"max_tokens": 160, "temperature": 0.7, "stop": ("\n\n",)},
    "step": {"max_tokens": 24, "temperature": 0.7, "stop": ("\n",)},
    "io": {"max_tokens": 64, "temperature": 0.7, "stop": ("\n",)},
    "cot": {"max_tokens": 240, "temperature": 0.7, "stop": ("\n\n",)},
    "value": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
}
_WORD = re.compile(  # (?ai:...) takes ASCII letters alone, great and small
    r"\W*+((?ai:[hv])[1-5])\s*[.:)]\s*((?ai:[a-z]{5}))(?![^\W\d_]|[\u0300-\u036f])"
)
_ROWS = re.compile(r"(?:rows|output):", re.IGNORECASE | re.ASCII)
_LABEL = re.compile(  # of a row: `h1.`, `2)`, `- ` before a word
    r"[\s*`|>#•-]*+(?:(?ai:[hr]|row ?)?[1-5][.:)]|(?<=[-*•]\s)(?=[^\W\d_]{2}))"
)
_PART = re.compile(r"[^\s,;|/.`*]+")  # a letter or a word


class Clues(NamedTuple):
    """A problem's data: what is asked, and the letters given at the start."""

    clues: tuple[str, ...]  # ten, in the order of `SLOTS`
    letters: str  # 25, `_` where there is none


@dataclass(frozen=True, slots=True)
class Board:
    clues: tuple[str, ...]
    letters: str  # 25 small letters, row by row; `_` where there is none
    words: tuple[str, ...] = field(default=(), compare=False)  # filled in, such as `h1. heart`

    def __str__(self) -> str:
        return " ".join(self.word(f"h{i}") for i in range(1, SIZE + 1))

    @property
    def is_full(self) -> bool:
        return _OPEN not in self.letters

    def word(self, slot: str) -> str:
        return "".join(self.letters[place] for place in SLOTS[slot])

    def fill(self, slot: str, word: str) -> Board | str:
        """The board with `word` in `slot`, or why it cannot be."""
        pattern = self.word(slot)
        if _OPEN not in pattern:
            return f"{slot} is filled"
        if any(there not in (_OPEN, letter) for there, letter in zip(pattern, word, strict=True)):
            return f"{word} does not fit {pattern} of {slot}"
        letters = dict(zip(SLOTS[slot], word, strict=True))
        filled = "".join(letters.get(i, letter) for i, letter in enumerate(self.letters))
        return replace(self, letters=filled, words=(*self.words, f"{slot}. {word}"))


class Crosswords:
    """The task: games, prompts and parsers.

    Args:
        path: a JSON list of games, each a pair: ten clues (rows, then columns) and 25 letters, row
            by row. ToT's is mini0505_0_100_5.json.
        given: rows filled in from the start, 0 to 4: the more, the easier.
        start: first game taken, counted from 0.
        limit: games taken; None takes all that follow.
        sampling: per role, fields that replace those of the defaults.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is not such a list, or another argument is out of its bound.
    """

    name = "crosswords"
    values: Mapping[str, float] = {" sure": 1.0, " maybe": 0.5, " impossible": 0.0}
    yes_no = (" yes", " no")

    def __init__(
        self,
        path: str,
        *,
        given: int = 0,
        start: int = 0,
        limit: int | None = None,
        sampling: RoleSampling | None = None,
    ) -> None:
        self.sampling = merged(_SAMPLING, sampling)
        games = read_games(path)
        if not 0 <= given < SIZE:
            raise ValueError(f"given={given} must be from 0 to {SIZE - 1}")
        if not 0 <= start < len(games):
            raise ValueError(f"start={start} must be from 0 to {len(games) - 1}")
        stop = len(games) if limit is None else start + limit
        if not start < stop <= len(games):
            raise ValueError(f"limit={limit} must be from 1 to {len(games) - start}, or null")
        shown = SIZE * given
        self._problems = [
            Problem(f"{self.name}/{i}", Clues(clues, letters[:shown].ljust(SIZE * SIZE, _OPEN)))
            for i, (clues, letters) in enumerate(games[start:stop], start)
        ]

    def problems(self) -> list[Problem]:
        """In the file's order; an id as `crosswords/7` counts the file's games from 0."""
        return self._problems

    def root(self, problem: Problem) -> Board:
        """The board with the rows given, as if they had been filled in."""
        clues, letters = problem.data
        board = Board(clues, letters)
        rows = [slot for slot in SLOTS if slot[0] == "h" and _OPEN not in board.word(slot)]
        return replace(board, words=tuple(f"{slot}. {board.word(slot)}" for slot in rows))

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Segments of the prompt for `role`, the constant one first.

        `step` and `cot` show the clues and then the words filled in, so a child's prompt continues
        its parent's; the other roles show each clue with its letters so far.

        Raises:
            ValueError: there is no such role.
        """
        clues = list(zip(SLOTS, state.clues, strict=True))
        shown = "".join(f"{slot}. {clue}: {state.word(slot)}\n" for slot, clue in clues)
        match role:
            case "propose":
                return prompts.PROPOSE, shown, "Words:\n"
            case "step" | "cot":
                asked = "".join(f"{slot}. {clue}\n" for slot, clue in clues)
                words = "".join(f"{word}\n" for word in state.words)
                return prompts.STEPS, asked, f"Words:\n{words}"
            case "io":
                return prompts.SOLVE, shown, "Rows:"
            case "value":
                return prompts.VALUE, shown, "Verdict:"
            case "judge":
                return prompts.JUDGE, shown, "Right:"
        raise ValueError(f"role={role!r} must be one of {', '.join((*self.sampling, 'judge'))}")

    def parse(self, role: str, state: Board, text: str) -> list[Step] | ParseFailure:
        """Steps read from a reply.

        `propose` and `step`: lines such as `h1. heart`, of which `step` takes the first; a word
        counts if it fits the letters so far and its place is not full. `io` and `cot`: the rows
        after the last `Rows:` or `Output:`, or else of all the text, as `read_rows` reads them.

        Raises:
            ValueError: the role has no such reply.
        """
        if role in ("propose", "step"):
            lines = tidy(text).splitlines()
            return read_steps(role, text, lines, lambda line: _read_word(state, line))
        if role in ("io", "cot"):
            rows = read_rows(_ROWS.split(tidy(text))[-1])
            if rows is None:
                return ParseFailure(role, text, "not five rows of five letters")
            board = replace(state, letters="".join(rows))
            return [Step(str(board), board)]
        raise ValueError(f"role={role!r} must be one of propose, step, io, cot")

    def is_terminal(self, state: Board) -> bool:
        return state.is_full

    def answer(self, state: Board) -> str | None:
        """The rows, such as `heart ember abuse resin trend`; None unless all letters are there."""
        return str(state) if state.is_full else None

    def heuristic(self, state: Board) -> float:
        """The share of letters filled in."""
        return 1 - state.letters.count(_OPEN) / len(state.letters)

    def parse_value(self, state: Board, text: str) -> float | ParseFailure:
        """The value of the one verdict in the reply (`read_verdict`)."""
        return read_verdict(self.values, text)


class CrosswordsVerifier:
    """Knows the letters of the games in `path`."""

    def __init__(self, path: str) -> None:
        self._letters = {
            f"{Crosswords.name}/{i}": letters for i, (_, letters) in enumerate(read_games(path))
        }

    def check(self, problem: Problem, answer: str) -> bool:
        """Whether `answer` is the five rows with every letter right (ToT's `game`) and no letter
        besides. Anything malformed is wrong."""
        rows = read_rows(answer)
        num_letters = sum(map(str.isalpha, answer))
        return (
            rows is not None
            and num_letters == SIZE * SIZE
            and "".join(rows) == self._letters[problem.id]
        )

    def promise(self, problem: Problem, state: Board) -> float:
        """1.0 if every letter filled in is right, else 0.0."""
        letters = self._letters[problem.id]
        is_right = (
            there in (_OPEN, right) for there, right in zip(state.letters, letters, strict=True)
        )
        return float(all(is_right))

    def grades(self, problem: Problem, state: Board) -> dict[str, float]:
        """ToT's `letters` and `words`: the shares of the 25 letters and the ten words that are
        right."""
        right = Board(state.clues, self._letters[problem.id])
        letters = sum(a == b for a, b in zip(state.letters, right.letters, strict=True))
        words = sum(state.word(slot) == right.word(slot) for slot in SLOTS)
        return {"letters": letters / len(right.letters), "words": words / len(SLOTS)}


@cache
def read_games(path: str) -> tuple[tuple[tuple[str, ...], str], ...]:
    """The games of a file: clues, and letters in small type.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is not a list of such games, at least one.
    """
    try:
        games = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(games, list) or not games:
        raise ValueError(f"{path}: not a list of at least one game")
    for i, game in enumerate(games):
        if not _is_game(game):
            raise ValueError(f"{path}: game {i} is not a pair of ten clues and 25 letters")
    return tuple(
        (tuple(" ".join(clue.split()) for clue in clues), "".join(letters).lower())
        for clues, letters in games
    )


def read_rows(text: str) -> list[str] | None:
    """The five rows of a board that a text is, in small letters, `_` where there is none; None if
    no letter can be read.

    As Tree of Thoughts marks replies (`test_output` of its tasks/crosswords.py): each of the last
    five lines is a row. Its letters stand apart and the first five count, or it is a word; what is
    shorter is padded, a longer word leaves the row open. Besides, a text of five words is their
    rows if three of them have five letters, and so is one of 25 letters that are not on five lines.
    """
    words = [match[0] for match in islice(_PART.finditer(text), SIZE * SIZE + 1)]
    lines = list(islice(_lines(text), SIZE + 1))
    sizes = [len(word) for word in words]
    if len(lines) == SIZE:
        lines = lines[::-1]
    elif len(words) == SIZE and sizes.count(SIZE) >= 3:
        lines = [[word] for word in words]
    elif sizes == [1] * (SIZE * SIZE):
        lines = [words[i : i + SIZE] for i in range(0, SIZE * SIZE, SIZE)]
    else:
        lines = lines[:SIZE][::-1]
    rows = ["".join(parts[:SIZE]) for parts in lines]
    letters = [_OPEN * SIZE if len(row) > SIZE else _small(row).ljust(SIZE, _OPEN) for row in rows]
    letters += [_OPEN * SIZE] * (SIZE - len(letters))
    return letters if set("".join(letters)) != {_OPEN} else None


def _lines(text: str) -> Iterator[list[str]]:
    """The parts of each line that has any, without its label, from the last line on."""
    for line in filter(None, reversed(text.splitlines())):
        label = _LABEL.match(line)
        if parts := _PART.findall(line, label.end() if label else 0):
            yield parts


def _small(row: str) -> str:
    """A row in small ASCII letters, `_` for every other character."""
    return "".join(x.lower() if x.isascii() and x.isalpha() else _OPEN for x in row)


def _is_game(game: object) -> bool:
    match game:
        case [[*clues], [*letters]]:
            are_clues = len(clues) == len(SLOTS) and all(isinstance(clue, str) for clue in clues)
            return (
                are_clues
                and len(letters) == SIZE * SIZE
                and all(isinstance(x, str) and re.fullmatch("[A-Za-z]", x) for x in letters)
            )
    return False


def _read_word(state: Board, line: str) -> Step | str:
    """The step a line tells, or why it tells none."""
    match = _WORD.match(line)
    if match is None:
        return "not a word such as `h1. heart`"
    board = state.fill(match[1].lower(), match[2].lower())
    return board if isinstance(board, str) else Step(board.words[-1], board)
