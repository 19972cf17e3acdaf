"""The examples are prompts and replies of the tasks, and show nothing that is held out."""

import re
from collections import Counter
from fractions import Fraction
from itertools import islice

import pytest

from treeshare.experiments.training.examples import (
    PREAMBLES,
    VOCABULARY,
    WORDS,
    Example,
    HeldOut,
    Split,
    Teacher,
)
from treeshare.experiments.training.small_llama import make_tokenizer
from treeshare.tasks.arithmetic.countdown import Countdown
from treeshare.tasks.arithmetic.game24 import Game24
from treeshare.tasks.arithmetic.game24_puzzles import solvable_puzzles
from treeshare.tasks.arithmetic.rules import (
    GAME_OF_24,
    Position,
    can_make,
    is_solution,
    operations,
)

COUNT = 2000
GAME24 = PREAMBLES[: len(PREAMBLES) // 2]
TASKS = dict(zip(WORDS, (Game24(), Countdown(limit=1)), strict=True))
ROLES = ("propose", "step", "io", "value", "judge")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A split by a list in another order than ours, as ToT's is."""
    path = tmp_path_factory.mktemp("list") / "24.csv"
    puzzles = sorted(solvable_puzzles(), key=lambda puzzle: (sum(puzzle) % 7, puzzle))
    path.write_text("Puzzles\n" + "".join(f"{' '.join(map(str, p))}\n" for p in puzzles))
    return Split.of(str(path), 50, seed=0)


@pytest.fixture(scope="module")
def held_out(split):
    return split.held_out(with_children=True)


@pytest.fixture(scope="module")
def examples(split, held_out):
    return list(islice(Teacher(split.train, held_out, (0, 0)).examples(), COUNT))


def read(example):
    """The role, the task, the position and the body of an example's prompt."""
    (number,) = (i for i, text in enumerate(PREAMBLES) if example.prompt.startswith(text))
    role, task = ROLES[number % len(ROLES)], TASKS[WORDS[number // len(ROLES)]]
    body = example.prompt.removeprefix(PREAMBLES[number])
    target = re.match(r"Target: ([0-9]+)\n", body)
    assert bool(target) == (number >= len(ROLES))
    numbers = re.search(r"Numbers: (.*)\n", body)[1]
    state = position(numbers, Fraction(target[1]) if target else GAME_OF_24)
    return role, task, state, body


def position(numbers, target):
    """The position of numbers as a prompt shows them, which may be fractions."""
    values = tuple(sorted(map(Fraction, numbers.split())))
    whole = tuple(int(value) for value in values) if "/" not in numbers else ()
    made = Position.start(tuple(range(1, 1 + len(values))), target)
    named = [type(n)(value, str(value)) for n, value in zip(made.numbers, values, strict=True)]
    return type(made)(whole, tuple(named), target=target)


def after_steps(state, texts):
    """The position after steps written as in a prompt. Each step must be legal."""
    for text in texts:
        children = (state.step(*move) for move in operations(len(state.numbers)))
        (state, *_) = [child for child in children if child and child.steps[-1] == text]
    return state


def test_every_kind_of_prompt_occurs(examples):
    kinds = Counter(
        PREAMBLES.index(text) for e in examples for text in PREAMBLES if e.prompt.startswith(text)
    )
    assert set(kinds) == set(range(len(PREAMBLES)))


def test_nothing_held_out_is_shown(examples, held_out):
    shown = set()
    for example in examples:
        _, _, state, body = read(example)
        lines = re.findall(r"Numbers: (.*)\n|\(left: (.*?)\)", body + example.reply)
        for numbers in (first or second for first, second in lines):
            shown.add((position(numbers, state.target).values, state.target))
    assert len(shown) > COUNT / 4
    assert not shown & held_out.states


def test_that_test_would_see_it(held_out):
    values, target = next(state for state in held_out.states if len(state[0]) == 3)
    shown = position(" ".join(map(str, values)), target)
    assert (shown.values, shown.target) in held_out.states


def test_what_is_held_out(split, held_out):
    assert len(split.validation) == 50 and 100 < len(split.test) <= 200
    assert len({*split.test, *split.validation, *split.train}) == 1820
    assert not {*split.test, *split.validation} & {*split.train}
    for puzzle in (*split.test[:20], *split.validation[:20]):
        root = Position.start(puzzle)
        assert root in held_out
        for move in operations(4):
            child = root.step(*move)
            assert child is None or child in held_out
    task = Countdown(numbers=5)
    assert all(task.root(problem) in held_out for problem in task.problems())
    assert not any(Position.start(puzzle) in held_out for puzzle in split.train)


def test_puzzles_alone_can_be_held_out_and_what_they_lead_to_comes_up_by_chance(split):
    """The positions after one step of test games are shown as often as those of other games.

    Neither is preferred: the ratio of the two counts is bounded.
    """
    held_out = split.held_out()
    assert Position.start(split.test[0]) in held_out
    kinds = {"test": split.test, "train": [p for p in split.train if p in set(solvable_puzzles())]}
    children = {
        kind: {
            child.values
            for puzzle in puzzles[: len(split.test)]
            for move in operations(4)
            if (child := Position.start(puzzle).step(*move)) is not None
        }
        for kind, puzzles in kinds.items()
    }
    shown = Counter()
    for example in islice(Teacher(split.train, held_out, (0, 0)).examples(), 3 * COUNT):
        _, _, state, _ = read(example)
        assert state not in held_out
        if state.target == GAME_OF_24:
            shown.update(kind for kind in children if state.values in children[kind])
    assert 20 < shown["test"] < 1.3 * shown["train"]


def test_verdicts_are_right(examples):
    said = Counter()
    for example in examples:
        role, _, state, body = read(example)
        if not example.is_verdict:
            continue
        answer = re.search(r"Answer: (.*) = (.*)\n", body)
        if answer:
            puzzle = tuple(map(int, state.values))
            is_right = answer[2] == str(state.target) and is_solution(
                answer[1], puzzle, state.target
            )
        else:
            is_right = can_make(state.values, state.target)
        assert (
            example.reply
            in {"value": (" sure\n", " likely\n", " impossible\n"), "judge": (" yes\n", " no\n")}[
                role
            ]
        )
        assert (example.reply in (" sure\n", " likely\n", " yes\n")) == is_right, example
        said[role, example.reply, bool(answer)] += 1
    assert {key for key, count in said.items() if count >= 5} >= {
        *(("value", f" {word}\n", False) for word in ("sure", "likely", "impossible")),
        *(("value", f" {word}\n", True) for word in ("sure", "impossible")),
        *(
            ("judge", f" {word}\n", is_answer)
            for word in ("yes", "no")
            for is_answer in (False, True)
        ),
    }


def test_replies_are_read_by_the_task_and_steps_are_good(examples):
    num_good = 0
    for example in examples:
        role, task, state, body = read(example)
        if role == "propose":
            lines = example.reply.removesuffix("\n\n").split("\n")
            children = [after_steps(state, [line]) for line in lines]
            assert [step.state for step in task.parse(role, state, example.reply)] == children
            if can_make(state.values, state.target):  # otherwise any steps may be proposed
                assert all(can_make(child.values, child.target) for child in children)
                num_good += 1
        elif role == "step":
            taken, reply = re.findall(r"Step: (.*)\n", body), f" {example.reply}"
            before = after_steps(state, taken)
            steps = re.findall(r"^(?:Step:)? +(.*\))$", example.reply, re.MULTILINE)
            end = after_steps(before, steps)
            assert steps and task.parse("step", before, reply)[0].text == steps[0]
            if can_make(before.values, before.target):
                assert can_make(end.values, end.target)
                num_good += 1
            if end.is_final:
                (answer,) = re.findall(r"^Answer: (.*) = .*\n\n", example.reply, re.MULTILINE)
                (step,) = task.parse("cot", state, example.reply)
                assert step.state.answer == answer
                assert is_solution(answer, tuple(map(int, state.values)), end.values[0])
        elif role == "io":
            (step,) = task.parse("io", state, example.reply)
            assert is_solution(step.state.answer, tuple(map(int, state.values)), state.target)
            num_good += 1
    assert num_good > COUNT / 20


def test_prompts_are_the_tasks_own(examples):
    """A prompt built from the position that was read is the same, byte for byte."""
    for example in examples:
        role, task, state, body = read(example)
        if "Answer:" not in body and "/" not in body:
            puzzle = tuple(map(int, state.values))
            root = type(state)(puzzle, state.numbers, target=state.target)
            taken = after_steps(root, re.findall(r"Step: (.*)\n", body))
            assert "".join(task.prompt(role, taken)) == example.prompt


def test_good_steps_are_not_shown_where_one_leads_to_what_is_held_out():
    """If they were shown, the examples would teach the model to avoid held-out positions."""
    puzzle = (1, 1, 4, 6)
    good = {
        child.values
        for move in operations(4)
        if (child := Position.start(puzzle).step(*move)) and can_make(child.values)
    }
    held_out = HeldOut([])
    held_out.states = frozenset([(next(iter(good)), GAME_OF_24)])
    for is_held_out, held in ((False, HeldOut([])), (True, held_out)):
        shown = [
            example
            for example in islice(Teacher([puzzle], held, (0,)).examples(), 2000)
            if re.search(r"Numbers: 1 1 4 6\n(Step|Next steps):\n?$", example.prompt)
            and example.prompt.startswith(GAME24)
        ]
        assert bool(shown) != is_held_out


def test_same_seed_same_examples(split, held_out):
    def first(seed):
        return list(islice(Teacher(split.train, held_out, seed).examples(), 50))

    assert first((0, 1)) == first((0, 1)) != first((0, 2))
    assert isinstance(first((0, 1))[0], Example)


def test_examples_are_short_in_the_vocabulary(examples):
    """A preamble is one token, and so is each word, sign or group of digits."""
    tokenizer = make_tokenizer(PREAMBLES, VOCABULARY)
    for example in examples:
        text = example.prompt + example.reply
        (preamble,) = (text_ for text_ in PREAMBLES if text.startswith(text_))
        body = text.removeprefix(preamble)
        tokens = tokenizer.encode(text)
        assert tokens == tokenizer.encode(example.prompt) + tokenizer.encode(example.reply)
        pieces = re.findall(
            r"[A-Za-z]+:?|[0-9]{1,2}(?=(?:[0-9]{2})*(?![0-9]))|[^\sA-Za-z0-9]|\n", body
        )
        assert len(tokens) == 1 + len(pieces)


@pytest.mark.parametrize("count", [0, 1362])
def test_validation_out_of_bounds_is_refused(count, tmp_path):
    path = tmp_path / "24.csv"
    path.write_text("Puzzles\n" + "".join(f"{' '.join(map(str, p))}\n" for p in solvable_puzzles()))
    with pytest.raises(ValueError, match=f"validation={count} must be from 1 to 1261"):
        Split.of(str(path), count, 0)
