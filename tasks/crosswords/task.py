"""Mini crosswords, five by five letters (Tree of Thoughts, arXiv 2305.10601 section 4.3).

A step fills in one word that fits the letters so far; letters are never changed. The games are in
the user's file. The task keeps their clues, and only `CrosswordsVerifier` keeps their letters. The
prompts in `prompts/` follow the paper, in our own words and with squares of our own.
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

from treeshare.tasks.arguments import keeps_arguments
from treeshare.tasks.generator import take, within
from treeshare.tasks.prompts import REPLY, PromptTemplates, PromptTexts, Shots, read_prompts
from treeshare.tasks.replies import normalize_characters, read_steps, read_verdict
from treeshare.tasks.task import ParseFailure, Problem, RoleSampling, State, Step, merge_sampling
from treeshare.tasks.verifiers import verifier_of

SIZE = 5
"""Rows, columns, and letters of a word."""
SLOTS = {
    **{f"h{i + 1}": tuple(range(SIZE * i, SIZE * (i + 1))) for i in range(SIZE)},
    **{f"v{i + 1}": tuple(range(i, SIZE * SIZE, SIZE)) for i in range(SIZE)},
}
"""For rows h1 to h5 and columns v1 to v5, the indices of their letters in the board.

They are in the order of a game's clues. The board is stored row by row.
"""

_OPEN = "_"
_TEMPLATES = PromptTemplates(
    read_prompts(__package__),
    {
        "propose": ("propose", "{clues}", REPLY, "Words:\n"),
        "step": ("steps", "{clues}", REPLY, "Words:\n", "{words}"),
        "io": ("solve", "{clues}", REPLY, "Rows:"),
        "cot": ("steps", "{clues}", REPLY, "Words:\n", "{words}"),
        "value": ("value", "{clues}", REPLY, "Verdict:"),
        "judge": ("judge", "{clues}", REPLY, "Right:"),
    },
)
_SAMPLING: RoleSampling = {
    "propose": {"max_tokens": 160, "temperature": 0.7, "stop": ("\n\n",)},
    "step": {"max_tokens": 24, "temperature": 0.7, "stop": ("\n",)},
    "io": {"max_tokens": 64, "temperature": 0.7, "stop": ("\n",)},
    "cot": {"max_tokens": 240, "temperature": 0.7, "stop": ("\n\n",)},
    "value": {"max_tokens": 6, "temperature": 0.7, "stop": ("\n",)},
}
_WORD = re.compile(  # (?ai:...) matches ASCII letters alone, in both cases
    r"\W*+((?ai:[hv])[1-5])\s*[.:)]\s*((?ai:[a-z]{5}))(?![^\W\d_]|[\u0300-\u036f])"
)
_ROWS = re.compile(r"(?:rows|output):", re.IGNORECASE | re.ASCII)
_LABEL = re.compile(  # the label of a row: `h1.`, `2)`, `- ` before a word
    r"[\s*`|>#•-]*+(?:(?ai:[hr]|row ?)?[1-5][.:)]|(?<=[-*•]\s)(?=[^\W\d_]{2}))"
)
_PART = re.compile(r"[^\s,;|/.`*]+")  # a letter or a word


class Clues(NamedTuple):
    """The data of a problem.

    Attributes:
        clues: the ten clues, in the order of `SLOTS`.
        letters: the 25 letters at the start, row by row; `_` is an open one.
    """

    clues: tuple[str, ...]
    letters: str


@dataclass(frozen=True, slots=True)
class Board:
    """A state of a game.

    Attributes:
        clues: the ten clues, in the order of `SLOTS`.
        letters: 25 lower-case letters, row by row; `_` is an open one.
        words: the words filled in, such as `h1. heart`, in their order.
    """

    clues: tuple[str, ...]
    letters: str
    words: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return " ".join(self.word(f"h{i}") for i in range(1, SIZE + 1))

    @property
    def is_full(self) -> bool:
        """Whether no letter is open."""
        return _OPEN not in self.letters

    def word(self, slot: str) -> str:
        """Return the letters of a row or column."""
        return "".join(self.letters[place] for place in SLOTS[slot])

    def fill(self, slot: str, word: str) -> Board | str:
        """Return the board with `word` in `slot`, or the reason why it does not fit."""
        pattern = self.word(slot)
        if _OPEN not in pattern:
            return f"{slot} is filled"
        if any(there not in (_OPEN, letter) for there, letter in zip(pattern, word, strict=True)):
            return f"{word} does not fit {pattern} of {slot}"
        letters = dict(zip(SLOTS[slot], word, strict=True))
        filled = "".join(letters.get(i, letter) for i, letter in enumerate(self.letters))
        return replace(self, letters=filled, words=(*self.words, f"{slot}. {word}"))


@keeps_arguments
class Crosswords:
    """The task of the mini crosswords.

    Args:
        path: a JSON list of games, each a pair: ten clues (rows, then columns) and 25 letters, row
            by row. ToT's is mini0505_0_100_5.json.
        given: number of rows filled in at the start, 0 to 4; more rows make it easier.
        start: index of the first game taken, from 0.
        limit: number of games taken; None takes all that follow.
        sampling: per role, fields that replace those of the defaults.
        prompts: by role, a file or a text that replaces the prompt.
        shots: the number of examples in each prompt, or by role; None takes all.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is not such a list, or another argument is out of its bound.
    """

    name = "crosswords"
    templates = _TEMPLATES
    """The prompts."""
    values: Mapping[str, float] = {" sure": 1.0, " maybe": 0.5, " impossible": 0.0}
    """The value of each verdict."""
    yes_no = (" yes", " no")
    """The judgements."""

    def __init__(
        self,
        path: str,
        *,
        given: int = 0,
        start: int = 0,
        limit: int | None = None,
        sampling: RoleSampling | None = None,
        prompts: PromptTexts | None = None,
        shots: Shots | None = None,
    ) -> None:
        self.path = path
        self.sampling = merge_sampling(_SAMPLING, sampling)
        self.templates = self.templates.customized(prompts, shots)
        games = read_games(path)
        within(0, SIZE - 1, given=given)
        chosen = take(games, start, limit)
        shown = SIZE * given
        self._problems = [
            Problem(f"{self.name}/{i}", Clues(clues, letters[:shown].ljust(SIZE * SIZE, _OPEN)))
            for i, (clues, letters) in enumerate(chosen, start)
        ]

    def problems(self) -> list[Problem]:
        """Return the problems in the file's order; an id is such as `crosswords/7`, from 0."""
        return self._problems

    def root(self, problem: Problem) -> Board:
        """Return the board at the start; the rows given count as words filled in."""
        clues, letters = problem.data
        board = Board(clues, letters)
        rows = [slot for slot in SLOTS if slot[0] == "h" and _OPEN not in board.word(slot)]
        return replace(board, words=tuple(f"{slot}. {board.word(slot)}" for slot in rows))

    def max_steps(self, problem: Problem) -> int:
        """Return the most words that can be filled in, each into a slot with an open letter.

        On an empty board that is nine of the ten slots, whose letters cross.
        """
        return 2 * SIZE - 1 - len(self.root(problem).words)

    def prompt(self, role: str, state: State) -> tuple[str, ...]:
        """Return the segments of the prompt for `role`, the constant one first.

        `step` and `cot` show the clues and then the words filled in, so a child's prompt begins
        with its parent's. The other roles show each clue with its letters so far.

        Raises:
            ValueError: there is no such role.
        """
        is_step = role in ("step", "cot")
        clues = [
            f"{slot}. {clue}\n" if is_step else f"{slot}. {clue}: {state.word(slot)}\n"
            for slot, clue in zip(SLOTS, state.clues, strict=True)
        ]
        words = [f"{word}\n" for word in state.words]
        return self.templates.render(role, {"clues": "".join(clues), "words": words})

    def parse(self, role: str, state: Board, text: str) -> list[Step] | ParseFailure:
        """Read the steps of a reply.

        A reply to `propose` or `step` has lines such as `h1. heart`; `step` takes the first. A word
        counts if it fits the letters so far and its row or column is not full. Of a reply to `io`
        or `cot` the step is the rows after the last `Rows:` or `Output:`, or else of the whole text
        (`read_rows`).

        Raises:
            ValueError: the role has no such reply.
        """
        if role in ("propose", "step"):
            lines = normalize_characters(text).splitlines()
            return read_steps(role, text, lines, lambda line: _read_word(state, line))
        if role in ("io", "cot"):
            rows = read_rows(_ROWS.split(normalize_characters(text))[-1])
            if rows is None:
                return ParseFailure(role, text, "not five rows of five letters")
            board = replace(state, letters="".join(rows))
            return [Step(str(board), board)]
        raise ValueError(f"role={role!r} must be one of propose, step, io, cot")

    def is_terminal(self, state: Board) -> bool:
        """Return whether no letter is open."""
        return state.is_full

    def answer(self, state: Board) -> str | None:
        """Return rows such as `heart ember abuse resin trend`; None while a letter is open."""
        return str(state) if state.is_full else None

    def heuristic(self, state: Board) -> float:
        """Return the share of letters filled in."""
        return 1 - state.letters.count(_OPEN) / len(state.letters)

    def parse_value(self, state: Board, text: str) -> float | ParseFailure:
        """Read the value of the one verdict in the reply (`read_verdict`)."""
        return read_verdict(self.values, text)


