"""Make the examples that the embedded model is trained on, and choose the held-out puzzles.

An example is a prompt of `Game24` or `Countdown` with the right reply, which an exact solver gives.

A verdict is `sure` if the target can be made with whole numbers only, `likely` if fractions are
needed, and `impossible` if it cannot be made. A step is good if the verdict after it is as good as
before. A position in `HeldOut` occurs in no example. Good steps are shown only at positions where
none of them leads to a held-out position, so that such positions are neither preferred nor avoided.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement, islice

import numpy as np
import numpy.typing as npt

from treeshare.tasks.arithmetic.countdown import Countdown
from treeshare.tasks.arithmetic.game24 import Game24
from treeshare.tasks.arithmetic.game24_puzzles import (
    LARGEST,
    Puzzle,
    read_puzzles,
    select,
    solvable_puzzles,
)
from treeshare.tasks.arithmetic.rules import GAME_OF_24, Position, Values, is_solution, operations
from treeshare.tasks.arithmetic.templates import ArithmeticTemplates

from .solver import LARGEST_TARGET, Solved, solve_all

Operations = npt.NDArray[np.intp]
"""Indices of operations on a position."""

WORDS = (Game24.templates, Countdown.templates)
PREAMBLES = tuple(
    words.preamble(role) for words in WORDS for role in ("propose", "step", "io", "value", "judge")
)
VOCABULARY = (
    *("Target:", "Numbers:", "Next", "steps:", "Step:", "left:", "Answer:", "Verdict:", "Makes"),
    *("sure", "likely", "impossible", "yes", "no"),
)


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the right reply to it."""

    prompt: str
    reply: str
    is_verdict: bool = False  # the reply judges a position or an answer


class HeldOut:
    """The positions that no example shows.

    Args:
        game24: puzzles of the Game of 24.
        countdown: puzzles of Countdown.
        with_children: also hold out every position of three numbers, with the target 24, to which
            one step from a puzzle of `game24` leads. If false, such a position is shown as often as
            other puzzles lead to it.
    """

    def __init__(
        self,
        game24: Iterable[Puzzle],
        countdown: Iterable[Position] = (),
        *,
        with_children: bool = False,
    ) -> None:
        positions = [Position.start(puzzle) for puzzle in game24]
        if with_children:
            steps = ((root, move) for root in positions for move in operations(len(root.numbers)))
            children = [root.step(*move) for root, move in steps]
            positions += [child for child in children if child is not None]
        positions += countdown
        self.states: frozenset[tuple[Values, Fraction]] = frozenset(map(_state, positions))

    def __contains__(self, position: Position) -> bool:
        return _state(position) in self.states


@dataclass(frozen=True, slots=True)
class Split:
    """A partition of all puzzles of four numbers from 1 to 13."""

    test: tuple[Puzzle, ...]  # ToT's 100 and the 100 of our own list; some are in both
    validation: tuple[Puzzle, ...]
    train: tuple[Puzzle, ...]  # also those without a solution

    @classmethod
    def of(cls, tot_puzzles: str, num_validation: int, seed: int) -> Split:
        """Make the split.

        Args:
            tot_puzzles: the path of ToT's 24.csv.
            num_validation: the number of validation puzzles, drawn from the solvable puzzles that
                are not for testing.
            seed: decides which puzzles are drawn.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not such a list, or `num_validation` is out of its bounds.
        """
        lists = read_puzzles(tot_puzzles), solvable_puzzles()
        test = {puzzle: None for puzzles in lists for puzzle in select(puzzles, "test", 0, None)}
        others = [puzzle for puzzle in solvable_puzzles() if puzzle not in test]
        if not 0 < num_validation < len(others):
            raise ValueError(f"validation={num_validation} must be from 1 to {len(others) - 1}")
        validation = tuple(random.Random(seed).sample(others, num_validation))
        every = combinations_with_replacement(range(1, LARGEST + 1), 4)
        held_out = {*test, *validation}
        return cls(tuple(test), validation, tuple(p for p in every if p not in held_out))

    def held_out(self, *, with_children: bool = False) -> HeldOut:
        """The positions to hold out: test, validation and Countdown puzzles.

        The Countdown puzzles are the 100 that `Countdown` draws by default with three, four and
        five numbers each.

        Args:
            with_children: as for `HeldOut`.
        """
        games = (*self.test, *self.validation)
        return HeldOut(games, _countdown_puzzles(), with_children=with_children)