class CrosswordsVerifier:
    """Compares answers with the letters in the file of the games.

    Args:
        path: the task's file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is not a list of games.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._letters = {
            f"{Crosswords.name}/{i}": letters for i, (_, letters) in enumerate(read_games(path))
        }

    def check(self, problem: Problem, answer: str) -> bool:
        """Return whether `answer` is the five rows with every letter right and no further letter.

        This is ToT's `game`. A malformed answer is wrong.
        """
        rows = read_rows(answer)
        num_letters = sum(map(str.isalpha, answer))
        return (
            rows is not None
            and num_letters == SIZE * SIZE
            and "".join(rows) == self._letters[problem.id]
        )

    def promise(self, problem: Problem, state: Board) -> float:
        """Return 1.0 if every letter filled in is right, else 0.0."""
        letters = self._letters[problem.id]
        is_right = (
            there in (_OPEN, right) for there, right in zip(state.letters, letters, strict=True)
        )
        return float(all(is_right))

    def grades(self, problem: Problem, state: Board) -> dict[str, float]:
        """Return ToT's marks: the shares of right `letters` (of 25) and `words` (of ten)."""
        right = Board(state.clues, self._letters[problem.id])
        letters = sum(a == b for a, b in zip(state.letters, right.letters, strict=True))
        words = sum(state.word(slot) == right.word(slot) for slot in SLOTS)
        return {"letters": letters / len(right.letters), "words": words / len(SLOTS)}


@verifier_of.register
def _make_verifier(task: Crosswords) -> CrosswordsVerifier:
    return CrosswordsVerifier(task.path)


@cache
def read_games(path: str) -> tuple[tuple[tuple[str, ...], str], ...]:
    """Read the games of a file: for each its ten clues and its 25 letters, in lower case.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is not a list of such games, at least one.
    """
    try:
        games = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no file {path!r}; ToT's mini0505_0_100_5.json is in src/tot/data/crosswords "
            "of https://github.com/princeton-nlp/tree-of-thought-llm"
        ) from None
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
    """Read the five rows of a board; None if no letter can be read.

    The rules are those of Tree of Thoughts (`test_output` of its tasks/crosswords.py): each of the
    last five lines is a row. Its letters are divided, and the first five count, or it is a word. A
    shorter row is padded, and a longer word leaves the row open. In addition, five words are read
    as rows if at least three of them have five letters, and so are 25 single letters that are not
    on five lines.

    Returns:
        Five rows of five lower-case letters; `_` is an open one.
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
    """Yield the parts of each line that has any, without its label, from the last line back."""
    for line in filter(None, reversed(text.splitlines())):
        label = _LABEL.match(line)
        if parts := _PART.findall(line, label.end() if label else 0):
            yield parts


def _small(row: str) -> str:
    """Return a row in lower-case ASCII letters, with `_` for every other character."""
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
    """Read the step of a line; or return the reason why it has none."""
    match = _WORD.match(line)
    if match is None:
        return "not a word such as `h1. heart`"
    board = state.fill(match[1].lower(), match[2].lower())
    return board if isinstance(board, str) else Step(board.words[-1], board)