@dataclass(frozen=True, slots=True)
class Lessons:
    """The examples of teachers, as `Batches` takes them."""

    puzzles: Sequence[Puzzle]
    held_out: HeldOut

    def examples(self, seed: Sequence[int]) -> Iterator[Example]:
        """Return a teacher's examples, without end."""
        return Teacher(self.puzzles, self.held_out, seed).examples()


class Teacher:
    """Draws puzzles and makes examples from them.

    Args:
        puzzles: the puzzles of the Game of 24 to train on.
        held_out: the positions that no example may show.
        seed: teachers with equal arguments give equal examples.
    """

    def __init__(self, puzzles: Sequence[Puzzle], held_out: HeldOut, seed: Sequence[int]) -> None:
        self._puzzles = np.array(puzzles)
        self._held_out = held_out
        self._generator = np.random.default_rng(seed)
        self._random = random.Random(int(self._generator.integers(1 << 62)))

    def examples(self) -> Iterator[Example]:
        """Make examples without end."""
        while True:
            for root in self._roots():
                if root.position not in self._held_out:
                    yield from self._lesson(root)

    # Drawing puzzles.

    def _roots(self) -> Iterator[Solved]:
        """Draw puzzles of one size, each with a target."""
        if self._random.random() < 0.2:
            yield from solve_all(self._generator.choice(self._puzzles, 16))
            return
        kinds = [(16, 3, 1), (16, 4, 1), (1, 5, 8)]
        count, size, num_targets = self._random.choices(kinds, [0.2, 0.5, 0.3])[0]
        largest = self._random.choice([13, 13, 25, 25, 50])
        for solved in solve_all(self._generator.integers(1, largest, (count, size), endpoint=True)):
            for _ in range(num_targets):
                yield solved.aimed(self._target(solved))

    def _target(self, solved: Solved) -> int:
        """Draw a target: often 24, otherwise mostly one that can be made."""
        if self._random.random() < 0.4:
            return int(GAME_OF_24)
        targets = solved.targets() if self._random.random() < 0.8 else []
        return self._random.choice(targets or range(1, 1 + LARGEST_TARGET))

    def _words(self, state: Position) -> ArithmeticTemplates:
        """The prompts to use: the Game of 24's only for the target 24 and up to four numbers."""
        is_game24 = state.target == GAME_OF_24 and len(state.puzzle) <= 4
        return WORDS[0] if is_game24 and self._random.random() < 0.75 else WORDS[1]

    # Making examples from a puzzle.

    def _lesson(self, root: Solved) -> Iterator[Example]:
        yield self._verdict(root)
        for child in self._children(root, 3 if len(root.position.numbers) > 3 else 1):
            yield self._verdict(child)
            if len(child.position.numbers) > 2 and self._random.random() < 0.2:
                yield from map(self._verdict, self._children(child, 1))
        if root.can_make_it() or self._random.random() < 0.2:
            yield from self._chain(root)
        if self._random.random() < 0.6:
            yield from self._claim(root)
        for state in (root, *self._children(root, 1)):
            if len(state.position.numbers) > 1 and self._random.random() < 0.2:
                yield from self._proposal(state)

    def _verdict(self, solved: Solved) -> Example:
        """A verdict on a position; if it is final, on the answer that it holds."""
        state = solved.position
        if solved.can_make_it(only_whole=not state.is_final):
            return self._judged(state, " sure")
        return self._judged(state, " likely" if solved.can_make_it() else " impossible")

    def _judged(self, state: Position, verdict: str) -> Example:
        role = self._random.choice(["value", "judge"])
        if role == "judge":
            verdict = " no" if verdict == " impossible" else " yes"
        prompt = "".join(self._words(state).prompt(role, state))
        return Example(prompt, f"{verdict}\n", is_verdict=True)

    def _chain(self, root: Solved) -> Iterator[Example]:
        """Good steps to the answer, and the answer alone if all steps may be shown."""
        node: Solved | None = root
        while node is not None and (moves := self._good(node)) is None:
            node = next(self._children(node, 1), None)
        if node is None or node.position.is_final:
            return
        start = node.position
        while not node.position.is_final and (moves := self._good(node)) is not None:
            child = self._random.choice(moves) if moves else next(self._children(node, 1), None)
            if child is None:
                break
            node = child
        end = node.position
        if end is start:
            return
        reply = " " + "\nStep: ".join(end.steps[len(start.steps) :]) + "\n"
        equation = f" {end.numbers[0].expression} = {end}"
        if end.is_final:
            reply += f"Answer:{equation}\n\n"
        yield Example("".join(self._words(start).prompt("step", start)), reply)
        is_right = end.is_final and end.values[0] == end.target
        if is_right and start is root.position:
            yield Example("".join(self._words(start).prompt("io", start)), f"{equation}\n")

    def _proposal(self, solved: Solved) -> Iterator[Example]:
        """Up to six good steps, or four other steps if there are no good ones."""
        moves = self._good(solved)
        if moves is None:
            return
        good = self._random.sample(moves, min(6, len(moves)))
        chosen = good or [*islice(self._any(solved), 4)]
        lines = "\n".join(dict.fromkeys(child.position.steps[-1] for child in chosen))
        prompt = "".join(self._words(solved.position).prompt("propose", solved.position))
        yield Example(prompt, f"{lines}\n\n")

    def _claim(self, root: Solved) -> Iterator[Example]:
        """A verdict on an answer: one made of steps, or one that claims to make the target."""
        is_good = self._random.random() < 0.6
        node: Solved | None = root
        while node is not None and not node.position.is_final:
            node = next(self._children(node, 1) if is_good else self._any(node), None)
        if node is None:
            return
        end = node.position
        if self._random.random() < 0.3:
            yield self._verdict(node)
            return
        expression, puzzle = end.numbers[0].expression, end.puzzle
        match self._random.randrange(4):
            case 0:  # use a number that is not in the puzzle
                expression = self._with_other_number(expression)
            case 1:  # answer another puzzle
                puzzle = self._with_other_number_of(puzzle)
        state = replace(end, answer=expression, puzzle=puzzle, steps=())
        if Position.start(puzzle, end.target) not in self._held_out:
            is_right = is_solution(expression, puzzle, end.target)
            yield self._judged(state, " sure" if is_right else " impossible")

    def _with_other_number(self, expression: str) -> str:
        pieces = expression.split(" ")
        places = [place for place, piece in enumerate(pieces) if piece.strip("()").isdigit()]
        place = self._random.choice(places)
        other = str(self._random.randint(1, LARGEST))
        pieces[place] = pieces[place].replace(pieces[place].strip("()"), other)
        return " ".join(pieces)

    def _with_other_number_of(self, puzzle: Puzzle) -> Puzzle:
        others = list(puzzle)
        others[self._random.randrange(len(others))] = self._random.randint(1, LARGEST)
        return tuple(sorted(others))

    # Steps.

    def _good(self, solved: Solved) -> list[Solved] | None:
        """The distinct positions after good steps; None if one of them is held out."""
        operations = np.flatnonzero(solved.is_good(only_whole=True))
        if not len(operations):
            operations = np.flatnonzero(solved.is_good())
        children: dict[Position, Solved] = {}
        for operation in operations:
            if (child := solved.after(operation)) is not None:
                if child.position in self._held_out:
                    return None
                children.setdefault(child.position, child)
        return list(children.values())

    def _children(self, solved: Solved, count: int) -> Iterator[Solved]:
        """Positions after one step that may be shown.

        Up to `count` of them can still make the target; up to `count` more cannot.
        """
        is_good = solved.is_good()
        for wanted in (True, False):
            yield from islice(self._any(solved, np.flatnonzero(is_good == wanted)), count)

    def _any(self, solved: Solved, operations: Operations | None = None) -> Iterator[Solved]:
        """Positions after one of the operations, by default after any, that may be shown.

        They come in random order.
        """
        drawn = len(solved.made) if operations is None else operations
        for operation in self._generator.permutation(drawn):
            child = solved.after(operation)
            if child is not None and child.position not in self._held_out:
                yield child


@cache  # finding puzzles that have a solution takes seconds
def _countdown_puzzles() -> tuple[Position, ...]:
    """The puzzles that `Countdown` draws by default, with three, four and five numbers."""
    tasks = [Countdown(numbers=numbers) for numbers in (3, 4, 5)]
    return tuple(task.root(problem) for task in tasks for problem in task.problems())


def _state(position: Position) -> tuple[Values, Fraction]:
    return position.values, position.target
